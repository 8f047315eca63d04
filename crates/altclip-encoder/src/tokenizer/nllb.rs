//! Describes NLLB's special tokens: a text's language before it.

use super::declared::LANGUAGE;
use super::special_tokens::SpecialTokens;

/// Special tokens with transformers' names. The language is English unless the files name another.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[(LANGUAGE, "eng_Latn"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
    before: Some(LANGUAGE),
    after: "eos_token",
    mask_takes_space: false,
};

/// The tokenizer's class in a `tokenizer_config.json`.
pub(super) const CLASSES: [&str; 2] = ["NllbTokenizer", "NllbTokenizerFast"];
