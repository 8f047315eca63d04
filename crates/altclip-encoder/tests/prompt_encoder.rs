//! Tests prompt encoding against the reference implementation, against the text encoder used directly, and with
//! options.

mod common;

use std::fs;

use altclip_encoder::conditioner::{Conditioner, TextEncoder, TextEncoderConfig};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::{ErrorKind, PROMPT_TOKENS, PromptEncoder};
use candle_core::{DType, Device, Tensor};
use model_files::source::ModelSource;
use test_support::{MODULE_TOLERANCE, assert_close, copy_directory, golden, golden_json, golden_tensors};

const MODELS: [&str; 2] = ["alt_diffusion", "alt_diffusion_m18"];

/// The prompts of `scripts/golden/text_encoder.py`.
fn prompts() -> Vec<String> {
    let long = "cat and dog, ".repeat(40);
    let prompts = [
        "",
        "一只猫",
        "a picture of a small dog wearing a red hat",
        "Дві кішки п'ють чай, قطة صغيرة, 달빛 고양이, ภาพแมว, चाँदनी रात",
        &long,
    ];
    prompts.map(str::to_owned).to_vec()
}

fn encoder(model: &str) -> PromptEncoder {
    PromptEncoder::from_source(&ModelSource::directory(golden(model)), DType::F32, &Device::Cpu).unwrap()
}

/// Asserts that tensors are equal.
fn assert_same(a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims());
    assert_eq!(
        a.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        b.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    );
}

#[test]
fn hidden_states_are_those_of_the_reference() {
    let golden = golden_tensors("text_encoder.safetensors");
    for model in MODELS {
        let encoder = encoder(model).with_length(PROMPT_TOKENS).unwrap();
        let config: TextEncoderConfig = golden_json(&format!("{model}/text_encoder/config.json"));
        let mask = if config.use_attention_mask { "mask" } else { "no_mask" };
        let encoded = encoder.encode(&prompts()).unwrap();
        assert_eq!(encoded.hidden_states.dims(), [5, 77, encoder.width()]);
        assert_close(
            "encoded",
            &encoded.hidden_states,
            &golden[&format!("{model}.{mask}")],
            MODULE_TOLERANCE,
        );
    }
}

#[test]
fn hidden_states_are_those_of_the_text_encoder_by_hand() {
    let source = ModelSource::directory(golden("alt_diffusion"));
    let tokenizer = Tokenizer::from_source(&source, "tokenizer").unwrap();
    let weights = common::weights("alt_diffusion/text_encoder/model.safetensors", DType::F32);
    let text_encoder =
        TextEncoder::new(&source.read_json("text_encoder/config.json").unwrap(), weights).unwrap();
    let texts = ["", "一只戴帽子的小狗", "a cat"];
    for (length, skipped) in [(512, 0), (77, 0), (77, 1), (5, 2)] {
        let encoding = tokenizer.encode_padded(&texts, length).unwrap();
        let by_hand = text_encoder.skipping_layers(skipped).unwrap();
        let compact = by_hand.encode_compact(&encoding.input_ids, &encoding.attention_mask).unwrap();
        let encoder =
            encoder("alt_diffusion").with_length(length).and_then(|e| e.skipping_layers(skipped)).unwrap();
        assert_eq!(encoder.length(), length);
        let encoded = encoder.encode(&texts).unwrap();
        assert_same(&encoded.hidden_states, &compact.expand().unwrap());
        assert_same(&encoded.compact.rows, &compact.rows);
        assert_same(&encoded.compact.key_bias, &compact.key_bias);
        let count = |text: &str| tokenizer.encode(text).unwrap().len().saturating_sub(length);
        assert_eq!(encoded.truncated, texts.map(count));
    }
}

/// The exponential of a row's bias is the number of rows it stands for.
#[test]
fn the_bias_counts_every_row() {
    let encoder = encoder("alt_diffusion").with_length(77).unwrap();
    let bias = encoder.encode(&prompts()).unwrap().compact.key_bias.exp().unwrap();
    for row in bias.sum(1).unwrap().to_vec1::<f32>().unwrap() {
        assert!((row - 77.).abs() < 1e-3, "{row}");
    }
}

#[test]
fn the_length_is_that_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    for part in ["tokenizer", "text_encoder"] {
        copy_directory(&golden("alt_diffusion").join(part), &directory.path().join(part)).unwrap();
    }
    let load =
        || PromptEncoder::from_source(&ModelSource::directory(directory.path()), DType::F32, &Device::Cpu);
    let config = directory.path().join("tokenizer/tokenizer_config.json");
    for (json, length) in [
        (r#"{"model_max_length": 77}"#, 77),
        (r#"{"model_max_length": 512}"#, 512),
        (r#"{"model_max_length": 20.0}"#, 20),
        // Lengths beyond the encoder's positions are ignored.
        (r#"{"model_max_length": 513}"#, PROMPT_TOKENS),
        (r#"{"model_max_length": 1000000000000000019884624838656}"#, PROMPT_TOKENS),
        (r#"{"model_max_length": 1}"#, PROMPT_TOKENS),
        ("{}", PROMPT_TOKENS),
    ] {
        fs::write(&config, json).unwrap();
        let encoder = load().unwrap();
        assert_eq!(encoder.length(), length, "{json}");
        assert_eq!(encoder.encode(&["a"]).unwrap().hidden_states.dims(), [1, length, 20]);
    }
    fs::write(&config, r#"{"model_max_length": "long"}"#).unwrap();
    let error = load().unwrap_err();
    assert!(error.to_string().contains("tokenizer_config.json: model_max_length"), "{error}");
    assert_eq!(error.kind(), ErrorKind::File);
}

#[test]
fn what_cannot_be_is_the_callers_error() {
    let encoder = || encoder("alt_diffusion");
    for (error, expected) in [
        (encoder().with_length(1).unwrap_err(), "expected 2 to 512 tokens"),
        (encoder().with_length(513).unwrap_err(), "found 513"),
        (encoder().skipping_layers(3).unwrap_err(), "fewer than the 3 layers"),
        (encoder().encode::<&str>(&[]).unwrap_err(), "at least one prompt"),
    ] {
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Input);
    }
}

/// What needs the `tokenizers` crate says so if it was left out.
#[cfg(not(feature = "tokenizer-json"))]
#[test]
fn a_tokenizer_of_another_kind_names_the_feature() {
    for folder in ["tokenizer_json", "dual_encoders/clip", "dual_encoders/chinese_clip"] {
        let error = Tokenizer::from_source(&ModelSource::directory(golden(folder)), "").unwrap_err();
        assert!(error.to_string().contains("feature `tokenizer-json`"), "{folder}: {error}");
        assert_eq!(error.kind(), ErrorKind::File);
    }
}
