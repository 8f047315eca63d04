//! Redraws part of an image: its right half.
//!
//! ```sh
//! cargo run --release --example inpaint -- cat.png "a red apple" half.png
//! cargo run --release --example inpaint -- dog.jpg 一顶红帽子 hat.png BAAI/AltDiffusion-m9
//! ```

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use image::{GrayImage, Luma};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().context("expected an image")?;
    let prompt = arguments.next().unwrap_or_else(|| "一只猫".to_owned());
    let output = arguments.next().unwrap_or_else(|| "out.png".to_owned());
    let model = arguments.next().unwrap_or_else(|| "models/emoji".to_owned());

    let pipeline = AltDiffusion::from_pretrained(&model, DType::F32, &Device::Cpu)?;
    let image = image::open(&image)?.into_rgb8();
    let (width, height) = image.dimensions();
    // White is redrawn, black is kept.
    let mask = GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 0 } else { 255 }]));
    let options = GenerateOptions::new(prompt).image(image).mask(mask);
    let generated = pipeline.generate(&options.steps(20).guidance_scale(3.0).seed(1))?;
    generated.images.first().context("one image was asked for")?.save(&output)?;
    println!("{output}");
    Ok(())
}
