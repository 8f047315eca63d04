//! Tokenizes like transformers' slow `SiglipTokenizer`: a SentencePiece file's own ids, on text without case and
//! punctuation.

use super::added::is_python_space;
use super::normalizer::Normalizer;
use super::sentencepiece::ModelProto;
use super::special_tokens::SpecialTokens;
use super::unigram::Unigram;
use crate::Result;

/// Special tokens with transformers' names.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[("eos_token", EOS), ("unk_token", UNK), ("pad_token", EOS)],
    before: None,
    after: "eos_token",
    mask_takes_space: false,
};

const EOS: &str = "</s>";
const UNK: &str = "<unk>";
/// What the tokenizer puts before every text.
pub(super) const LEADING_SPACE: char = '▁';

/// A SentencePiece model with its own ids.
#[derive(Debug, Clone)]
pub(super) struct SiglipTokenizer {
    normalizer: Normalizer,
    unigram: Unigram,
    lowercase: bool,
    /// The pieces of [`UNK`], which comes before each text so that its leading space is kept, and is then dropped.
    dropped: usize,
}

impl SiglipTokenizer {
    pub(super) fn from_bytes(bytes: &[u8], lowercase: bool, name: &str) -> Result<Self> {
        let mut model = ModelProto::parse(bytes, name)?;
        model.normalizer_spec.get_or_insert_default().add_dummy_prefix = Some(false);
        let (normalizer, unigram) = (Normalizer::new(&model, name)?, Unigram::new(&model, name)?);
        let mut tokenizer = Self { normalizer, unigram, lowercase, dropped: 0 };
        let mut dropped = Vec::new();
        tokenizer.pieces(UNK, &mut dropped);
        tokenizer.dropped = dropped.len();
        Ok(tokenizer)
    }

    /// The largest id + 1.
    pub(super) fn vocab_size(&self) -> usize {
        self.unigram.len()
    }

    /// The id of a piece.
    pub(super) fn token_id(&self, text: &str) -> Option<u32> {
        self.unigram.piece(text.as_bytes())
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        let start = ids.len();
        self.pieces(&format!("{UNK}{}", self.canonical(text)), ids);
        let found = ids.len() - start;
        if found >= self.dropped {
            ids.drain(start..start + self.dropped);
        }
    }

    fn pieces(&self, text: &str, ids: &mut Vec<u32>) {
        let mut normalized = Vec::new();
        self.normalizer.normalize(text, &mut normalized);
        self.unigram.segment(&normalized, |piece| ids.push(piece));
    }

    /// The text in lower case, without ASCII's punctuation, and with single spaces only between words.
    fn canonical(&self, text: &str) -> String {
        let text = if self.lowercase { text.to_lowercase() } else { text.to_owned() };
        let text: String = text.chars().filter(|character| !character.is_ascii_punctuation()).collect();
        let words = text.split(is_python_space).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }
}
