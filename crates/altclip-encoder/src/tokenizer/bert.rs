//! BERT's WordPiece tokenizer, from the `vocab.txt` of a published model.
//!
//! transformers' slow `BertTokenizer`, put together from the parts of the `tokenizers` crate: text is cleaned, Chinese
//! characters stand alone, white space and punctuation part words, and a word becomes the longest pieces that the
//! vocabulary has. What a character is follows Unicode's latest tables, where transformers has Python's.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Before a text.
pub(super) const CLS: &str = "[CLS]";
/// After a text.
pub(super) const SEP: &str = "[SEP]";
/// Fills a row up.
pub(super) const PAD: &str = "[PAD]";
const UNK: &str = "[UNK]";
const MASK: &str = "[MASK]";

/// A word of more characters than this is unknown as a whole.
const LONGEST_WORD: usize = 100;

/// Characters that Unicode has not assigned, which `BertNormalizer` would leave in a text.
const UNASSIGNED: &str = r"\p{Cn}";

/// The part of a `tokenizer_config.json` that decides the ids.
///
/// A field that the file leaves out has the value it has in transformers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct BertTokenizerConfig {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    /// `None` where it follows from `do_lower_case`.
    strip_accents: Option<bool>,
}

impl Default for BertTokenizerConfig {
    fn default() -> Self {
        Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
    }
}

/// The `tokenizer.json` of a vocabulary, one token per line; `name` is what errors call its file.
pub(super) fn tokenizer_json(vocabulary: &[u8], config: &BertTokenizerConfig, name: &str) -> Result<Value> {
    let text = std::str::from_utf8(vocabulary)
        .map_err(|error| Error::format(name, format!("expected one token per line in UTF-8: {error}")))?;
    let tokens = text.lines().enumerate().map(|(id, token)| (token.to_owned(), json!(id)));
    let vocab: Map<String, Value> = tokens.collect();
    let special = |token: &str| {
        vocab
            .get(token)
            .map(|id| added_token(id, token))
            .ok_or_else(|| Error::format(name, format!("expected the special token {token}, found none")))
    };
    let added = [PAD, UNK, CLS, SEP].into_iter().map(special).collect::<Result<Vec<_>>>()?;
    // Not every vocabulary has a mask, and only typing it asks for it.
    let added: Vec<Value> = added.into_iter().chain(special(MASK).ok()).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers(config)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": UNK,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": vocab,
        },
    }))
}

fn normalizers(config: &BertTokenizerConfig) -> Vec<Value> {
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

/// A token that is found in a text before anything is done to it.
pub(super) fn added_token(id: &Value, content: &str) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": true,
    })
}
