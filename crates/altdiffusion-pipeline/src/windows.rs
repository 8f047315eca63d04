//! Prompts of any length, as windows of tokens with weights.

use altclip_encoder::tokenizer::Tokenizer;

use crate::prompt_syntax::{PromptPart, parse_prompt};
use crate::{Error, Result};

/// One window of a prompt: as many tokens as the text encoder takes at a time, or fewer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// The ids, `<s>` and `</s>` among them.
    pub ids: Vec<u32>,
    /// The weight of each; those of `<s>` and `</s>` are 1.
    pub weights: Vec<f32>,
}

impl Window {
    /// Whether all weights are 1.
    pub fn is_plain(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 1.0)
    }
}

/// The windows of a prompt of at most `length` tokens each, at least one. Parts of different weights are tokenised each
/// for itself, and a window ends where it is full or where the prompt says BREAK, as in stable-diffusion-webui. (Its
/// option of ending a window at a comma before, where there is one, is not there.)
///
/// # Errors
/// When a weight is no number, a part cannot be tokenised, or a window has no place for a token.
pub(crate) fn windows(tokenizer: &Tokenizer, prompt: &str, length: usize) -> Result<Vec<Window>> {
    // `<s>` and `</s>` are in every window.
    let most = length.saturating_sub(2);
    if most == 0 {
        let problem = format!("a window of {length} tokens has no place for text, expected at least 3");
        return Err(Error::option("prompt", problem));
    }
    let mut windows: Vec<Vec<(u32, f32)>> = vec![Vec::new()];
    for part in parse_prompt(prompt)? {
        match part {
            PromptPart::Break => windows.push(Vec::new()),
            PromptPart::Text { text, weight } => {
                let ids = tokenizer.encode(&text)?;
                for &id in ids.get(1..ids.len().saturating_sub(1)).unwrap_or_default() {
                    match windows.last_mut() {
                        Some(window) if window.len() < most => window.push((id, weight as f32)),
                        _ => windows.push(vec![(id, weight as f32)]),
                    }
                }
            }
        }
    }
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    let whole = windows.into_iter().map(|tokens| {
        let (ids, weights): (Vec<u32>, Vec<f32>) =
            [(bos, 1.0)].into_iter().chain(tokens).chain([(eos, 1.0)]).unzip();
        Window { ids, weights }
    });
    Ok(whole.collect())
}
