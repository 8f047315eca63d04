//! Parses option values; errors say what was expected. Clap adds the option's name and the value.

use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::random::{Rng, Seeds};
use altdiffusion_pipeline::schedulers::{Sampler, SchedulerKind, SigmaSpacing, TimestepSpacing};
use embedding_index::library::Precision;
use fused_ops::BlockType;
use model_files::Arithmetic;
use model_files::checkpoint::NumberType;

use crate::named::Named;

/// Image sizes are multiples of this in every published model.
const SIDE_MULTIPLE: usize = 8;

/// The most images per run, all in one batch.
pub const MOST_IMAGES: usize = 1024;

/// Parses what a model computes in.
pub fn arithmetics() -> Named<Arithmetic> {
    Named { parser: str::parse::<Arithmetic>, names: || Arithmetic::ALL.map(Arithmetic::name).to_vec() }
}

/// Parses a type that models are written in.
pub fn number_types() -> Named<NumberType> {
    let names =
        || ["f32", "f16", "bf16", "int8"].into_iter().chain(BlockType::ALL.map(BlockType::name)).collect();
    Named { parser: number_type, names }
}

/// Parses a scheduler.
pub fn samplers() -> Named<Sampler> {
    Named { parser: sampler, names: || SchedulerKind::ALL.into_iter().map(SchedulerKind::name).collect() }
}

/// Parses how the images of a batch use the seed.
pub fn seed_modes() -> Named<Seeds> {
    Named { parser: seeds, names: || vec!["consecutive", "stream"] }
}

/// Parses a spacing of noise levels.
pub fn sigma_spacings() -> Named<SigmaSpacing> {
    Named { parser: sigma_spacing, names: || SigmaSpacing::ALL.into_iter().map(SigmaSpacing::name).collect() }
}

/// Parses a spacing of timesteps.
pub fn timestep_spacings() -> Named<TimestepSpacing> {
    let names = || TimestepSpacing::ALL.into_iter().map(TimestepSpacing::name).collect();
    Named { parser: timestep_spacing, names }
}

/// Parses a generator of noise.
pub fn rngs() -> Named<Rng> {
    Named { parser: rng, names: || vec!["cpu", "cuda"] }
}

/// A number type that models are written in.
pub fn number_type(text: &str) -> Result<NumberType, String> {
    text.parse().map_err(|_| {
        let blocks: Vec<_> = BlockType::ALL.into_iter().map(BlockType::name).collect();
        format!("expected one of f32, f16, bf16, int8, {}", blocks.join(", "))
    })
}

