//! Compares OpenCLIP's models with XLM-R, in their own layout, with open_clip.

mod common;

use std::fs;

use altclip_encoder::dual_encoder::{self, DualEncoder, Family};
use altclip_encoder::{Embedder, ErrorKind, ModelSource};
use candle_core::{DType, Device};
use common::outputs::{check_alone, check_outputs};
use test_support::{MODULE_TOLERANCE, assert_close, golden, golden_tensors};

const MODELS: [&str; 2] = ["mlp", "linear"];

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("open_clip").join(model))
}

fn load(model: &str) -> Box<dyn DualEncoder> {
    dual_encoder::load(&source(model), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn vectors_are_those_of_open_clip() {
    for name in MODELS {
        let (folder, model) = (format!("open_clip/{name}"), load(name));
        assert_eq!(Family::of(&source(name)).unwrap(), Family::OpenClip);
        assert_eq!((model.max_tokens(), model.image_size(), model.projection_dim()), (38, 20, 12));
        check_outputs(&*model, &folder, MODULE_TOLERANCE);
        check_alone(&*model, &folder, 1, 6, MODULE_TOLERANCE);
    }
}

#[cfg(feature = "images")]
#[test]
fn images_are_prepared_as_by_open_clip() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["open_clip_config.json", "open_clip_model.safetensors"] {
        fs::copy(golden("open_clip/mlp").join(file), folder.path().join(file)).unwrap();
    }
    // Any tokenizer will do for images.
    let tokenizer = golden("tokenizer/sentencepiece.bpe.model");
    fs::copy(tokenizer, folder.path().join("sentencepiece.bpe.model")).unwrap();
    let source = ModelSource::directory(folder.path());
    let embedder = Embedder::from_source(&source, DType::F32, &Device::Cpu).unwrap();
    let golden = golden_tensors("open_clip/mlp/golden.safetensors");
    let bytes = golden["image"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let image = image::RgbImage::from_raw(44, 30, bytes).unwrap();
    let found = embedder.embed_images(&[image::DynamicImage::ImageRgb8(image)]).unwrap();
    let prepared = golden["prepared"].unsqueeze(0).unwrap();
    assert_close("prepared", &found, &load("mlp").encode_image(&prepared).unwrap(), 1e-4);
}

#[test]
fn what_does_not_fit_is_one_line() {
    let error = |change: &dyn Fn(&str) -> String, weights: &str| {
        let folder = tempfile::tempdir().unwrap();
        let config = fs::read_to_string(golden("open_clip/mlp/open_clip_config.json")).unwrap();
        fs::write(folder.path().join("open_clip_config.json"), change(&config)).unwrap();
        fs::copy(golden(weights), folder.path().join("open_clip_model.safetensors")).unwrap();
        let source = ModelSource::directory(folder.path());
        let error = dual_encoder::load(&source, DType::F32, &Device::Cpu).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let own = "open_clip/mlp/open_clip_model.safetensors";
    let message = error(&|config| config.replace("mean_pooler", "cls_pooler"), own);
    assert!(message.contains("hf_pooler_type") && message.contains("cls_pooler"), "{message}");
    let message = error(&|config| config.replace(r#""width": 16"#, r#""width": 24"#), own);
    assert!(message.contains("has shape [16, 12], expected [24, 12]"), "{message}");
    let message = error(&|config| config.replace(r#""layers": 2"#, r#""timm_model_name": "x""#), own);
    assert!(message.contains("timm_model_name"), "{message}");
    let message = error(&str::to_owned, "dual_encoders/clip/model.safetensors");
    assert!(
        message.contains("expected an OpenCLIP with CLIP's text tower, XLM-R or NLLB, found no tensor"),
        "{message}"
    );
}
