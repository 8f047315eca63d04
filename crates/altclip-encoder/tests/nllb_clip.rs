//! Compares NLLB-CLIP, in OpenCLIP's layout, with open_clip.

mod common;

use std::fs;

use altclip_encoder::dual_encoder::{self, DualEncoder, Family};
use altclip_encoder::{ErrorKind, ModelSource};
use candle_core::{DType, Device};
use common::outputs::{check_alone, check_outputs};
use test_support::{MODULE_TOLERANCE, assert_close, golden, golden_tensors};

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("nllb_clip").join(model))
}

fn load(model: &str) -> Box<dyn DualEncoder> {
    dual_encoder::load(&source(model), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn vectors_are_those_of_open_clip() {
    for (name, dim) in [("base", 12), ("siglip", 64)] {
        let (folder, model) = (format!("nllb_clip/{name}"), load(name));
        assert_eq!(Family::of(&source(name)).unwrap(), Family::OpenClip);
        assert_eq!((model.max_tokens(), model.image_size(), model.projection_dim()), (77, 20, dim));
        assert_eq!(model.properties().logit_bias.is_some(), name == "siglip");
        check_outputs(&*model, &folder, MODULE_TOLERANCE);
        check_alone(&*model, &folder, 2, 4, MODULE_TOLERANCE);
    }
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn texts_have_the_ids_of_transformers() {
    use altclip_encoder::Tokenizer;

    let tokenizer = Tokenizer::from_source(&source("base"), "").unwrap();
    let cases: Vec<serde_json::Value> = test_support::golden_json("nllb_clip/cases.json");
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let found = serde_json::to_value(tokenizer.encode(text).unwrap()).unwrap();
        assert_eq!(found, case["ids"], "{text:?}");
    }
    let texts: Vec<String> = test_support::golden_json("nllb_clip/texts.json");
    let chinese = tokenizer.clone().with_language("zho_Hans").unwrap();
    let tokenizers =
        [(tokenizer, "nllb_clip/base/golden.safetensors"), (chinese, "nllb_clip/chinese.safetensors")];
    for (tokenizer, golden) in &tokenizers {
        let expected = golden_tensors(golden)["input_ids"].to_dtype(DType::U32).unwrap();
        let found = tokenizer.encode_padded(&texts, 24).unwrap();
        assert_eq!(found.input_ids.to_vec2::<u32>().unwrap(), expected.to_vec2::<u32>().unwrap(), "{golden}");
    }
    let error = tokenizers[0].0.clone().with_language("tlh_Piqd").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains(r#"no language "tlh_Piqd""#), "{error}");
}

#[cfg(all(feature = "images", feature = "tokenizer-json"))]
#[test]
fn images_are_prepared_as_by_open_clip() {
    use altclip_encoder::Embedder;

    for name in ["base", "siglip"] {
        let folder = tempfile::tempdir().unwrap();
        for from in ["base", name] {
            for file in fs::read_dir(golden("nllb_clip").join(from)).unwrap() {
                let file = file.unwrap();
                let copied = file.file_name() != "golden.safetensors";
                if copied {
                    fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
                }
            }
        }
        let source = ModelSource::directory(folder.path());
        let embedder = Embedder::from_source(&source, DType::F32, &Device::Cpu).unwrap();
        let golden = golden_tensors(&format!("nllb_clip/{name}/golden.safetensors"));
        let bytes = golden["image"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let image = image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(44, 30, bytes).unwrap());
        let found = embedder.image_processor().unwrap().preprocess(&image).unwrap();
        assert_close("prepared", &found, &golden["prepared"], 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_one_line() {
    let error = |model: &str, from: &str, to: &str| {
        let folder = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(golden(format!("nllb_clip/{model}/open_clip_config.json"))).unwrap();
        assert!(config.contains(from), "{config}");
        fs::write(folder.path().join("open_clip_config.json"), config.replace(from, to)).unwrap();
        let weights = "open_clip_pytorch_model.bin";
        fs::copy(golden(format!("nllb_clip/{model}/{weights}")), folder.path().join(weights)).unwrap();
        let source = ModelSource::directory(folder.path());
        let error = dual_encoder::load(&source, DType::F32, &Device::Cpu).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File, "{error}");
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let message = error("base", "cls_pooler", "mean_pooler");
    assert!(message.contains(r#"hf_pooler_type is "mean_pooler", expected "cls_pooler""#), "{message}");
    let message = error("siglip", "vit_base_patch16_siglip_384", "vit_base_patch16_clip_224");
    assert!(message.contains("timm_model_name") && message.contains("expected SigLIP's"), "{message}");
    let message = error("siglip", r#""image_size": 20"#, r#""image_size": 30"#);
    assert!(message.contains("[16, 64]") && message.contains("[36, 64]"), "{message}");
}