/// A scheduler, a spacing of noise levels, or both, by any of their names: see [`Sampler`].
pub fn sampler(text: &str) -> Result<Sampler, String> {
    text.parse().map_err(|_| {
        let known: Vec<_> = SchedulerKind::ALL.into_iter().map(SchedulerKind::name).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// How the images of a batch use the seed.
pub fn seeds(text: &str) -> Result<Seeds, String> {
    text.parse().map_err(|_| "expected consecutive or stream".to_owned())
}

/// A spacing of noise levels.
pub fn sigma_spacing(text: &str) -> Result<SigmaSpacing, String> {
    text.parse().map_err(|_| {
        let known: Vec<_> = SigmaSpacing::ALL.into_iter().map(SigmaSpacing::name).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// A spacing of timesteps.
pub fn timestep_spacing(text: &str) -> Result<TimestepSpacing, String> {
    text.parse().map_err(|_| {
        let known: Vec<_> = TimestepSpacing::ALL.into_iter().map(TimestepSpacing::name).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// A timestep in a list.
pub fn timestep(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| "expected whole numbers, such as 999,500,1".to_owned())
}

/// A noise level in a list.
pub fn sigma(text: &str) -> Result<f32, String> {
    let sigma = text.trim().parse().ok().filter(|sigma: &f32| sigma.is_finite());
    sigma.ok_or_else(|| "expected numbers, such as 14.6,1.6,0".to_owned())
}

/// A number of layers.
pub fn layers(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a number of layers, such as 1".to_owned())
}

/// A generator of noise.
pub fn rng(text: &str) -> Result<Rng, String> {
    match text.to_lowercase().as_str() {
        "cpu" => Ok(Rng::Cpu),
        // The names of web interfaces, for a GPU and for the CPU.
        "cuda" | "gpu" | "nv" => Ok(Rng::Cuda),
        _ => Err("expected cpu or cuda".to_owned()),
    }
}

/// A share from 0 to 1.
pub fn part(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// A number of steps, or of something else that must be at least 1.
pub fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

/// A number of images.
pub fn images(text: &str) -> Result<usize, String> {
    let images = text.parse().ok().filter(|images| (1..=MOST_IMAGES).contains(images));
    images.ok_or_else(|| format!("expected a whole number from 1 to {MOST_IMAGES}"))
}

/// The side of an image, in pixels.
pub fn side(text: &str) -> Result<usize, String> {
    let side = text.parse().ok().filter(|side: &usize| *side > 0 && side.is_multiple_of(SIDE_MULTIPLE));
    side.ok_or_else(|| format!("expected a number of pixels that {SIDE_MULTIPLE} divides"))
}

/// How many times larger images shall be along each side.
pub fn scale(text: &str) -> Result<usize, String> {
    let largest = GenerateOptions::LARGEST_SCALE;
    let scale = text.parse().ok().filter(|scale| (1..=largest).contains(scale));
    scale.ok_or_else(|| format!("expected a whole number from 1 to {largest}"))
}

/// A seed of random numbers.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// How much something counts.
pub fn weight(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && *number >= 0.);
    number.ok_or_else(|| "expected a number, at least 0".to_owned())
}

/// A cosine.
pub fn likeness(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// The numbers that vectors are stored as.
pub fn precision(text: &str) -> Result<Precision, String> {
    text.parse()
}

/// A finite number.
pub fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_meaning_is_refused() {
        for text in ["", "x", "-1", "1.5"] {
            assert!(sampler(text).is_err(), "{text}");
            assert!(number_type(text).is_err(), "{text}");
            assert!(count(text).is_err() && images(text).is_err(), "{text}");
            assert!(side(text).is_err() && seed(text).is_err(), "{text}");
        }
        assert!(count("0").is_err() && side("0").is_err() && side("100").is_err());
        assert!(images("0").is_err() && images("1025").is_err());
        assert!(scale("0").is_err() && scale("5").is_err() && scale("1.5").is_err());
        assert!(finite("NaN").is_err() && finite("inf").is_err() && finite("").is_err());
        assert!(seed("18446744073709551616").is_err());
        assert!(part("1.1").is_err() && part("-0.1").is_err() && part("NaN").is_err());
        assert!(
            timestep("-1").is_err()
                && timestep("1.5").is_err()
                && sigma("NaN").is_err()
                && sigma("").is_err()
        );
        assert!(rng("tpu").is_err() && sigma_spacing("even").is_err() && timestep_spacing("karras").is_err());
    }

    #[test]
    fn what_has_a_meaning_is_taken() {
        assert_eq!((count("3"), images("1024"), scale("4")), (Ok(3), Ok(1024), Ok(4)));
        assert_eq!((side("96"), seed("0")), (Ok(96), Ok(0)));
        assert_eq!(finite("-7.5"), Ok(-7.5));
        assert_eq!(number_type("q4_k"), Ok(NumberType::Quantized(BlockType::Q4K)));
        assert_eq!(
            sampler("Euler a").map(|sampler| sampler.kind),
            Ok(Some(SchedulerKind::EulerAncestralDiscrete))
        );
        assert_eq!((rng("cuda"), part("0.5")), (Ok(Rng::Cuda), Ok(0.5)));
        assert_eq!((timestep(" 999"), sigma("14.5")), (Ok(999), Ok(14.5)));
        assert_eq!(sigma_spacing("karras"), Ok(SigmaSpacing::Karras));
        assert_eq!(timestep_spacing("trailing"), Ok(TimestepSpacing::Trailing));
    }
}
