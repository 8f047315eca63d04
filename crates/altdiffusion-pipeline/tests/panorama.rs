//! Compares large images in overlapping windows with the same windows around diffusers' UNet.

use altdiffusion_pipeline::{AltDiffusion, DenoisingWindows, GenerateOptions};
use candle_core::{DType, Device};
use model_files::source::ModelSource;
use test_support::{TestResult, golden, golden_tensors, relative_error};

/// The largest relative error of latents. The reference's own distance from f64 is up to 2.1e-5.
const TOLERANCE: f64 = 1e-4;

#[test]
fn latents_are_the_references() -> TestResult {
    let golden_tensors = golden_tensors("panorama.safetensors");
    for model in ["alt_diffusion", "alt_diffusion_m18"] {
        let source = ModelSource::directory(golden(model));
        let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu)?;
        for case in ["wide", "both"] {
            let tensor = |part: &str| &golden_tensors[&format!("{model}.{case}.{part}")];
            let options = GenerateOptions::new("一幅山水长卷").steps(4).guidance_scale(2.5);
            let options = options.initial_latents(tensor("initial_latents").clone());
            let whole = pipeline.generate(&options)?.latents;
            let in_windows = pipeline.generate(&options.windows(DenoisingWindows::of_side(4)))?.latents;
            let error = relative_error(&in_windows, tensor("latents"));
            println!("{model}.{case}: {error:.1e}");
            assert!(error <= TOLERANCE, "{model}.{case}: {error:.1e}");
            assert!(relative_error(&in_windows, &whole) > 0.01);
        }
    }
    Ok(())
}
