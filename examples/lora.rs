//! Draws with a LoRA and a textual inversion.
//!
//! ```sh
//! cargo run --release --example lora -- BAAI/AltDiffusion-m9 watercolour.safetensors "a photo of <my-cat>" my-cat.safetensors
//! ```

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, LoadOptions, Lora, ModelParts, TextualInversion};
use anyhow::{Context, Result};
use candle_core::{DType, Device};
use model_files::source::ModelSource;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().context("expected a model")?;
    let lora = arguments.next().context("expected a LoRA")?;
    let prompt = arguments.next().unwrap_or_else(|| "一只猫".to_owned());

    let mut options = LoadOptions::new(DType::F32, &Device::Cpu).lora(Lora::open(&lora)?, 0.8);
    for word in arguments {
        options = options.word(TextualInversion::open(&word)?);
    }
    let pipeline = AltDiffusion::load(ModelParts::in_folders(&ModelSource::open(&model)?)?, options)?;
    let generated = pipeline.generate(&GenerateOptions::new(prompt).seed(1))?;
    generated.images.first().context("one image was asked for")?.save("out.png")?;
    println!("out.png");
    Ok(())
}
