//! Reads the fields of SentencePiece's model file (`sentencepiece_model.proto`) that matter here.
//!
//! The same structs write the models that this project trains.

use prost::Message;

use crate::{Error, Result};

/// The whole file.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The vocabulary; a piece's index is its id.
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<SentencePiece>,
    /// How the model was trained.
    #[prost(message, optional, tag = "2")]
    pub trainer_spec: Option<TrainerSpec>,
    /// How text is normalized.
    #[prost(message, optional, tag = "3")]
    pub normalizer_spec: Option<NormalizerSpec>,
}

/// One entry of the vocabulary.
#[derive(Clone, PartialEq, Message)]
pub struct SentencePiece {
    /// Its text, with `▁` (U+2581) for a space.
    #[prost(string, optional, tag = "1")]
    pub piece: Option<String>,
    /// Its log probability.
    #[prost(float, optional, tag = "2")]
    pub score: Option<f32>,
    /// Its type.
    #[prost(enumeration = "PieceType", optional, tag = "3", default = "Normal")]
    pub r#type: Option<i32>,
}

/// The type of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PieceType {
    /// Learned text.
    Normal = 1,
    /// Everything that is not in the vocabulary.
    Unknown = 2,
    /// A marker that text never produces, such as `<s>`.
    Control = 3,
    /// Text that is always a separate piece.
    UserDefined = 4,
    /// Text that is in the vocabulary and never produced.
    Unused = 5,
    /// One byte of a character that is not in the vocabulary.
    Byte = 6,
}

/// How the model was trained, as far as that affects reading it.
#[derive(Clone, PartialEq, Message)]
pub struct TrainerSpec {
    /// The kind of model.
    #[prost(enumeration = "ModelType", optional, tag = "3", default = "Unigram")]
    pub model_type: Option<i32>,
    /// Number of pieces.
    #[prost(int32, optional, tag = "4")]
    pub vocab_size: Option<i32>,
    /// Share of the training text's characters that are in the vocabulary.
    #[prost(float, optional, tag = "10")]
    pub character_coverage: Option<f32>,
    /// Length of the longest piece, in characters.
    #[prost(int32, optional, tag = "20")]
    pub max_sentencepiece_length: Option<i32>,
    /// Whether spaces belong to the ends of words instead of their beginnings.
    #[prost(bool, optional, tag = "24", default = "false")]
    pub treat_whitespace_as_suffix: Option<bool>,
    /// Whether unknown characters are split into bytes.
    #[prost(bool, optional, tag = "35", default = "false")]
    pub byte_fallback: Option<bool>,
    /// The id for unknown text.
    #[prost(int32, optional, tag = "40", default = "0")]
    pub unk_id: Option<i32>,
    /// The id before a text.
    #[prost(int32, optional, tag = "41", default = "1")]
    pub bos_id: Option<i32>,
    /// The id after a text.
    #[prost(int32, optional, tag = "42", default = "2")]
    pub eos_id: Option<i32>,
    /// The id of padding; −1 for none.
    #[prost(int32, optional, tag = "43", default = "-1")]
    pub pad_id: Option<i32>,
}

/// The kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ModelType {
    /// Kudo, "Subword Regularization" (2018): the most probable segmentation.
    Unigram = 1,
    /// Byte pair encoding.
    Bpe = 2,
    /// One piece per word.
    Word = 3,
    /// One piece per character.
    Char = 4,
}

/// How text is normalized.
#[derive(Clone, PartialEq, Message)]
pub struct NormalizerSpec {
    /// Name of the rules, such as `nmt_nfkc`.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The compiled rules: a double-array trie and the replacements it points to.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub precompiled_charsmap: Option<Vec<u8>>,
    /// Whether a space is added before the text.
    #[prost(bool, optional, tag = "3", default = "true")]
    pub add_dummy_prefix: Option<bool>,
    /// Whether spaces at both ends are removed and runs of spaces merged.
    #[prost(bool, optional, tag = "4", default = "true")]
    pub remove_extra_whitespaces: Option<bool>,
    /// Whether a space is written as `▁`.
    #[prost(bool, optional, tag = "5", default = "true")]
    pub escape_whitespaces: Option<bool>,
}

impl ModelProto {
    /// Parses a model file. `name` is used in errors.
    ///
    /// # Errors
    ///
    /// If the bytes are not such a file, or not a unigram model.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let model = Self::decode(bytes)
            .map_err(|error| Error::format(name, format!("expected a SentencePiece model: {error}")))?;
        let trainer = model.trainer_spec.clone().unwrap_or_default();
        if trainer.model_type() != ModelType::Unigram {
            let found = trainer.model_type();
            return Err(Error::format(name, format!("expected a unigram model, found model type {found:?}")));
        }
        Ok(model)
    }
}
