//! Describes BERT's WordPiece tokenizer to the `tokenizers` crate, from the `vocab.txt` of a published model.
//!
//! transformers' slow `BertTokenizer`, put together from the parts of the `tokenizers` crate: text is cleaned, Chinese
//! characters stand alone, white space and punctuation part words, and a word becomes the longest pieces that the
//! vocabulary has. What a character is follows Unicode's latest tables, where transformers has Python's.

use model_files::config::without_byte_order_mark;
use serde_json::{Map, Value, json};

use super::declared::{Declared, WordPieceConfig};
use super::special_tokens::SpecialTokens;
use crate::{Error, Result};

/// transformers' names of the special tokens.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
    before: "cls_token",
    after: "sep_token",
    mask_takes_space: false,
};

/// A word of more characters than this is unknown as a whole.
const LONGEST_WORD: usize = 100;

/// Characters that Unicode has not assigned, which `BertNormalizer` would leave in a text.
const UNASSIGNED: &str = r"\p{Cn}";

/// The `tokenizer.json` of a vocabulary, one token per line, without its special tokens; `name` is what errors call its
/// file.
pub(super) fn tokenizer_json(vocabulary: &[u8], declared: &Declared, name: &str) -> Result<Value> {
    let text = std::str::from_utf8(without_byte_order_mark(vocabulary))
        .map_err(|error| Error::format(name, format!("expected one token per line in UTF-8: {error}")))?;
    // Of equal lines the last counts, as in transformers.
    let tokens = text.lines().enumerate().map(|(id, token)| (token.to_owned(), json!(id)));
    let vocab: Map<String, Value> = tokens.collect();
    Ok(json!({
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": normalizers(&declared.wordpiece)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": SPECIAL_TOKENS.text(declared, "unk_token"),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": vocab,
        },
    }))
}

fn normalizers(config: &WordPieceConfig) -> Vec<Value> {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"Regex": UNASSIGNED}, "content": ""}),
        json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.tokenize_chinese_chars,
            "strip_accents": config.strip_accents,
            "lowercase": config.do_lower_case,
        }),
    ];
    if !config.strip_accents.unwrap_or(config.do_lower_case) {
        steps.push(json!({"type": "NFC"}));
    }
    steps
}
