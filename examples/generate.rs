//! Draws an image from a prompt.
//!
//! ```sh
//! cargo run --release --example generate -- 一只猫 cat.png
//! cargo run --release --example generate -- "a cat" cat.png BAAI/AltDiffusion-m9
//! ```

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use anyhow::{Context, Result};
use candle_core::{DType, Device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "一只猫".to_owned());
    let output = arguments.next().unwrap_or_else(|| "out.png".to_owned());
    let model = arguments.next().unwrap_or_else(|| "models/emoji".to_owned());

    let pipeline = AltDiffusion::from_pretrained(&model, DType::F32, &Device::Cpu)?;
    let options = GenerateOptions::new(prompt).steps(20).guidance_scale(3.0).seed(1);
    let generated = pipeline.generate(&options)?;
    generated.images.first().context("one image was asked for")?.save(&output)?;
    println!("{output}");
    Ok(())
}
