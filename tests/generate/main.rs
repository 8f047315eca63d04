//! Tests `altdiffusion generate`.

#[path = "../common/mod.rs"]
mod common;

mod again;
mod images;
mod inputs;
#[cfg(unix)]
mod interrupts;
mod options;
mod other_programs;
mod pipes;
mod prompt_file;
mod random_options;
mod sheets;

use std::path::Path;

use common::{golden_model, run, succeeded};
use image::RgbImage;
use test_support::TestResult;

const MODEL: &str = "alt_diffusion";

/// Runs `altdiffusion generate` on a tiny model, by default with two steps and 64 × 64 pixels.
fn generate(directory: &Path, arguments: &[&str]) -> TestResult<String> {
    let model = golden_model(MODEL)?;
    let mut all = vec!["generate", "--model", &model];
    if !arguments.contains(&"--steps") {
        all.extend(["--steps", "2"]);
    }
    if !arguments.contains(&"--width") && !arguments.contains(&"--initial-latents") {
        all.extend(["--width", "64", "--height", "64"]);
    }
    all.extend(arguments);
    Ok(succeeded(&run(directory, &all)?))
}

fn image(path: &Path) -> TestResult<RgbImage> {
    Ok(image::open(path)?.to_rgb8())
}
