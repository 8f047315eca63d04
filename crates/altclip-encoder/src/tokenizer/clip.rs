//! Builds a `tokenizer.json` for CLIP's byte-level BPE from the `vocab.json` and `merges.txt` of a published model.
//!
//! Rebuilds transformers' `CLIPTokenizerFast`, used by its `CLIPProcessor`, from the same parts of the `tokenizers`
//! crate. OpenAI's own tokenizer first repairs text with `ftfy` (full-width letters, curly quotes, control
//! characters), which this one does not; for other texts the ids are the same.

use model_files::config::without_byte_order_mark;
use serde_json::{Map, Value, json};

use super::special_tokens::SpecialTokens;
use crate::{Error, Result};

/// Special tokens with transformers' names.
pub(super) const SPECIAL_TOKENS: SpecialTokens = SpecialTokens {
    tokens: &[("bos_token", BOS), ("eos_token", EOS), ("unk_token", EOS), ("pad_token", EOS)],
    before: Some("bos_token"),
    after: "eos_token",
    mask_takes_space: false,
};

const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";

/// The pattern of a word.
const WORD: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The most merges read: those of OpenAI's vocabulary. Its file once had more, which were not meant to be used.
const MOST_MERGES: usize = 49_152 - 256 - 2;

/// Builds the `tokenizer.json` for a vocabulary and its merges; the names are used in errors.
pub(super) fn tokenizer_json(vocabulary: &[u8], merges: &[u8], names: (&str, &str)) -> Result<Value> {
    let vocab: Map<String, Value> =
        serde_json::from_slice(without_byte_order_mark(vocabulary)).map_err(|error| {
            Error::format(names.0, format!("expected an object of tokens and their ids: {error}"))
        })?;
    let merges = std::str::from_utf8(without_byte_order_mark(merges))
        .map_err(|error| Error::format(names.1, format!("expected one merge per line in UTF-8: {error}")))?;
    let lines = merges.lines().skip_while(|line| line.starts_with("#version"));
    let pairs = lines.filter(|line| !line.is_empty()).take(MOST_MERGES).map(|line| {
        let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
        pair.map(|(first, second)| json!([first, second])).ok_or_else(|| {
            Error::format(names.1, format!("expected two parts with a space between them, found {line:?}"))
        })
    });
    let pairs = pairs.collect::<Result<Vec<Value>>>()?;
    let special = |token: &str| -> Result<Value> {
        let missing = || Error::format(names.0, format!("expected the special token {token}, found none"));
        let id = vocab.get(token).ok_or_else(missing)?;
        Ok(json!({
            "id": id,
            "content": token,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": true,
            "special": true,
        }))
    };
    Ok(json!({
        "version": "1.0",
        "added_tokens": [special(BOS)?, special(EOS)?],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORD}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": EOS,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "vocab": vocab,
            "merges": pairs,
        },
    }))
}
