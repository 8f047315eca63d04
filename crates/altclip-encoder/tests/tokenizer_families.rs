//! Compares BERT's and CLIP's tokenizers with transformers', and rejects damaged files.

use std::fs;

use altclip_encoder::tokenizer::Tokenizer;
use model_files::source::ModelSource;
use serde::Deserialize;
use tempfile::TempDir;
use test_support::golden;

/// A text in `tests/golden/dual_encoders/*_cases.json`.
#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn check_cases(tokenizer: &Tokenizer, file: &str) {
    let file = fs::read(golden("dual_encoders").join(file)).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&file).unwrap();
    assert!(cases.len() > 200);
    for case in cases {
        assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
    }
}

fn tokenizer(folder: &str) -> Tokenizer {
    let source = ModelSource::directory(golden("dual_encoders"));
    Tokenizer::from_source(&source, folder).unwrap()
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> (TempDir, ModelSource) {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let source = ModelSource::directory(directory.path());
    (directory, source)
}

fn file(path: &str) -> Vec<u8> {
    fs::read(golden("dual_encoders").join(path)).unwrap()
}

#[test]
fn bert_ids_are_those_of_the_slow_tokenizer() {
    let tokenizer = tokenizer("chinese_clip");
    check_cases(&tokenizer, "bert_cases.json");
    assert_eq!((tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id()), (0, Some(3), 4));
}

#[test]
fn bert_keeps_case_and_accents_where_its_config_says_so() {
    let vocab = file("chinese_clip/vocab.txt");
    let config = br#"{"do_lower_case": false, "model_max_length": 1000000000000000019884624838656}"#;
    let (_directory, source) = folder(&[("vocab.txt", &vocab), ("tokenizer_config.json", config)]);
    check_cases(&Tokenizer::from_source(&source, "").unwrap(), "bert_cased_cases.json");
}

#[test]
fn clip_ids_are_those_of_transformers() {
    let tokenizer = tokenizer("clip");
    check_cases(&tokenizer, "clip_cases.json");
    let vocab_size = tokenizer.vocab_size() as u32;
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()),
        (Some(vocab_size - 2), vocab_size - 1, vocab_size - 1)
    );
}

#[test]
fn every_family_pads_and_cuts() {
    for name in ["chinese_clip", "clip"] {
        let tokenizer = tokenizer(name);
        let (bos, eos, pad) = (tokenizer.bos_id().unwrap(), tokenizer.eos_id(), tokenizer.pad_id());
        let encoding = tokenizer.encode_padded(&["", &"dog ".repeat(50)], 7).unwrap();
        let ids = encoding.input_ids.to_vec2::<u32>().unwrap();
        assert_eq!(ids[0], [bos, eos, pad, pad, pad, pad, pad]);
        assert_eq!((ids[1][0], ids[1][6]), (bos, eos));
        let mask = encoding.attention_mask.to_vec2::<u32>().unwrap();
        assert_eq!(mask, [[1, 1, 0, 0, 0, 0, 0], [1; 7]]);
        let batch = tokenizer.encode_batch_padded(&["a", "b c"], 7).unwrap();
        assert_eq!(batch.input_ids.dims(), [2, 4]);
        assert!(tokenizer.encode_truncated("a", 1).is_err());
    }
}

#[test]
fn long_texts_take_linear_time() {
    for name in ["chinese_clip", "clip"] {
        let tokenizer = tokenizer(name);
        for text in ["一只戴帽子的小狗 a dog ".repeat(10_000), "z".repeat(200_000), "猫".repeat(100_000)]
        {
            let start = std::time::Instant::now();
            tokenizer.encode_truncated(&text, 77).unwrap();
            assert!(start.elapsed().as_secs() < 10, "{name}: {:?}", start.elapsed());
        }
    }
}

#[test]
fn damaged_files_are_errors_that_name_them() {
    let error = |files: &[(&str, &[u8])]| {
        let (_directory, source) = folder(files);
        Tokenizer::from_source(&source, "").unwrap_err().to_string()
    };
    let message = error(&[("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n")]);
    assert!(message.contains("vocab.txt: expected the special token [SEP]"), "{message}");
    let message = error(&[("vocab.txt", b"[PAD]\n\xff")]);
    assert!(message.contains("vocab.txt: expected one token per line in UTF-8"), "{message}");
    let vocab = file("clip/vocab.json");
    let message = error(&[("vocab.json", &vocab)]);
    assert!(message.contains("no file merges.txt"), "{message}");
    let message = error(&[("vocab.json", &vocab), ("merges.txt", b"#version: 0.2\na b c\n")]);
    assert!(message.contains("merges.txt: expected two parts") && message.contains("a b c"), "{message}");
    let message = error(&[("vocab.json", &vocab), ("merges.txt", "nowhere 猫\n".as_bytes())]);
    assert!(message.contains("vocab.json"), "{message}");
    let message = error(&[("vocab.json", b"[]"), ("merges.txt", b"")]);
    assert!(message.contains("vocab.json: expected an object of tokens"), "{message}");
    let message =
        error(&[("vocab.json", br#"{"<|startoftext|>": -4, "<|endoftext|>": 1}"#), ("merges.txt", b"")]);
    assert!(message.contains("vocab.json"), "{message}");
}
