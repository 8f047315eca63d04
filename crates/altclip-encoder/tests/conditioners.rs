//! Compares the text encoders of diffusion models besides AltDiffusion with diffusers and transformers.

mod common;

use altclip_encoder::conditioner::{BertConditionerConfig, ClipConditionerConfig, ConditionerConfig};
use altclip_encoder::config::ConfigFile;
use altclip_encoder::source::FileData;
use altclip_encoder::{Conditioner, ErrorKind, ModelSource, PROMPT_TOKENS, PromptEncoder, Tokenizer};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use test_support::{MODULE_TOLERANCE, assert_close, golden, golden_json, golden_tensors, relative_error};

const MODELS: [&str; 4] = ["sd1", "sd2", "taiyi", "pai"];

#[derive(Deserialize)]
struct Texts {
    texts: Vec<String>,
    word: String,
    word_texts: Vec<String>,
}

fn texts() -> Texts {
    golden_json("conditioners/conditioners.json")
}

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("conditioners").join(model))
}

fn encoder(model: &str) -> PromptEncoder {
    PromptEncoder::from_source(&source(model), DType::F32, &Device::Cpu).unwrap()
}

fn tensors(file: &str) -> HashMap<String, Tensor> {
    golden_tensors(&format!("conditioners/{file}.safetensors"))
}

fn u32s(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::U32).unwrap()
}

/// A model's text encoder with its configuration passed through `change`.
fn changed(model: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Arc<dyn Conditioner> {
    let folder = format!("conditioners/{model}/text_encoder");
    let mut fields: Map<String, Value> = golden_json(&format!("{folder}/config.json"));
    change(&mut fields);
    let file = FileData::owned("config.json", Value::from(fields).to_string().into_bytes());
    let weights = common::weights(&format!("{folder}/model.safetensors"), DType::F32);
    ConditionerConfig::read(&file).unwrap().build(weights).unwrap()
}

#[test]
fn hidden_states_are_those_of_diffusers() {
    let golden = tensors("golden");
    for model in MODELS {
        let encoder = encoder(model);
        let encoded = encoder.encode(&texts().texts).unwrap();
        let states = &golden[&format!("{model}.states")];
        assert_eq!((encoder.length(), encoder.width()), (PROMPT_TOKENS, states.dim(2).unwrap()));
        assert_close("encoded", &encoded.hidden_states, states, MODULE_TOLERANCE);
        // No row may stand for others here.
        assert_close("encoded", &encoded.compact.rows, states, MODULE_TOLERANCE);
        let bias = encoded.compact.key_bias.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(bias, 0.0);

        let skipped = encoder.skipping_layers(1).unwrap().encode(&texts().texts[..2]).unwrap();
        assert_close(
            "skipped",
            &skipped.hidden_states,
            &golden[&format!("{model}.skipped_states")],
            MODULE_TOLERANCE,
        );
    }
}

#[test]
fn ids_are_those_of_transformers() {
    let golden = tensors("golden");
    for model in MODELS {
        let tokenizer = Tokenizer::from_source(&source(model), "tokenizer").unwrap();
        let encoding = tokenizer.encode_padded(&texts().texts, PROMPT_TOKENS).unwrap();
        for (found, name) in [(encoding.input_ids, "input_ids"), (encoding.attention_mask, "attention_mask")]
        {
            let expected = u32s(&golden[&format!("{model}.{name}")]).to_vec2::<u32>().unwrap();
            assert_eq!(found.to_vec2::<u32>().unwrap(), expected, "{model}.{name}");
        }
    }
}

/// In Stable Diffusion 2 the padding token is `!`, which is then special wherever it stands in a text.
#[test]
fn a_padding_token_in_a_text_is_special() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }

    let tokenizer = Tokenizer::from_source(&source("sd2"), "tokenizer").unwrap();
    assert_eq!(tokenizer.pad_id(), 0);
    for Case { text, ids } in golden_json::<Vec<Case>>("conditioners/sd2_cases.json") {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
}

/// diffusers passes the mask if the configuration asks for it.
#[test]
fn the_mask_is_used_if_the_configuration_says_so() {
    let golden = tensors("golden");
    for model in MODELS {
        let two = |name: &str| {
            u32s(&golden[&format!("{model}.{name}")]).narrow(0, 0, 2).unwrap().contiguous().unwrap()
        };
        let masked = changed(model, |fields| drop(fields.insert("use_attention_mask".into(), json!(true))));
        let states = masked.forward(&two("input_ids"), &two("attention_mask")).unwrap();
        assert_close("states", &states, &golden[&format!("{model}.masked_states")], MODULE_TOLERANCE);
    }
}

/// Padding rows are different from each other, even without tokens before them, so none may be left out. In a causal
/// tower a row depends only on what precedes it.
#[test]
fn padding_rows_differ_and_causal_rows_ignore_what_follows() {
    for model in MODELS {
        let encoder = encoder(model);
        let states = encoder.encode(&["", "a red dog"]).unwrap().hidden_states;
        let row = |text: usize, row: usize| states.get(text).unwrap().narrow(0, row, 1).unwrap();
        assert!(relative_error(&row(0, 40), &row(0, 41)) > 1e-3, "{model}");
        let first_alike = relative_error(&row(1, 0), &row(0, 0)) < 1e-6;
        assert_eq!(first_alike, model != "taiyi", "{model}");
    }
}

