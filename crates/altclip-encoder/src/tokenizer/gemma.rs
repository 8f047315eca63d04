//! Describes Gemma's special tokens, which SigLIP 2 uses: nothing before a text.

use super::special_tokens::SpecialTokens;

/// Special tokens with transformers' names.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
    before: None,
    after: "eos_token",
    mask_takes_space: false,
};

/// The tokenizer's class in a `tokenizer_config.json`.
pub(super) const CLASSES: [&str; 3] = ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"];
