//! Tokenizes text without added tokens, with any of the models.

use super::json::JsonTokenizer;
use super::siglip::SiglipTokenizer;
use super::xlm_roberta::XlmRobertaTokenizer;
use crate::Result;

/// The model behind a [`Tokenizer`](super::Tokenizer).
#[derive(Debug, Clone)]
pub(super) enum TokenModel {
    SentencePiece(Box<XlmRobertaTokenizer>),
    Siglip(Box<SiglipTokenizer>),
    Json(JsonTokenizer),
}

impl TokenModel {
    /// The id of a token.
    pub(super) fn token_id(&self, text: &str) -> Option<u32> {
        match self {
            Self::SentencePiece(model) => model.token_id(text),
            Self::Siglip(model) => model.token_id(text),
            Self::Json(model) => model.token_id(text),
        }
    }

    /// The largest id + 1.
    pub(super) fn end(&self) -> usize {
        match self {
            Self::SentencePiece(model) => model.vocab_size(),
            Self::Siglip(model) => model.vocab_size(),
            Self::Json(model) => model.end(),
        }
    }

    /// The added tokens that the model matches itself, with their ids.
    pub(super) fn added_tokens(&self) -> Vec<(&str, u32)> {
        match self {
            Self::SentencePiece(_) | Self::Siglip(_) => Vec::new(),
            Self::Json(model) => model.added_tokens().collect(),
        }
    }

    /// The token with an id, if the model can tell.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        match self {
            Self::SentencePiece(_) | Self::Siglip(_) => None,
            Self::Json(model) => model.token(id),
        }
    }

    /// Appends the ids of a text.
    ///
    /// # Errors
    /// If a step of a `tokenizer.json` fails on this text.
    pub(super) fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::SentencePiece(model) => {
                model.encode_into(text, ids);
                Ok(())
            }
            Self::Siglip(model) => {
                model.encode_into(text, ids);
                Ok(())
            }
            Self::Json(model) => model.encode_into(text, ids),
        }
    }
}
