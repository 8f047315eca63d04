//! Tests options as JSON.

use candle_core::{DType, Device};

use super::*;
use test_support::TestResult;

#[test]
fn options_survive_json() -> TestResult {
    let options = GenerateOptions::default()
        .prompts(["一只猫", "a dog"])
        .negative_prompt("模糊")
        .prompt_reading(PromptReading::Weighted)
        .clip_skip(1)
        .steps(Steps::Sigmas(vec![14.5, 3.0, 0.0]))
        .guidance_scale(3.0)
        .guidance_rescale(0.5)
        .scheduler(SchedulerKind::DpmSolverMultistepSde)
        .sigma_spacing(SigmaSpacing::Karras)
        .timestep_spacing(TimestepSpacing::Trailing)
        .eta(0.25)
        .seed(u64::MAX)
        .rng(Rng::Cuda)
        .seeds(Seeds::Consecutive)
        .batch_position(BatchPosition { index: 1, images: 3 })
        .width(64)
        .height(128)
        .images(2)
        .strength(0.5)
        .windows(DenoisingWindows::of_side(16).overlap(4))
        .guess_mode(true)
        .tiling(Tiling::of_side(32).overlap(0.5))
        .scale(3);
    for options in [options, GenerateOptions::default()] {
        let json = serde_json::to_value(&options)?;
        let read: GenerateOptions = serde_json::from_value(json.clone())?;
        // Compares all there is, since these have no tensors.
        assert_eq!(format!("{read:?}"), format!("{options:?}"));
        assert_eq!(serde_json::to_value(read)?, json);
    }
    Ok(())
}

#[test]
fn a_few_fields_are_enough() -> TestResult {
    let options: GenerateOptions =
        serde_json::from_str(r#"{"prompts": ["a cat"], "scheduler": "dpm++-2m", "steps": 9}"#)?;
    assert_eq!(options.prompts, ["a cat"]);
    assert_eq!(options.scheduler, Some(SchedulerKind::DpmSolverMultistep));
    assert_eq!((options.steps, options.guidance.scale), (Steps::Count(9), GenerateOptions::GUIDANCE_SCALE));
    Ok(())
}

#[test]
fn what_cannot_be_written_or_read_is_refused() -> TestResult {
    for json in [r#"{"promts": ["a cat"]}"#, r#"{"image": null}"#, r#"{"scheduler": "fastest"}"#] {
        assert!(serde_json::from_str::<GenerateOptions>(json).is_err(), "{json}");
    }
    let latents = Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu)?;
    for options in [
        GenerateOptions::default().initial_latents(latents),
        GenerateOptions::default().image(RgbImage::new(8, 8)),
        GenerateOptions::default().mask(GrayImage::new(8, 8)),
        GenerateOptions::default().noise_factory(NoiseFactory::new(|_| Ok(Rng::Cpu.with_seed(1)))),
    ] {
        assert!(serde_json::to_string(&options).is_err());
    }
    Ok(())
}
