//! Checks that damaged or hostile tokenizer files are errors that name them, and never panic.

use std::fs;

use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::tokenizer::sentencepiece::ModelProto;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model_files::source::ModelSource;
use prost::Message;
use serde_json::{Value, json};
use test_support::{golden, golden_json};

/// Texts of all sorts, so that every step of a tokenizer runs.
const TEXTS: [&str; 6] = [
    "",
    "一只猫 a cat ｶﾞ",
    "<mask> x\u{85}é e\u{301}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
    "[MASK]\u{0}",
    "👩🏽‍🚀 İ",
];

fn tokenizer_json() -> Value {
    golden_json("tokenizer_json/tokenizer.json")
}

/// The outcome of a file: an error on reading or on use, or texts that can be encoded.
fn outcome(json: impl AsRef<[u8]>) -> Result<(), String> {
    let tokenizer = Tokenizer::from_tokenizer_json_bytes(json.as_ref(), "tokenizer.json");
    let tokenizer = tokenizer.map_err(|error| error.to_string())?;
    for text in TEXTS {
        tokenizer.encode(text).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn error_of(json: &Value) -> String {
    let json = json.to_string();
    let error = outcome(&json).expect_err(&json[json.len().saturating_sub(300)..]);
    assert!(
        error.starts_with("tokenizer.json: ") || error.starts_with("tokenizer: cannot encode"),
        "{error}"
    );
    assert!(!error.contains('\n') && error.len() < 400, "{error}");
    error
}

/// The file with a part replaced, by JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = tokenizer_json();
    *json.pointer_mut(pointer).unwrap() = value;
    json
}

/// A charsmap in base64.
fn rules(trie: &[u32], size: u32, replacements: &[u8]) -> Value {
    let mut bytes = size.to_le_bytes().to_vec();
    bytes.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(replacements);
    json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(bytes)})
}

#[test]
fn the_golden_file_itself_works() {
    outcome(tokenizer_json().to_string()).unwrap();
    let mut with_mark = b"\xEF\xBB\xBF".to_vec();
    with_mark.extend(tokenizer_json().to_string().into_bytes());
    outcome(with_mark).unwrap();
}

