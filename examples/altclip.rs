//! Matches texts with an image: the example from BAAI/AltCLIP's model card.
//!
//! ```sh
//! cargo run --release --example altclip -- 000000039769.jpg
//! cargo run --release --example altclip -- cat.png models/emoji 一只猫 一只狗
//! ```

use altclip_encoder::embedder::Embedder;
use altclip_encoder::images::{self, DecodeOptions};
use anyhow::{Context, Result};
use candle_core::{DType, Device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("expected an image, and then a model and texts if you like")?;
    let model = arguments.next().unwrap_or_else(|| "BAAI/AltCLIP".to_owned());
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = ["一张猫的照片", "一张狗的照片"].map(str::to_owned).to_vec();
    }

    let embedder = Embedder::from_pretrained(&model, DType::F32, &Device::Cpu)?;
    let image_embeds = embedder.embed_images(&[images::open(&file, DecodeOptions::default())?])?;
    let text_embeds = embedder.embed_texts(&texts)?;
    let logits_per_image = embedder.similarity(&image_embeds, &text_embeds)?;
    let probabilities = candle_nn::ops::softmax(&logits_per_image, 1)?;

    for (text, probability) in texts.iter().zip(probabilities.get(0)?.to_vec1::<f32>()?) {
        println!("{probability:.5} {text}");
    }
    Ok(())
}
