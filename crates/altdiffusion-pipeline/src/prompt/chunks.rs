//! Cuts prompts of any length into chunks of tokens with weights.

use altclip_encoder::tokenizer::Tokenizer;

use super::syntax::{PromptSegment, parse_prompt};
use crate::{Error, Result};

/// One chunk of a prompt: as many tokens as the text encoder takes at a time, or fewer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunk {
    /// The ids, `<s>` and `</s>` among them.
    pub ids: Vec<u32>,
    /// The weight of each; those of `<s>` and `</s>` are 1.
    pub weights: Vec<f32>,
}

impl Chunk {
    /// Whether all weights are 1.
    pub(crate) fn is_plain(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 1.0)
    }
}

/// The chunks of a prompt of at most `length` tokens each, at least one. Parts of different weights are tokenised each
/// for itself, and a chunk ends where it is full or where the prompt says BREAK, as in stable-diffusion-webui. (Its
/// option of ending a chunk at a comma before, where there is one, is not there.)
///
/// # Errors
/// When a weight is no number, a part cannot be tokenised, or a chunk has no place for a token.
pub(crate) fn chunks(tokenizer: &Tokenizer, prompt: &str, length: usize) -> Result<Vec<Chunk>> {
    // `<s>` and `</s>` are in every chunk.
    let most = length.saturating_sub(2);
    if most == 0 {
        let problem = format!("a chunk of {length} tokens has no place for text, expected at least 3");
        return Err(Error::option("prompt", problem));
    }
    let mut chunks: Vec<Vec<(u32, f32)>> = vec![Vec::new()];
    for part in parse_prompt(prompt)? {
        match part {
            PromptSegment::Break => chunks.push(Vec::new()),
            PromptSegment::Text { text, weight } => {
                let ids = tokenizer.encode(&text)?;
                for &id in ids.get(1..ids.len().saturating_sub(1)).unwrap_or_default() {
                    match chunks.last_mut() {
                        Some(chunk) if chunk.len() < most => chunk.push((id, weight as f32)),
                        _ => chunks.push(vec![(id, weight as f32)]),
                    }
                }
            }
        }
    }
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let whole = chunks.into_iter().map(|tokens| {
        let (ids, weights): (Vec<u32>, Vec<f32>) =
            [(bos, 1.0)].into_iter().chain(tokens).chain([(eos, 1.0)]).unzip();
        Chunk { ids, weights }
    });
    Ok(whole.collect())
}
