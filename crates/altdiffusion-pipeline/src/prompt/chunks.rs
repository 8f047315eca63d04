//! Splits prompts of any length into chunks of tokens with weights.

use altclip_encoder::tokenizer::Tokenizer;

use super::syntax::{PromptSegment, parse_prompt};
use crate::{Error, Result};

/// The most chunks of a prompt. Every step attends to all of their tokens, so that a prompt of a whole book would fill
/// the memory.
const MOST_CHUNKS: usize = 64;

/// A chunk of a prompt: at most as many tokens as the text encoder takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunk {
    /// The ids, including `<s>` and `</s>`.
    pub ids: Vec<u32>,
    /// The weight of each id; 1 for `<s>` and `</s>`.
    pub weights: Vec<f32>,
}

impl Chunk {
    /// Whether all weights are 1.
    pub(crate) fn is_plain(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 1.0)
    }
}

/// Splits a prompt into chunks of at most `length` tokens, at least one. Parts with different weights are tokenized
/// separately, and a chunk ends when it is full or where the prompt says BREAK, as in stable-diffusion-webui (whose
/// option to break at an earlier comma is not implemented).
///
/// # Errors
/// If a weight is not a number, a part cannot be tokenized, a chunk has no room for a token, or there are too many.
pub(crate) fn chunks(tokenizer: &Tokenizer, prompt: &str, length: usize) -> Result<Vec<Chunk>> {
    // Every chunk has `<s>` and `</s>`.
    let most = length.saturating_sub(2);
    if most == 0 {
        let problem = format!("a chunk of {length} tokens has no place for text, expected at least 3");
        return Err(Error::option("prompt", problem));
    }
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let mut chunks: Vec<Vec<(u32, f32)>> = vec![Vec::new()];
    for part in parse_prompt(prompt)? {
        match part {
            PromptSegment::Break => chunks.push(Vec::new()),
            PromptSegment::Text { text, weight } => {
                let ids = tokenizer.encode(&text)?;
                for &id in
                    ids.get(usize::from(bos.is_some())..ids.len().saturating_sub(1)).unwrap_or_default()
                {
                    match chunks.last_mut() {
                        Some(chunk) if chunk.len() < most => chunk.push((id, weight as f32)),
                        _ => chunks.push(vec![(id, weight as f32)]),
                    }
                }
            }
        }
    }
    if chunks.len() > MOST_CHUNKS {
        let problem =
            format!("is {} chunks of {length} tokens long, expected at most {MOST_CHUNKS}", chunks.len());
        return Err(Error::option("prompt", problem));
    }
    let whole = chunks.into_iter().map(|tokens| {
        let (ids, weights): (Vec<u32>, Vec<f32>) =
            bos.map(|bos| (bos, 1.0)).into_iter().chain(tokens).chain([(eos, 1.0)]).unzip();
        Chunk { ids, weights }
    });
    Ok(whole.collect())
}
