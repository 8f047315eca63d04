//! Compares added tokens with transformers, for every family of tokenizers.

use std::collections::BTreeMap;
use std::fs;

use altclip_encoder::tokenizer::Tokenizer;
use model_files::source::ModelSource;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{golden, golden_json};

/// A vocabulary with small files beside it, from `tests/golden/added_tokens.json`.
#[derive(Deserialize)]
struct Case {
    family: String,
    case: String,
    files: BTreeMap<String, Value>,
    /// Each text with its ids, without special tokens around them.
    texts: BTreeMap<String, Vec<u32>>,
}

/// The folder of a family's vocabulary, and its files.
const VOCABULARIES: [(&str, &str, &[&str]); 4] = [
    ("sentencepiece", "tokenizer", &["sentencepiece.bpe.model"]),
    ("wordpiece", "dual_encoders/chinese_clip", &["vocab.txt"]),
    ("bpe", "dual_encoders/clip", &["vocab.json", "merges.txt"]),
    ("tokenizer_json", "tokenizer_json", &["tokenizer.json"]),
];

/// A family's vocabulary in a folder with these files.
fn folder(family: &str, files: &BTreeMap<String, Value>) -> (TempDir, ModelSource) {
    let (_, from, vocabulary) = VOCABULARIES.iter().find(|(name, ..)| *name == family).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for file in *vocabulary {
        fs::copy(golden(from).join(file), directory.path().join(file)).unwrap();
    }
    for (name, content) in files {
        fs::write(directory.path().join(name), content.to_string()).unwrap();
    }
    let source = ModelSource::directory(directory.path());
    (directory, source)
}

fn tokenizer(family: &str, files: Value) -> altclip_encoder::Result<Tokenizer> {
    let files = serde_json::from_value(files).unwrap();
    let (_directory, source) = folder(family, &files);
    Tokenizer::from_source(&source, "")
}

#[test]
fn ids_are_those_of_transformers() {
    let cases: Vec<Case> = golden_json("added_tokens.json");
    assert!(cases.len() > 20);
    for Case { family, case, files, texts } in cases {
        let (_directory, source) = folder(&family, &files);
        let tokenizer = Tokenizer::from_source(&source, "").unwrap();
        for (text, expected) in texts {
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(ids[1..ids.len() - 1], expected, "{family}, {case}: {text:?}");
        }
    }
}

/// Ids with gaps are those of the files, as in transformers' slow tokenizers.
#[test]
fn ids_may_leave_gaps() {
    for (family, ..) in VOCABULARIES {
        let plain = tokenizer(family, json!({})).unwrap();
        let id = plain.vocab_size() as u32 + 40;
        let tokenizer =
            tokenizer(family, json!({"added_tokens.json": {"<cat-toy>": id, "<dog>": id + 7}})).unwrap();
        let ids = tokenizer.encode("<dog><cat-toy>").unwrap();
        assert_eq!(ids[1..3], [id + 7, id], "{family}");
        assert_eq!(tokenizer.vocab_size(), id as usize + 8, "{family}");
    }
}

#[test]
fn a_token_without_an_embedding_is_an_error_that_names_it() {
    for (family, ..) in VOCABULARIES {
        let rows = tokenizer(family, json!({})).unwrap().vocab_size();
        let files = json!({"added_tokens.json": {"<cat-toy>": rows, "<dog>": rows + 1}});
        let mut tokenizer = tokenizer(family, files).unwrap().with_embedding_rows(rows + 1);
        assert_eq!(tokenizer.tokens_without_embedding(), ["<dog>"], "{family}");
        assert!(tokenizer.encode("a <cat-toy>").is_ok(), "{family}");
        let error = tokenizer.encode("a <dog>").unwrap_err().to_string();
        assert!(error.contains("\"<dog>\"") && error.contains(&(rows + 1).to_string()), "{family}: {error}");
        // A learned word has its own embedding.
        let learned = tokenizer.add_word("<learned>", 2).unwrap();
        assert_eq!(learned as usize, rows + 2, "{family}");
        assert_eq!(tokenizer.encode("<learned>").unwrap()[1..3], [learned, learned + 1], "{family}");
    }
}

#[test]
fn special_tokens_can_be_read_as_text() {
    for (family, special) in [("sentencepiece", "</s>"), ("wordpiece", "[SEP]"), ("bpe", "<|endoftext|>")] {
        let as_text =
            tokenizer(family, json!({"tokenizer_config.json": {"split_special_tokens": true}})).unwrap();
        let ids = as_text.encode(special).unwrap();
        assert!(!ids[1..ids.len() - 1].contains(&as_text.eos_id()), "{family}: {ids:?}");
    }
}

#[test]
fn other_special_tokens_can_be_named() {
    // Padding in the CLIP that was retrained for Stable Diffusion 2.
    let clip = tokenizer("bpe", json!({"special_tokens_map.json": {"pad_token": "!"}})).unwrap();
    assert_ne!(clip.pad_id(), clip.eos_id());
    let bert = tokenizer("wordpiece", json!({"tokenizer_config.json": {"sep_token": "<nowhere>"}}));
    let error = bert.unwrap_err().to_string();
    assert!(error.contains("vocab.txt: expected the special token <nowhere>"), "{error}");
}

#[test]
fn damaged_files_are_errors_that_name_file_and_field() {
    let token = json!({"content": "<cat-toy>"});
    for (files, parts) in [
        (json!({"added_tokens.json": {"<cat-toy>": -1}}), ["added_tokens.json", "<cat-toy>"]),
        (json!({"added_tokens.json": {"<cat-toy>": 4_294_967_296_u64}}), ["added_tokens.json", "<cat-toy>"]),
        (json!({"added_tokens.json": ["<cat-toy>"]}), ["added_tokens.json", "map"]),
        (
            json!({"tokenizer_config.json": {"added_tokens_decoder": {"x": token}}}),
            ["tokenizer_config.json", "added_tokens_decoder"],
        ),
        (
            json!({"tokenizer_config.json": {"added_tokens_decoder": {"4294967296": token}}}),
            ["tokenizer_config.json", "added_tokens_decoder"],
        ),
        (
            json!({"tokenizer_config.json": {"added_tokens_decoder": {"7": {"lstrip": true}}}}),
            ["added_tokens_decoder.7", "content"],
        ),
        (
            json!({"tokenizer_config.json": {"added_tokens_decoder": {"7": "<cat-toy>"}}}),
            ["tokenizer_config.json", "added_tokens_decoder.7"],
        ),
        (
            json!({"special_tokens_map.json": {"mask_token": 7}}),
            ["special_tokens_map.json: mask_token", "expected a text, or an object with `content`"],
        ),
    ] {
        for (family, ..) in VOCABULARIES {
            let error = tokenizer(family, files.clone()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{family}, {files}: {error}");
        }
    }
}

#[test]
fn many_tokens_take_linear_time() {
    let added: BTreeMap<String, u32> = (0..20_000).map(|n| (format!("<token-{n}>"), 3002 + n)).collect();
    let tokenizer = tokenizer("sentencepiece", json!({ "added_tokens.json": added })).unwrap();
    let text = "一只<token-7> <token-70> dog <".repeat(10_000);
    let start = std::time::Instant::now();
    assert!(tokenizer.encode(&text).unwrap().len() > 40_000);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
