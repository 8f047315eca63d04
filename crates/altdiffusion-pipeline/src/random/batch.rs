//! Draws the noise of a batch: from one stream for all images, or from one seed per image.

use std::{fmt, str::FromStr};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Noise, Rng};
use crate::{Error, Result};

/// How the noise of a batch comes from one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seeds {
    /// One generator draws for all images, like diffusers with one `torch.Generator`. The images depend on the size
    /// of the batch.
    #[default]
    Stream,
    /// The first image has the seed, the second the next one, and so on, like diffusers with a list of generators,
    /// and stable-diffusion-webui. Each image is the one that its own seed gives.
    Consecutive,
}

impl Seeds {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Consecutive, Self::Stream];

    /// The option value: `consecutive`, `stream`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Consecutive => "consecutive",
        }
    }

    /// The noise source for a batch of `images`.
    pub fn noise(self, rng: Rng, seed: u64, images: usize) -> Box<dyn Noise> {
        match self {
            Self::Consecutive if images > 1 => {
                let seeds = (0..images as u64).map(|index| seed.wrapping_add(index));
                Box::new(PerImage(seeds.map(|seed| rng.with_seed(seed)).collect()))
            }
            _ => rng.with_seed(seed),
        }
    }

    /// The noise source that draws what the image at `position` gets in its batch, without the others.
    pub fn noise_at(self, rng: Rng, seed: u64, position: BatchPosition) -> Box<dyn Noise> {
        match self {
            Self::Consecutive => rng.with_seed(seed.wrapping_add(position.index as u64)),
            Self::Stream => Box::new(OneOf { batch: rng.with_seed(seed), position }),
        }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Seeds {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|seeds| seeds.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::option("seeds", format!("{name:?} is not known; expected one of {known}"))
        })
    }
}

/// A position in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchPosition {
    /// The index of the image, from 0.
    pub index: usize,
    /// The size of the batch.
    pub images: usize,
}

/// One generator per image.
struct PerImage(Vec<Box<dyn Noise>>);

impl PerImage {
    /// (1, …) from each generator, concatenated.
    fn draw(&mut self, shape: &[usize]) -> Result<Tensor> {
        let alone = [&[1], shape.get(1..).unwrap_or_default()].concat();
        let each = self.0.iter_mut().map(|noise| noise.normal(&alone)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&each, 0)?)
    }
}

impl Noise for PerImage {
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor> {
        if shape.first() != Some(&self.0.len()) {
            return Err(Error::Shape {
                tensor: "noise",
                expected: format!("({}, …), an image for each seed", self.0.len()),
                found: format!("{shape:?}"),
            });
        }
        self.draw(shape)
    }

    fn normal_for_all(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.draw(shape)
    }
}

/// Draws a whole batch's noise and returns that of one image.
struct OneOf {
    batch: Box<dyn Noise>,
    position: BatchPosition,
}

impl Noise for OneOf {
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor> {
        let BatchPosition { index, images } = self.position;
        let all = [&[images], shape.get(1..).unwrap_or_default()].concat();
        Ok(self.batch.normal(&all)?.narrow(0, index, 1)?.contiguous()?)
    }

    fn normal_for_all(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.batch.normal_for_all(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Result<Vec<f32>> {
        Ok(tensor.flatten_all()?.to_vec1()?)
    }

    /// The noise of one image in a batch: the initial noise, and that of two steps.
    fn draw(noise: &mut dyn Noise, images: usize, index: usize) -> Result<Vec<f32>> {
        let for_all = noise.normal_for_all(&[1, 2, 3])?;
        let mut all = values(&for_all.narrow(0, index.min(for_all.dim(0)? - 1), 1)?)?;
        for _ in 0..2 {
            all.extend(values(&noise.normal(&[images, 4, 5])?.narrow(0, index, 1)?)?);
        }
        Ok(all)
    }

    #[test]
    fn an_image_alone_has_the_noise_of_its_batch() -> Result<()> {
        const IMAGES: usize = 3;
        for rng in Rng::ALL {
            for seeds in Seeds::ALL {
                for index in 0..IMAGES {
                    let batch = draw(&mut *seeds.noise(rng, u64::MAX, IMAGES), IMAGES, index)?;
                    let position = BatchPosition { index, images: IMAGES };
                    let alone = draw(&mut *seeds.noise_at(rng, u64::MAX, position), 1, 0)?;
                    assert_eq!(batch, alone, "{rng}, {seeds}, {index}");
                }
            }
            let second = draw(&mut *Seeds::Consecutive.noise(rng, 7, 2), 2, 1)?;
            assert_eq!(second, draw(&mut *rng.with_seed(8), 1, 0)?);
        }
        Ok(())
    }

    #[test]
    fn every_seed_is_for_one_image() {
        let error = Seeds::Consecutive.noise(Rng::Cpu, 1, 3).normal(&[2, 4]).err();
        assert!(error.is_some_and(|error| error.to_string().contains("(3, …)")));
    }
}
