//! Embeds the lines of a file and some images, and saves the vectors for `scripts/compare-encoders.py`, which
//! compares them with the reference implementation.
//!
//! ```sh
//! cargo run --release -p altclip-encoder --example embed -- models/emoji vectors.safetensors texts.txt cat.png
//! ```
//!
//! The file has `text_embeds` (texts, dim), `image_embeds` (images, dim), neither normalised, and `logits_per_image`
//! (images, texts).

use std::collections::HashMap;
use std::time::Instant;

use altclip_encoder::embedder::Embedder;
use altclip_encoder::images::{self, DecodeOptions};
use candle_core::{DType, Device};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, output, texts, images @ ..] = arguments.as_slice() else {
        return Err("expected a model, the file to write, a file of texts, and images".into());
    };
    let texts = std::fs::read_to_string(texts)?;
    let texts: Vec<&str> = texts.lines().collect();
    let images = images
        .iter()
        .map(|path| images::open(path, DecodeOptions::default()))
        .collect::<Result<Vec<_>, _>>()?;

    let start = Instant::now();
    let embedder = Embedder::from_pretrained(model, DType::F32, &Device::Cpu)?;
    println!("{}: loaded in {:.1?}", embedder.family(), start.elapsed());
    let start = Instant::now();
    let text_embeds = embedder.embed_texts(&texts)?;
    println!("{} texts in {:.1?}", texts.len(), start.elapsed());
    let start = Instant::now();
    let image_embeds = embedder.embed_images(&images)?;
    println!("{} images in {:.1?}", images.len(), start.elapsed());

    let logits_per_image = embedder.similarity(&image_embeds, &text_embeds)?;
    let tensors = [
        ("text_embeds", text_embeds),
        ("image_embeds", image_embeds),
        ("logits_per_image", logits_per_image),
    ];
    candle_core::safetensors::save(&HashMap::from(tensors), output)?;
    Ok(())
}
