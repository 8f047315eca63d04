//! Stands in for the `tokenizers` crate if the feature `tokenizer-json` is off.

use super::declared::Declared;
use crate::{Error, Result};

/// An uninhabited type.
#[derive(Debug, Clone)]
pub(super) enum JsonTokenizer {}

impl JsonTokenizer {
    /// # Errors
    /// Always: says which feature is needed.
    pub(super) fn new(_json: &[u8], name: &str, _expected: &str) -> Result<Self> {
        Err(Error::format(
            name,
            "this kind of tokenizer needs the feature `tokenizer-json` of altclip-encoder, which is off; without it, \
             expected sentencepiece.bpe.model or spiece.model",
        ))
    }

    pub(super) fn add(&mut self, _declared: &Declared) -> Result<()> {
        match *self {}
    }

    pub(super) fn lowercase(&mut self, _name: &str) -> Result<()> {
        match *self {}
    }

    pub(super) fn end(&self) -> usize {
        match *self {}
    }

    pub(super) fn token_id(&self, _text: &str) -> Option<u32> {
        match *self {}
    }

    pub(super) fn added_tokens(&self) -> std::iter::Empty<(&str, u32)> {
        match *self {}
    }

    pub(super) fn token(&self, _id: u32) -> Option<String> {
        match *self {}
    }

    pub(super) fn encode_into(&self, _text: &str, _ids: &mut Vec<u32>) -> Result<()> {
        match *self {}
    }
}