#[test]
fn a_file_is_named_by_its_path() {
    let path = golden("tokenizer_json/tokenizer.json");
    let tokenizer = Tokenizer::from_tokenizer_json(&path).unwrap();
    let bytes = Tokenizer::from_tokenizer_json_bytes(&fs::read(&path).unwrap(), "bytes").unwrap();
    assert_eq!(tokenizer.encode(TEXTS[1]).unwrap(), bytes.encode(TEXTS[1]).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.json");
    let error = Tokenizer::from_tokenizer_json(&path).unwrap_err().to_string();
    assert!(error.contains("other.json"), "{error}");
    fs::write(&path, "{").unwrap();
    let error = Tokenizer::from_tokenizer_json(&path).unwrap_err().to_string();
    assert!(error.contains("other.json: expected a tokenizer.json"), "{error}");
}

#[test]
fn replacement_rules_that_are_none() {
    let first = "/normalizer/normalizers/0";
    for (rules, problem) in [
        (json!({"type": "Precompiled", "precompiled_charsmap": 2}), "expected a text in base64"),
        (json!({"type": "Precompiled", "precompiled_charsmap": ""}), "expected at least 4 bytes"),
        (json!({"type": "Precompiled", "precompiled_charsmap": "????????"}), "expected at least 4 bytes"),
        (rules(&[0, 0], u32::MAX, b"x\0"), "expected a trie of at most its"),
        // A trie without a root, and one that points outside.
        (rules(&[], 0, b"x\0"), "tokenizer.json: "),
        (rules(&[0x3FFF_FC00; 8], 32, b"x\0"), "tokenizer.json: "),
        // A value that points past the replacements.
        (rules(&[(1 << 10) | (1 << 8); 600], 2400, b"x\0"), "tokenizer.json: "),
    ] {
        let nested = json!({"type": "Sequence", "normalizers": [rules.clone()]});
        for rules in [rules, nested] {
            if let Err(error) = outcome(with(first, rules.clone()).to_string()) {
                assert!(error.starts_with("tokenizer.json: ") && error.contains(problem), "{error}");
            } else {
                assert_eq!(problem, "tokenizer.json: ", "{rules}");
            }
        }
    }
    let outside = outcome(with(first, rules(&[0x3FFF_FC00; 8], 32, b"x\0")).to_string()).unwrap_err();
    assert!(outside.contains("damaged"), "{outside}");
}

#[test]
fn models_that_contradict_themselves() {
    for json in [
        with("/model/vocab", json!([])),
        with("/model/unk_id", json!(30_000)),
        with("/model/unk_id", json!(4_294_967_296_u64)),
        with("/model/vocab", json!([["a", "b"]])),
        with("/model/vocab", json!({"a": 1})),
        with("/model", json!({"type": "WordPiece", "vocab": {"a": 4_294_967_296_u64}})),
        with(
            "/model",
            json!({"type": "WordPiece", "vocab": {"<s>": 0, "</s>": 1, "<pad>": 2, "a": 3}, "unk_token": "[UNK]"}),
        ),
        with("/model", json!({"type": "BPE", "vocab": {"<s>": 0}, "merges": [["a", "b"]]})),
        with("/model", json!({"type": "BPE", "vocab": {"<s>": -1}, "merges": []})),
        with("/model", json!({"type": "Nothing"})),
        with("/model", json!(null)),
        with("/model", json!(7)),
        with("/added_tokens", json!([{"id": 1}])),
        with("/version", json!("2.0")),
    ] {
        error_of(&json);
    }
}

#[test]
fn regular_expressions_that_blow_up() {
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let start = std::time::Instant::now();
    for pattern in ["(a+)+$", "(a|a)*b", "(.*)*\\1z", "((a{0,200}){0,200}){0,200}c"] {
        let _ = outcome(with("/pre_tokenizer", split(pattern)).to_string());
        let replace = json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"});
        let _ = outcome(with("/normalizer", replace).to_string());
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    for pattern in ["(", "[z-a]", "\\p{Nowhere}", "(?<name"] {
        error_of(&with("/pre_tokenizer", split(pattern)));
    }
}

#[test]
fn sections_that_are_set_aside_do_no_harm() {
    let padding = json!({
        "strategy": {"Fixed": 0}, "direction": "Left", "pad_to_multiple_of": 0,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    });
    outcome(with("/padding", padding).to_string()).unwrap();
    for stride in [0, 5] {
        let truncation =
            json!({"max_length": 0, "strategy": "LongestFirst", "stride": stride, "direction": "Right"});
        let result = outcome(with("/truncation", truncation).to_string());
        assert!(result.is_ok() || result.unwrap_err().starts_with("tokenizer.json: "));
    }
}

#[test]
fn text_that_is_no_tokenizer() {
    let whole = tokenizer_json().to_string();
    for json in [
        Vec::new(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        b"\xFF\xFE{".to_vec(),
        whole.as_bytes()[..whole.len() / 2].to_vec(),
        vec![b'['; 200_000],
        format!("{{\"normalizer\": {}", "{\"type\": \"Sequence\", \"normalizers\": [".repeat(50_000))
            .into_bytes(),
    ] {
        let error = outcome(&json).unwrap_err();
        assert!(error.starts_with("tokenizer.json: ") && error.len() < 400, "{error}");
    }
}

/// Files in a folder, as a tokenizer.
fn from_files(files: &[(&str, &[u8])]) -> Result<Tokenizer, String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    Tokenizer::from_source(&ModelSource::directory(directory.path()), "").map_err(|error| error.to_string())
}

#[test]
fn vocabularies_of_lines() {
    let vocab = fs::read(golden("dual_encoders/chinese_clip/vocab.txt")).unwrap();
    let plain = from_files(&[("vocab.txt", &vocab)]).unwrap();
    let text = "一只猫 a dog [MASK] x";
    let expected = plain.encode(text).unwrap();

    let with_mark = [b"\xEF\xBB\xBF".as_slice(), &vocab].concat();
    let with_returns = String::from_utf8(vocab.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    let with_blank_lines = [vocab.as_slice(), b"\n\n"].concat();
    for vocab in [&with_mark, &with_returns, &with_blank_lines] {
        assert_eq!(from_files(&[("vocab.txt", vocab)]).unwrap().encode(text).unwrap(), expected);
    }
    // For equal lines the last counts.
    let twice = [vocab.as_slice(), b"[CLS]\n"].concat();
    let lines = String::from_utf8(vocab.clone()).unwrap().lines().count() as u32;
    assert_eq!(from_files(&[("vocab.txt", &twice)]).unwrap().bos_id(), Some(lines));

    let cut = &vocab[..vocab.iter().position(|&byte| byte >= 0x80).unwrap() + 1];
    for (vocab, problem) in [
        (cut, "expected one token per line in UTF-8"),
        (b"".as_slice(), "expected the special token"),
        (b"[PAD]\n[CLS]\n[SEP]\n", "expected the special token [UNK]"),
        (b"\xFF\xFE[\0P\0", "expected one token per line in UTF-8"),
    ] {
        let error = from_files(&[("vocab.txt", vocab)]).unwrap_err();
        assert!(error.contains("vocab.txt: ") && error.contains(problem), "{error}");
    }
}

#[test]
fn vocabularies_with_merges() {
    let file = |name: &str| fs::read(golden("dual_encoders/clip").join(name)).unwrap();
    let (vocab, merges) = (file("vocab.json"), file("merges.txt"));
    let expected =
        from_files(&[("vocab.json", &vocab), ("merges.txt", &merges)]).unwrap().encode("a dog").unwrap();
    let marked = |bytes: &[u8]| [b"\xEF\xBB\xBF".as_slice(), bytes].concat();
    let with_returns = String::from_utf8(merges.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    for (vocab, merges) in [(marked(&vocab), marked(&merges)), (vocab.clone(), with_returns)] {
        let tokenizer = from_files(&[("vocab.json", &vocab), ("merges.txt", &merges)]).unwrap();
        assert_eq!(tokenizer.encode("a dog").unwrap(), expected);
    }
    for (vocab, merges, problem) in [
        (&vocab[..vocab.len() / 2], merges.as_slice(), "vocab.json: expected an object of tokens"),
        (&vocab, b"#version: 0.2\nqqqq zzzz\n", "vocab.json: the vocabulary cannot be used"),
        (
            b"{\"<|startoftext|>\": 4294967296, \"<|endoftext|>\": 1}",
            b"",
            "vocab.json: the vocabulary cannot be used",
        ),
        (b"{\"<|startoftext|>\": [], \"<|endoftext|>\": 1}", b"", "vocab.json: "),
        (b"{}", b"", "vocab.json: expected the special token"),
    ] {
        let error = from_files(&[("vocab.json", vocab), ("merges.txt", merges)]).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn sentencepiece_models() {
    let model = fs::read(golden("tokenizer/sentencepiece.bpe.model")).unwrap();
    for length in [0, 1, 7, model.len() / 3, model.len() / 2, model.len() - 1] {
        let damaged = &model[..length];
        match from_files(&[("sentencepiece.bpe.model", damaged)]) {
            Ok(tokenizer) => drop(tokenizer.encode(TEXTS[1]).unwrap()),
            Err(error) => assert!(error.contains("sentencepiece.bpe.model: "), "{error}"),
        }
    }
    for other in [
        b"\xEF\xBB\xBF".as_slice(),
        b"<html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        &[0x0A; 4096],
    ] {
        let error = from_files(&[("sentencepiece.bpe.model", other)]).unwrap_err();
        assert!(error.contains("sentencepiece.bpe.model: "), "{error}");
    }
}

/// SentencePiece 0.2.3 refuses all of these but the replacements that are not UTF-8.
#[test]
fn replacement_rules_of_sentencepiece_models() {
    let model = ModelProto::decode(&*fs::read(golden("tokenizer/sentencepiece.bpe.model")).unwrap()).unwrap();
    let whole = model.normalizer_spec.as_ref().unwrap().precompiled_charsmap().to_vec();
    let size = u32::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let (trie, replacements) = whole[4..].split_at(size);
    let trie: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let outcome = |size: usize, trie: &[u32], replacements: &[u8]| {
        let mut charsmap = (size as u32).to_le_bytes().to_vec();
        charsmap.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
        charsmap.extend(replacements);
        let mut model = model.clone();
        model.normalizer_spec.as_mut().unwrap().precompiled_charsmap = Some(charsmap);
        let tokenizer = Tokenizer::from_sentencepiece_bytes(&model.encode_to_vec(), "rules.model");
        tokenizer.map(drop).map_err(|error| error.to_string())
    };
    outcome(size, &trie, replacements).unwrap();

    let value = trie.iter().position(|unit| unit >> 31 == 1).unwrap();
    let with_value = trie.iter().position(|unit| unit >> 31 == 0 && unit >> 8 & 1 == 1).unwrap();
    let last = trie.len() - 1;
    let changed = |place: usize, unit: u32| {
        let mut trie = trie.clone();
        trie[place] = unit;
        trie
    };
    let length = replacements.len() as u32;
    for (what, trie) in [
        ("a value after the last replacement", changed(value, 1 << 31 | length)),
        ("a unit in the place of a value", changed(value, 0)),
        ("a value that is none", changed(with_value, 1 << 8)),
        ("children outside the trie", changed(with_value, 0x3F_FFFF << 10)),
        ("children in the block after the trie", changed(last, 1 << 9 | 1 << 10)),
        ("a root without children", changed(0, 0)),
        ("a root with a label", changed(0, trie[0] | 1)),
        ("a root that is a value", changed(0, 1 << 31)),
        ("nothing but zeros", vec![0; 256]),
    ] {
        let error = outcome(4 * trie.len(), &trie, replacements).expect_err(what);
        assert!(
            error.starts_with("rules.model: precompiled_charsmap: expected units that point into the trie"),
            "{what}: {error}"
        );
    }
    let (cut, no_utf8) = (&replacements[..replacements.len() - 1], [replacements, b"\xFF\0"].concat());
    for (problem, size, trie, replacements) in [
        ("expected a trie of 1024 to", size + 4, &*trie, replacements),
        ("expected a trie of 1024 to", size, &trie, b""),
        ("expected a trie of 1024 to", 4 * 255, &trie[..255], replacements),
        ("expected a zero byte after the last replacement", size, &trie, cut),
        ("expected replacements in UTF-8", size, &trie, &no_utf8),
    ] {
        let error = outcome(size, trie, replacements).expect_err(problem);
        assert!(error.contains(problem), "{problem}: {error}");
    }
}
