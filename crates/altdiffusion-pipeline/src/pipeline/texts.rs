//! Encodes the prompts of the options.

use super::model::AltDiffusion;
use crate::cancellation::Cancellation;
use crate::options::GenerateOptions;
use crate::prompt::PromptReading;
use crate::text_states::TextStates;
use crate::{Error, Result};

impl AltDiffusion {
    /// The hidden states of the prompts, after those of the negative prompts if there is guidance.
    pub(super) fn read_texts(&self, options: &GenerateOptions) -> Result<TextStates> {
        let texts: Vec<&str> = options.prompts.iter().map(String::as_str).collect();
        let negative = options.negative_prompt.as_str();
        let count = options.prompt_count();
        let encode = |texts: &[&str]| {
            self.encode(texts, options.prompt_reading, options.clip_skip, &options.cancellation)
        };
        match (&options.prompt_states, &options.negative_states) {
            (Some(states), _) if !options.is_guided() => Ok(states.clone()),
            (None, _) if !options.is_guided() => encode(&texts),
            // All at once: the empty text costs next to nothing beside the others.
            (None, None) => encode(&[&vec![negative; count], &texts[..]].concat()),
            (states, without) => {
                let without = match without {
                    Some(without) => without.clone(),
                    None => encode(&[negative])?,
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
                    None => encode(&texts)?,
                };
                without.for_each_of(count)?.and(&states)
            }
        }
    }

    /// Encodes texts to hidden states for [`GenerateOptions::prompt_states`].
    ///
    /// # Errors
    /// If a text cannot be parsed or encoded, or the model was made without a text encoder.
    pub fn encode_texts(&self, reading: PromptReading, texts: &[&str]) -> Result<TextStates> {
        self.encode(texts, reading, 0, &Cancellation::default())
    }

    fn encode(
        &self,
        texts: &[&str],
        reading: PromptReading,
        clip_skip: usize,
        cancellation: &Cancellation,
    ) -> Result<TextStates> {
        cancellation.check()?;
        let encoder = self.text_encoder()?.skipping_layers(clip_skip);
        let encoder = &*encoder.map_err(|error| Error::option("clip skip", error.to_string()))?;
        let (tokenizer, tokens) = (self.tokenizer()?, self.prompt_tokens()?);
        match reading {
            PromptReading::Plain => {
                TextStates::encode_unless(tokenizer, encoder, texts, tokens, cancellation)
            }
            PromptReading::Weighted => {
                TextStates::encode_weighted_unless(tokenizer, encoder, texts, tokens, cancellation)
            }
        }
    }
}
