//! Compares every family of dual encoders, loaded from its published layout, with the reference implementation.

mod common;

use std::fs;
use std::path::Path;

use altclip_encoder::dual_encoder::{self, DualEncoder, Family};
use candle_core::{DType, Device, Tensor};
use common::outputs::{check_alone, check_half_precision, check_outputs};
use model_files::source::ModelSource;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{MODULE_TOLERANCE, copy_directory, golden, golden_tensors, relative_error};

const MODELS: [(&str, Family); 5] = [
    ("altclip", Family::AltClip),
    ("altclip_m18", Family::AltClip),
    ("clip", Family::Clip),
    ("chinese_clip", Family::ChineseClip),
    ("taiyi", Family::TaiyiClip),
];

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("dual_encoders").join(model))
}

fn load(source: &ModelSource, dtype: DType) -> Box<dyn DualEncoder> {
    dual_encoder::load(source, dtype, &Device::Cpu).unwrap()
}

#[test]
fn every_family_gives_what_the_reference_gives() {
    for (folder, family) in MODELS {
        let source = source(folder);
        assert_eq!(Family::of(&source).unwrap(), family);
        check_outputs(&*load(&source, DType::F32), &format!("dual_encoders/{folder}"), MODULE_TOLERANCE);
    }
}

#[test]
fn half_precision_is_better_than_that_of_the_reference() {
    check_half_precision(&MODELS.map(|(folder, _)| format!("dual_encoders/{folder}")));
}

#[test]
fn a_text_does_not_depend_on_its_padding_or_its_neighbours() {
    for (folder, _) in MODELS {
        let model = load(&source(folder), DType::F32);
        let path = format!("dual_encoders/{folder}");
        let tokens = golden_tensors(&format!("{path}/golden.safetensors"))["attention_mask"]
            .to_dtype(DType::F32)
            .unwrap()
            .sum(1)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        for (row, tokens) in tokens.into_iter().enumerate() {
            check_alone(&*model, &path, row, tokens as usize, MODULE_TOLERANCE);
        }
    }
}

#[test]
fn the_model_of_this_project_is_a_dual_encoder() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji");
    let source = ModelSource::directory(directory);
    assert_eq!(Family::of(&source).unwrap(), Family::AltDiffusion);
    let model = load(&source, DType::F32);
    assert_eq!((model.projection_dim(), model.image_size(), model.max_tokens()), (128, 64, 78));
    assert!(model.logit_scale() > 1. && model.logit_scale() <= 100.5, "{}", model.logit_scale());
    let (ids, mask) = common::prompts(&[3, 9], 12, 7002);
    assert_eq!(model.encode_text(&ids, &mask).unwrap().dims(), [2, 128]);
    assert_eq!(model.text_hidden_states(&ids, &mask).unwrap().dims(), [2, 12, 128]);
}

/// A copy of a model with its `config.json` passed through `change`.
fn changed(model: &str, change: impl FnOnce(&mut Value)) -> (TempDir, ModelSource) {
    let directory = tempfile::tempdir().unwrap();
    copy_directory(&golden("dual_encoders").join(model), directory.path()).unwrap();
    let path = directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    let source = ModelSource::directory(directory.path());
    (directory, source)
}

/// FlagAI's class has the same weights and names, and calls itself a CLIP.
#[test]
fn altclip_in_the_layout_of_flagai() {
    let (_directory, source) = changed("altclip", |config| {
        config["model_type"] = json!("clip");
        config["text_config"]["model_type"] = json!("xlm-roberta");
        config["variant"] = json!("invert");
    });
    assert_eq!(Family::of(&source).unwrap(), Family::AltClip);
    check_outputs(&*load(&source, DType::F32), "dual_encoders/altclip", MODULE_TOLERANCE);
}

/// OpenAI's files have 2 as the end token, newer ones its real id.
#[test]
fn both_ways_to_find_the_end_of_a_text() {
    let (_directory, source) = changed("clip", |config| {
        assert_eq!(config["text_config"]["eos_token_id"], 2);
        let last = config["text_config"]["vocab_size"].as_u64().unwrap() - 1;
        config["text_config"]["eos_token_id"] = json!(last);
    });
    check_outputs(&*load(&source, DType::F32), "dual_encoders/clip", MODULE_TOLERANCE);
    // An id that no text has.
    let (_directory, source) = changed("clip", |config| config["text_config"]["eos_token_id"] = json!(3));
    let ids = Tensor::new(&[[5u32, 6]], &Device::Cpu).unwrap();
    let mask = ids.ones_like().unwrap();
    let error = load(&source, DType::F32).encode_text(&ids, &mask).unwrap_err().to_string();
    assert!(error.contains("text 0 has no end: expected token id 3"), "{error}");
}