#[test]
fn learned_words_are_those_of_diffusers() {
    let (golden, words, texts) = (tensors("golden"), tensors("words"), texts());
    for model in ["sd1", "sd2", "taiyi"] {
        let encoder = encoder(model);
        let mut tokenizer = encoder.tokenizer().clone();
        let vectors = &words[model];
        let first = tokenizer.add_word(&texts.word, vectors.dim(0).unwrap()).unwrap();
        let encoding = tokenizer.encode_padded(&texts.word_texts, PROMPT_TOKENS).unwrap();
        let expected = u32s(&golden[&format!("{model}.word_ids")]).to_vec2::<u32>().unwrap();
        assert_eq!(encoding.input_ids.to_vec2::<u32>().unwrap(), expected, "{model}");
        let with_word = encoder.text_encoder().with_added_embeddings(first, vectors).unwrap();
        let states = with_word.forward(&encoding.input_ids, &encoding.attention_mask).unwrap();
        assert_close("states", &states, &golden[&format!("{model}.word_states")], MODULE_TOLERANCE);

        let rows = with_word.word_embeddings(&[first + 1]).unwrap();
        assert_close("rows", &rows, &vectors.narrow(0, 1, 1).unwrap(), 1e-7);
        let narrow = vectors.narrow(1, 0, 7).unwrap();
        let error = encoder.text_encoder().with_added_embeddings(first, &narrow).unwrap_err().to_string();
        assert!(error.contains("the added embeddings have 7 values"), "{error}");
    }
}

#[test]
fn half_precision_is_close_to_single() {
    for model in MODELS {
        let expected = encoder(model).encode(&texts().texts).unwrap().hidden_states;
        for (dtype, tolerance) in [(DType::F16, 2e-3), (DType::BF16, 1.6e-2)] {
            let encoder = PromptEncoder::from_source(&source(model), dtype, &Device::Cpu).unwrap();
            let states = encoder.encode(&texts().texts).unwrap().hidden_states;
            assert_close("states", &states, &expected, tolerance);
        }
    }
}

/// The tower of another family, or a vocabulary of another size: one line with what was expected and found.
#[test]
fn what_does_not_fit_is_one_line_with_what_was_expected_and_found() {
    let read = |config: &str, weights: &str| -> String {
        let file = source(config).read("text_encoder/config.json").unwrap();
        let weights = altclip_encoder::Checkpoint::open(&source(weights), "text_encoder").unwrap();
        let weights = weights.var_builder(DType::F32, &Device::Cpu).unwrap();
        let error = ConditionerConfig::read(&file).unwrap().build(weights).map(drop).unwrap_err();
        altclip_encoder::Error::from(error).to_string()
    };
    for (config, weights, parts) in [
        ("sd1", "taiyi", ["text_model.embeddings", "taiyi/text_encoder/model.safetensors"]),
        ("taiyi", "sd1", ["embeddings.", "sd1/text_encoder/model.safetensors"]),
        ("sd1", "sd2", ["[634, 20]", "[634, 16]"]),
        ("sd1", "pai", ["16], expected", "[634, 16]"]),
    ] {
        let error = read(config, weights);
        assert!(parts.iter().all(|part| error.contains(part)), "{config} {weights}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    // A tokenizer with more tokens than the model has embeddings.
    let encoder = PromptEncoder::new(
        Tokenizer::from_source(&source("sd1"), "tokenizer").unwrap(),
        encoder("taiyi").text_encoder().clone(),
    );
    let error = encoder.encode(&["a dog"]).unwrap_err();
    assert!(error.to_string().contains("embeddings of"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Input);
    let error = encoder.skipping_layers(3).unwrap_err().to_string();
    assert!(error.contains("fewer than the 3 layers"), "{error}");
}

#[test]
fn other_architectures_are_refused_by_name() {
    let error = |fields: Value| {
        let file = FileData::owned("config.json", fields.to_string().into_bytes());
        ConditionerConfig::read(&file).unwrap_err().to_string()
    };
    let message = error(json!({"architectures": ["T5EncoderModel"], "model_type": "t5"}));
    assert!(message.contains("CLIPTextModel") && message.contains("found T5EncoderModel"), "{message}");
    let message = error(json!({"model_type": "t5"}));
    assert!(message.contains("clip_text_model") && message.contains(r#"found "t5""#), "{message}");
    let message = error(json!({"architectures": ["CLIPTextModel"], "hidden_size": 15}));
    assert!(message.contains("hidden_size 15 is not a multiple"), "{message}");
    let message = error(json!({"architectures": ["BertModel"], "is_decoder": true}));
    assert!(message.contains("is_decoder is true"), "{message}");
}

#[test]
fn no_field_of_the_published_configurations_is_unknown() {
    for (table, model) in [
        (ClipConditionerConfig::FIELDS, "sd1"),
        (ClipConditionerConfig::FIELDS, "sd2"),
        (BertConditionerConfig::FIELDS, "taiyi"),
    ] {
        let fields: Map<String, Value> =
            golden_json(&format!("conditioners/{model}/text_encoder/config.json"));
        assert_eq!(table.unknown(&fields), Vec::<&str>::new(), "{model}");
    }
}
