//! Draws a variation of an image.
//!
//! ```sh
//! cargo run --release --example image_to_image -- cat.png "a red apple" apple.png
//! cargo run --release --example image_to_image -- photo.jpg 一幅水彩画 painting.png BAAI/AltDiffusion-m9
//! ```

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use anyhow::{Context, Result};
use candle_core::{DType, Device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().context("expected the image to begin with")?;
    let prompt = arguments.next().unwrap_or_else(|| "一只猫".to_owned());
    let output = arguments.next().unwrap_or_else(|| "out.png".to_owned());
    let model = arguments.next().unwrap_or_else(|| "models/emoji".to_owned());

    let pipeline = AltDiffusion::from_pretrained(&model, DType::F32, &Device::Cpu)?;
    // Runs six tenths of the steps, starting from the image with the corresponding noise.
    let options = GenerateOptions::new(prompt).image(image::open(&image)?.into_rgb8()).strength(0.6);
    let generated = pipeline.generate(&options.steps(20).guidance_scale(3.0).seed(1))?;
    generated.images.first().context("one image was asked for")?.save(&output)?;
    println!("{output}");
    Ok(())
}
