//! Normalizes text exactly like SentencePiece.
//!
//! The longest matching prefix is replaced, regardless of graphemes: a base letter and its accent are composed only
//! where a rule says so. Spaces are cleaned up and written as `▁`.

use super::charsmap::CharsMap;
use super::sentencepiece::{ModelProto, NormalizerSpec, PieceType};
use super::trie::Trie;
use crate::{Error, Result};

/// `▁`, which stands for a space.
pub(super) const SPACE: &[u8] = "\u{2581}".as_bytes();

/// Normalizes text as in the training of a SentencePiece model.
#[derive(Debug, Clone)]
pub struct Normalizer {
    rules: Option<CharsMap>,
    /// Pieces that rules leave alone.
    user_defined: Option<Trie>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    /// What replaces a space.
    space: &'static [u8],
    space_as_suffix: bool,
}

impl Normalizer {
    /// The normalizer that a model file describes; `name` is used in errors.
    pub fn new(model: &ModelProto, name: &str) -> Result<Self> {
        let user_defined: Vec<&[u8]> = model
            .pieces
            .iter()
            .filter(|piece| piece.r#type() == PieceType::UserDefined)
            .map(|piece| piece.piece().as_bytes())
            .collect();
        let spec = model.normalizer_spec.clone().unwrap_or_default();
        let mut normalizer = Self::from_spec(&spec, name)?;
        normalizer.space_as_suffix =
            model.trainer_spec.as_ref().is_some_and(|trainer| trainer.treat_whitespace_as_suffix());
        if !user_defined.is_empty() {
            let trie =
                Trie::new(&user_defined).ok_or_else(|| Error::format(name, "too many bytes in pieces"))?;
            normalizer.user_defined = Some(trie);
        }
        Ok(normalizer)
    }

    /// The normalizer of a specification, without user-defined pieces.
    pub fn from_spec(spec: &NormalizerSpec, name: &str) -> Result<Self> {
        Ok(Self {
            rules: CharsMap::parse(spec.precompiled_charsmap(), name)?,
            user_defined: None,
            add_dummy_prefix: spec.add_dummy_prefix(),
            remove_extra_whitespaces: spec.remove_extra_whitespaces(),
            space: if spec.escape_whitespaces() { SPACE } else { b" " },
            space_as_suffix: false,
        })
    }

    /// Writes the normalized text to `normalized`, replacing its content. It is UTF-8 if the model's rules are.
    pub fn normalize(&self, text: &str, normalized: &mut Vec<u8>) {
        normalized.clear();
        let mut rest = text.as_bytes();
        if self.remove_extra_whitespaces {
            while let (b" ", length) = self.replace_prefix(rest) {
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return;
        }
        if self.add_dummy_prefix && !self.space_as_suffix {
            normalized.extend_from_slice(self.space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (mut replacement, length) = self.replace_prefix(rest);
            if after_space {
                while let Some(shorter) = replacement.strip_prefix(b" ") {
                    replacement = shorter;
                }
            }
            if let Some(last) = replacement.last() {
                for &byte in replacement {
                    match byte {
                        b' ' => normalized.extend_from_slice(self.space),
                        byte => normalized.push(byte),
                    }
                }
                after_space = self.remove_extra_whitespaces && *last == b' ';
            }
            rest = &rest[length..];
        }
        if self.remove_extra_whitespaces {
            while normalized.ends_with(self.space) {
                normalized.truncate(normalized.len() - self.space.len());
            }
        }
        if self.add_dummy_prefix && self.space_as_suffix {
            normalized.extend_from_slice(self.space);
        }
    }

    /// The replacement of the start of a text, and the bytes it consumes: at least one, unless the text is empty.
    fn replace_prefix<'a>(&'a self, text: &'a [u8]) -> (&'a [u8], usize) {
        if let Some(length) = self.user_defined.as_ref().and_then(|pieces| pieces.longest_prefix(text)) {
            return (&text[..length], length);
        }
        if let Some((length, replacement)) = self.rules.as_ref().and_then(|rules| rules.longest_rule(text)) {
            return (replacement, length);
        }
        let length = character_length(text);
        (&text[..length], length)
    }
}

/// The length in bytes of the first UTF-8 character, by its first byte, up to the end of the text.
#[inline]
pub(super) fn character_length(text: &[u8]) -> usize {
    let length = match text.first() {
        None => 0,
        Some(0..=0xBF) => 1,
        Some(0xC0..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xFF) => 4,
    };
    length.min(text.len())
}
