//! Builds a `tokenizer.json` for BERT's WordPiece from the `vocab.txt` of a published model.
//!
//! Rebuilds transformers' slow `BertTokenizer` from parts of the `tokenizers` crate: text is cleaned, Chinese
//! characters stand alone, white space and punctuation separate words, and a word is split into the longest pieces in
//! the vocabulary. Character classes follow the latest Unicode tables, where transformers uses Python's.

use model_files::config::without_byte_order_mark;
use serde_json::{Map, Value, json};

use super::added::{AddedToken, AddedTokens};
use super::declared::{Declared, WordPieceConfig};
use super::special_tokens::SpecialTokens;
use crate::{Error, Result};

/// Special tokens with transformers' names.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
    before: Some("cls_token"),
    after: "sep_token",
    mask_takes_space: false,
};

/// Longer words are unknown as a whole, in characters.
const LONGEST_WORD: usize = 100;

/// Unassigned characters, which `BertNormalizer` would keep.
const UNASSIGNED: &str = r"\p{Cn}";

/// Builds the `tokenizer.json` for a vocabulary with one token per line, without special tokens; `name` is used in
/// errors.
pub(super) fn tokenizer_json(vocabulary: &[u8], declared: &Declared, name: &str) -> Result<Value> {
    let text = std::str::from_utf8(without_byte_order_mark(vocabulary))
        .map_err(|error| Error::format(name, format!("expected one token per line in UTF-8: {error}")))?;
    // For equal lines the last counts, as in transformers.
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

/// The special tokens that Wukong's tokenizer finds in a text: fewer, and only between spaces.
pub(super) fn words_of_wukong(id: impl Fn(&str) -> Option<u32>) -> AddedTokens {
    let token = |text: &str| {
        let token = AddedToken { single_word: true, ..AddedToken::new(text, true) };
        id(text).map(|id| (token, id))
    };
    AddedTokens::new(["[UNK]", "[CLS]", "[SEP]"].into_iter().filter_map(token).collect())
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
