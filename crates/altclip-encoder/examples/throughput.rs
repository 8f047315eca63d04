//! Times the embedding of texts and images on request, for `scripts/compare-throughput.py`, which compares it with
//! the reference implementation, and `scripts/compare-python.py`, which compares it with the Python package.
//!
//! ```sh
//! cargo run --release -p altclip-encoder --example throughput -- models/emoji
//! ```
//!
//! Each line on standard input is a JSON object, `{"texts": ["一只猫", …]}`, `{"stream": ["一只猫", …]}` for the same as
//! a stream, or `{"images": ["cat.png", …]}`. The answer is a line on standard output with the seconds for tokenizing
//! or decoding and the model together. A line with the loading time comes before the first answer.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use altclip_encoder::RowOutcome;
use altclip_encoder::embedder::Embedder;
use candle_core::{DType, Device};
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1).ok_or("expected a model")?;
    let start = Instant::now();
    let embedder = Embedder::from_pretrained(&model, DType::F32, &Device::Cpu)?;
    answer(start)?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let list = |name: &str| -> Option<Vec<String>> {
            request[name].as_array()?.iter().map(|item| Some(item.as_str()?.to_owned())).collect()
        };
        let start = Instant::now();
        let count = match (list("texts"), list("stream"), list("images")) {
            (Some(texts), None, None) => embedder.embed_texts(&texts)?.dim(0)?,
            (None, Some(texts), None) => streamed(&embedder, texts)?,
            (None, None, Some(images)) => {
                let vectors = embedder.image_stream(images.into_iter().map(PathBuf::from));
                vectors.map(|(_, vector)| vector).collect::<Result<Vec<_>, _>>()?.len()
            }
            _ => {
                return Err("expected an object with `texts`, `stream` or `images`, a list of strings".into());
            }
        };
        answer(start)?;
        if count == 0 {
            return Err("expected at least one text or image".into());
        }
    }
    Ok(())
}

/// Embeds texts as jobs do, into one array, and returns how many vectors that gave.
fn streamed(embedder: &Embedder, texts: Vec<String>) -> altclip_encoder::Result<usize> {
    let mut vectors = vec![0.; texts.len() * embedder.projection_dim()];
    let mut stream = embedder.row_stream(texts.into_iter().map(|text| ((), Some(text))));
    let outcomes = stream.embed_into(&mut vectors);
    let count = outcomes.len();
    for ((), outcome) in outcomes {
        if let RowOutcome::Failed(error) = outcome {
            return Err(error);
        }
    }
    Ok(count)
}

fn answer(start: Instant) -> std::io::Result<()> {
    println!("{}", start.elapsed().as_secs_f64());
    std::io::stdout().flush()
}
