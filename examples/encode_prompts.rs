//! Encodes texts in several languages to hidden states, and compares them. Of this project's crates it only needs
//! `altclip-encoder`.
//!
//! ```sh
//! cargo run --release --example encode_prompts
//! cargo run --release --example encode_prompts -- BAAI/AltDiffusion-m9 一只猫 "a cat" "un chat"
//! ```

use altclip_encoder::PromptEncoder;
use anyhow::Result;
use candle_core::{DType, Device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "models/emoji".to_owned());
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = ["一只猫", "a cat", "消防车"].map(str::to_owned).to_vec();
    }

    let encoder = PromptEncoder::from_pretrained(&model, DType::F32, &Device::Cpu)?;
    let states = encoder.encode(&texts)?.hidden_states; // (texts, tokens, width)
    println!("hidden states: {:?}", states.dims());

    // The first row, that of <s>, represents the whole text.
    let first = states.narrow(1, 0, 1)?.squeeze(1)?;
    let first = first.broadcast_div(&first.sqr()?.sum_keepdim(1)?.sqrt()?)?;
    for (text, similarities) in texts.iter().zip(first.matmul(&first.t()?)?.to_vec2::<f32>()?) {
        println!("{similarities:.3?} {text}");
    }
    Ok(())
}