/// In transformers `text_config_dict` takes precedence over `text_config`, and null means missing.
#[test]
fn configurations_of_older_versions() {
    let (_directory, source) = changed("clip", |config| {
        config["text_config_dict"] = config["text_config"].take();
        config["vision_config_dict"] = config["vision_config"].clone();
        config["vision_config"]["image_size"] = json!(900);
    });
    check_outputs(&*load(&source, DType::F32), "dual_encoders/clip", MODULE_TOLERANCE);
}

/// Taiyi's CLIP may be at the root.
#[test]
fn taiyi_beside_a_clip_at_the_root() {
    let directory = tempfile::tempdir().unwrap();
    copy_directory(&golden("dual_encoders/taiyi/image_encoder"), directory.path()).unwrap();
    copy_directory(&golden("dual_encoders/taiyi/text_encoder"), &directory.path().join("text_encoder"))
        .unwrap();
    let source = ModelSource::directory(directory.path());
    assert_eq!(Family::of(&source).unwrap(), Family::TaiyiClip);
    check_outputs(&*load(&source, DType::F32), "dual_encoders/taiyi", MODULE_TOLERANCE);
}

#[test]
fn errors_say_what_is_wrong() {
    let error = |source: &ModelSource| {
        dual_encoder::load(source, DType::F32, &Device::Cpu).map(drop).unwrap_err().to_string()
    };
    let (_a, another) = changed("clip", |config| config["model_type"] = json!("blip"));
    assert!(error(&another).contains(r#"model_type is "blip", expected one of AltCLIP (altclip), CLIP"#));
    let (_b, wrong) = changed("chinese_clip", |config| config["text_config"]["hidden_size"] = json!(21));
    let message = error(&wrong);
    assert!(message.contains("config.json: text_config: hidden_size 21 is not a multiple"), "{message}");
    for tower in ["text_config", "vision_config"] {
        let (_directory, empty) = changed("clip", |config| config[tower]["intermediate_size"] = json!(0));
        let message = error(&empty);
        assert!(message.contains("intermediate_size is 0, expected at least 1"), "{message}");
    }
    for (field, largest) in
        [("num_hidden_layers", 1024), ("hidden_size", 1_048_576), ("vocab_size", 16_777_216)]
    {
        let (_directory, huge) =
            changed("altclip", |config| config["text_config"][field] = json!(2_147_483_648u64));
        let message = error(&huge);
        let expected = format!("{field} is 2147483648, expected at most {largest}");
        assert!(message.contains("config.json") && message.contains(&expected), "{message}");
    }
    let (_directory, empty) = changed("altclip", |config| config["text_config"]["project_dim"] = json!(0));
    let message = error(&empty);
    assert!(message.contains("project_dim is 0"), "{message}");
    let (_c, wider) = changed("clip", |config| config["projection_dim"] = json!(12));
    let message = error(&wider);
    assert!(message.contains("tensor text_projection.weight") && message.contains("[11, 20]"), "{message}");
    let diffusion = ModelSource::directory(golden("alt_diffusion"));
    let message = error(&diffusion);
    assert!(
        message.contains("image_encoder/config.json") && message.contains("no dual encoder"),
        "{message}"
    );

    let model = load(&source("clip"), DType::F32);
    let ids = Tensor::zeros((1, 31), DType::U32, &Device::Cpu).unwrap();
    let message = model.encode_text(&ids, &ids.ones_like().unwrap()).unwrap_err().to_string();
    assert!(message.contains("31 tokens") && message.contains("positions for 30"), "{message}");
    let ids = Tensor::new(&[[1u32, 2, 3]], &Device::Cpu).unwrap();
    let mask = Tensor::new(&[[0u32, 1, 1]], &Device::Cpu).unwrap();
    let message = model.encode_text(&ids, &mask).unwrap_err().to_string();
    assert!(message.contains("hides the first token of text 0"), "{message}");
    let ids = Tensor::new(&[[1u32, 9999]], &Device::Cpu).unwrap();
    for (folder, _) in MODELS {
        let model = load(&source(folder), DType::F32);
        let message = model.encode_text(&ids, &ids.ones_like().unwrap()).unwrap_err().to_string();
        assert!(message.contains("token id 9999 is outside the vocabulary"), "{message}");
    }
}

/// The comparison is meaningful: another model's weights are far off.
#[test]
fn another_model_gives_something_else() {
    let golden = golden_tensors("dual_encoders/taiyi/golden.safetensors");
    let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
    let model = load(&source("chinese_clip"), DType::F32);
    let text = model.encode_text(&u32s("input_ids"), &u32s("attention_mask")).unwrap();
    assert!(relative_error(&text, &golden["text_embeds"]) > 0.1);
}
