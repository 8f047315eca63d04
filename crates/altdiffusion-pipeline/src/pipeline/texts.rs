//! Encodes the texts of the options.

use super::AltDiffusion;
use crate::conditioning::Conditioning;
use crate::options::GenerateOptions;
use crate::prompt::PromptReading;
use crate::text_states::TextStates;
use crate::unet::UNet2DConditionModel;
use crate::{Error, Result};

/// The hidden states of the texts of a run.
pub(super) struct RunTexts {
    states: TextStates,
    /// Whether the first half says what to keep away from.
    guided: bool,
}

impl RunTexts {
    /// The hidden states, of which with guidance the first half says what to keep away from.
    pub fn states(&self) -> &TextStates {
        &self.states
    }

    /// The keys and values of `unet`, for `images` images of each prompt.
    pub fn project(&self, unet: &UNet2DConditionModel, images: usize) -> Result<Conditioning> {
        match self.guided {
            true => Conditioning::guided(unet, &self.states, images),
            false => Conditioning::conditioned(unet, &self.states, images),
        }
    }
}

impl AltDiffusion {
    /// The texts of the options: the prompts and, with guidance, before them what they keep away from.
    pub(super) fn read_texts(&self, options: &GenerateOptions) -> Result<RunTexts> {
        let texts: Vec<&str> = options.prompts.iter().map(String::as_str).collect();
        let guided = options.is_guided();
        let negative = options.negative_prompt.as_str();
        let reading = options.prompt_reading;
        let count = options.prompt_count();
        let states = match (&options.prompt_states, &options.negative_states) {
            (Some(states), _) if !guided => states.clone(),
            (None, _) if !guided => self.encode_texts_skipping(options.clip_skip, reading, &texts)?,
            // All at a time: the empty text costs hardly anything beside the others.
            (None, None) => self.encode_texts_skipping(
                options.clip_skip,
                reading,
                &[&vec![negative; count], &texts[..]].concat(),
            )?,
            (states, without) => {
                let without = match without {
                    Some(without) => without.clone(),
                    None => self.encode_texts_skipping(options.clip_skip, reading, &[negative])?,
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
                    None => self.encode_texts_skipping(options.clip_skip, reading, &texts)?,
                };
                without.for_each_of(count)?.and(&states)?
            }
        };
        Ok(RunTexts { states, guided })
    }

    /// The hidden states of texts, as [`GenerateOptions::prompt_states`] takes them.
    ///
    /// # Errors
    /// When a text cannot be read or encoded.
    pub fn encode_texts(&self, reading: PromptReading, texts: &[&str]) -> Result<TextStates> {
        self.encode_texts_skipping(0, reading, texts)
    }

    fn encode_texts_skipping(
        &self,
        clip_skip: usize,
        reading: PromptReading,
        texts: &[&str],
    ) -> Result<TextStates> {
        let encoder = self.text_encoder()?.into_owned().skipping_layers(clip_skip);
        let encoder = &encoder.map_err(|error| Error::option("clip skip", error.to_string()))?;
        let (tokenizer, tokens) = (&self.tokenizer, self.prompt_tokens);
        match reading {
            PromptReading::Plain => TextStates::encode(tokenizer, encoder, texts, tokens),
            PromptReading::Weighted => TextStates::encode_weighted(tokenizer, encoder, texts, tokens),
        }
    }
}
