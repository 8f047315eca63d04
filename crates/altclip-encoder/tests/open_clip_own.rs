//! Compares OpenCLIP's models with CLIP's text tower, in OpenCLIP's own layout, with open_clip.

mod common;

use std::fs;

use altclip_encoder::dual_encoder::{self, DualEncoder, Family};
use altclip_encoder::{ErrorKind, ModelSource};
use candle_core::{DType, Device};
use common::outputs::{check_alone, check_outputs};
use test_support::{MODULE_TOLERANCE, copy_directory, golden};

/// The second has its text tower under `text`, and the activation of OpenAI's CLIP.
const MODELS: [&str; 2] = ["base", "quick"];
const CONFIG: &str = "open_clip_config.json";

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("open_clip_own").join(model))
}

fn load(source: &ModelSource) -> Result<Box<dyn DualEncoder>, altclip_encoder::Error> {
    dual_encoder::load(source, DType::F32, &Device::Cpu)
}

#[test]
fn vectors_are_those_of_open_clip() {
    for name in MODELS {
        let (folder, model) = (format!("open_clip_own/{name}"), load(&source(name)).unwrap());
        assert_eq!(Family::of(&source(name)).unwrap(), Family::OpenClip);
        assert_eq!((model.max_tokens(), model.image_size(), model.projection_dim()), (24, 20, 12));
        check_outputs(&*model, &folder, MODULE_TOLERANCE);
        // The third text has five tokens, with those at its ends.
        check_alone(&*model, &folder, 2, 5, MODULE_TOLERANCE);
    }
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn texts_have_the_ids_of_open_clip() {
    use altclip_encoder::Tokenizer;
    use test_support::golden_tensors;

    let tokenizer = Tokenizer::from_source(&source("base"), "").unwrap();
    let cases: Vec<serde_json::Value> = test_support::golden_json("open_clip_own/cases.json");
    assert!(!cases.is_empty());
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let found = serde_json::to_value(tokenizer.encode(text).unwrap()).unwrap();
        assert_eq!(found, case["ids"], "{text:?}");
    }
    // Only padding differs, which no token sees.
    let texts: Vec<String> = test_support::golden_json("open_clip_own/texts.json");
    let golden = golden_tensors("open_clip_own/base/golden.safetensors");
    let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let (expected, shown) = (u32s("input_ids"), u32s("attention_mask"));
    let found = tokenizer.encode_padded(&texts, 24).unwrap();
    assert_eq!(found.attention_mask.to_vec2::<u32>().unwrap(), shown);
    for ((found, expected), shown) in
        found.input_ids.to_vec2::<u32>().unwrap().iter().zip(&expected).zip(&shown)
    {
        let tokens = shown.iter().filter(|&&shown| shown == 1).count();
        assert_eq!(found[..tokens], expected[..tokens]);
    }
}

#[cfg(all(feature = "images", feature = "tokenizer-json"))]
#[test]
fn texts_and_images_are_prepared_as_by_open_clip() {
    use altclip_encoder::Embedder;
    use test_support::{assert_close, golden_json, golden_tensors};

    let embedder = Embedder::from_source(&source("base"), DType::F32, &Device::Cpu).unwrap();
    let golden = golden_tensors("open_clip_own/base/golden.safetensors");
    let bytes = golden["image"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let image = image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(44, 30, bytes).unwrap());
    let found = embedder.image_processor().unwrap().preprocess(&image).unwrap();
    assert_close("prepared", &found, &golden["prepared"], 1e-6);
    let texts: Vec<String> = golden_json("open_clip_own/texts.json");
    let found = embedder.embed_texts(&texts).unwrap();
    assert_close("texts", &found, &golden["text_embeds"], MODULE_TOLERANCE);
}

#[test]
fn what_does_not_fit_is_one_line() {
    for (from, to, expected) in [
        (r#""width": 18"#, r#""width": 21"#, "has shape [18, 12], expected [21, 12]"),
        (r#""heads": 3"#, r#""heads": 4"#, "hidden_size 18 is not a multiple"),
        (r#""context_length": 24"#, r#""context_length": 77"#, "[24, 18]"),
        (r#""embed_dim": 12"#, r#""embed_dim": 13"#, "[18, 12]"),
        (r#""heads": 3"#, r#""heads": 3, "no_causal_mask": true"#, "no_causal_mask is true"),
        (r#""heads": 3"#, r#""heads": 3, "pool_type": "last""#, "pool_type is \"last\""),
        (r#""layers": 2,"#, r#""layers": 1000000000000,"#, "expected at most"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy_directory(&golden("open_clip_own/base"), folder.path()).unwrap();
        let config = fs::read_to_string(folder.path().join(CONFIG)).unwrap();
        assert!(config.contains(from), "{from}");
        fs::write(folder.path().join(CONFIG), config.replace(from, to)).unwrap();
        let error = load(&ModelSource::directory(folder.path())).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File, "{error}");
        let message = error.to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{expected:?} in {message}");
    }
}
