//! From the options' texts to what the UNet is told.

use super::AltDiffusion;
use crate::options::GenerateOptions;
use crate::prompt::{Prompt, PromptReading, TextStates};
use crate::{Error, Result};

impl AltDiffusion {
    /// The prompts of the options and, with guidance, what they keep away from, for `pictures` pictures each.
    pub(super) fn read_prompt(&self, options: &GenerateOptions, pictures: usize) -> Result<Prompt> {
        let texts: Vec<&str> = options.prompts.iter().map(String::as_str).collect();
        let guided = options.guidance.scale > 1.0;
        let negative = options.negative_prompt.as_str();
        let reading = options.prompt_reading;
        let count = options.prompt_count();
        let states = match (&options.prompt_states, &options.negative_states) {
            (Some(states), _) if !guided => states.clone(),
            (None, _) if !guided => self.encode_texts(reading, &texts)?,
            // All at a time: the empty text costs hardly anything beside the others.
            (None, None) => self.encode_texts(reading, &[&vec![negative; count], &texts[..]].concat())?,
            (states, without) => {
                let without = match without {
                    Some(without) => without.clone(),
                    None => self.encode_texts(reading, &[negative])?,
                };
                if ![1, count].contains(&without.texts()) {
                    return Err(Error::Shape {
                        tensor: "negative states",
                        expected: format!("(1 or {count}, tokens, width)"),
                        found: format!("{:?}", without.hidden_states().dims()),
                    });
                }
                let states = match states {
                    Some(states) => states.clone(),
                    None => self.encode_texts(reading, &texts)?,
                };
                without.for_each_of(count)?.and(&states)?
            }
        };
        match guided {
            true => Prompt::guided(&self.unet, &states, pictures),
            false => Prompt::conditioned(&self.unet, &states, pictures),
        }
    }

    /// The hidden states of texts, as [`GenerateOptions::prompt_states`] takes them.
    ///
    /// # Errors
    /// When a text cannot be read or encoded.
    pub fn encode_texts(&self, reading: PromptReading, texts: &[&str]) -> Result<TextStates> {
        let (tokenizer, encoder, tokens) = (&self.tokenizer, &self.text_encoder, self.prompt_tokens);
        match reading {
            PromptReading::Plain => TextStates::encode(tokenizer, encoder, texts, tokens, &self.device),
            PromptReading::Weighted => {
                TextStates::encode_weighted(tokenizer, encoder, texts, tokens, &self.device)
            }
        }
    }
}
