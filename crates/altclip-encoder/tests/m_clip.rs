//! Compares text towers that were taught a CLIP's vectors with their own implementations: M-CLIP's and
//! sentence-transformers'.

mod common;

use std::fs;

use altclip_encoder::dual_encoder::{self, Family};
use altclip_encoder::{Embedder, ErrorKind, ModelSource};
use candle_core::{DType, Device};
use common::outputs::{self, check_half_precision, check_outputs};
use tempfile::TempDir;
use test_support::{MODULE_TOLERANCE, assert_close, copy_directory, golden, golden_tensors};

const MODELS: [(&str, Family); 2] = [("xlm_roberta", Family::MClip), ("distilbert", Family::DistilBertClip)];

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("mclip").join(model))
}

#[test]
fn vectors_are_those_of_the_authors() {
    for (name, family) in MODELS {
        assert_eq!(Family::of(&source(name)).unwrap(), family);
        let folder = format!("mclip/{name}");
        check_outputs(&*outputs::load(&folder, DType::F32), &folder, MODULE_TOLERANCE);
    }
}

#[test]
fn half_precision_is_better_than_that_of_the_authors() {
    check_half_precision(&MODELS.map(|(name, _)| format!("mclip/{name}")));
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn texts_are_cut_where_sentence_transformers_cuts_them() {
    let embedder = Embedder::from_source(&source("distilbert"), DType::F32, &Device::Cpu).unwrap();
    let texts: Vec<String> = test_support::golden_json("mclip/distilbert/texts.json");
    let expected = golden_tensors("mclip/distilbert/golden.safetensors");
    assert_eq!(embedder.max_tokens(), 24);
    assert_close("texts", &embedder.embed_texts(&texts).unwrap(), &expected["text_embeds"], MODULE_TOLERANCE);
}

#[test]
fn a_clip_may_be_a_module_of_sentence_transformers() {
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&golden("dual_encoders/clip"), &folder.path().join("0_CLIPModel")).unwrap();
    fs::copy(golden("mclip/sentence_clip/modules.json"), folder.path().join("modules.json")).unwrap();
    let source = ModelSource::directory(folder.path());
    assert_eq!(Family::of(&source).unwrap(), Family::SentenceClip);
    let model = dual_encoder::load(&source, DType::F32, &Device::Cpu).unwrap();
    let ids = golden_tensors("dual_encoders/clip/golden.safetensors");
    let u32s = |name: &str| ids[name].to_dtype(DType::U32).unwrap();
    let text = model.encode_text(&u32s("input_ids"), &u32s("attention_mask")).unwrap();
    let expected = golden_tensors("mclip/sentence_clip/golden.safetensors");
    assert_close("text", &text, &expected["text_embeds"], MODULE_TOLERANCE);
}

/// A copy of a model with a file changed, or removed if there is no text.
fn changed(model: &str, file: &str, text: Option<&str>) -> (TempDir, ModelSource) {
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&golden("mclip").join(model), folder.path()).unwrap();
    let file = folder.path().join(file);
    match text {
        Some(text) => fs::write(file, text).unwrap(),
        None => fs::remove_file(file).unwrap(),
    }
    let source = ModelSource::directory(folder.path());
    (folder, source)
}

#[test]
fn what_does_not_fit_is_one_line() {
    let m_clip = |dims: usize, hidden: usize| {
        format!(r#"{{"model_type": "M-CLIP", "numDims": {dims}, "transformerDimensions": {hidden}}}"#)
    };
    let dense = |activation: &str| {
        format!(
            r#"{{"in_features": 20, "out_features": 11, "bias": false, "activation_function": "{activation}"}}"#
        )
    };
    let (other_clip, other_width) = (m_clip(12, 64), m_clip(11, 32));
    let tanh = dense("torch.nn.modules.activation.Tanh");
    let pooled = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
    let modules =
        r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]"#;
    let cases: [(&str, &str, Option<&str>, &[&str]); 7] = [
        ("xlm_roberta", "config.json", Some(&other_clip), &["12", "11", "the CLIP that the text tower"]),
        ("xlm_roberta", "config.json", Some(&other_width), &["transformerDimensions is 32", "64"]),
        ("xlm_roberta", "image_encoder/config.json", None, &["image_encoder/config.json"]),
        ("distilbert", "1_Pooling/config.json", Some(pooled), &["pooling_mode_cls_token"]),
        ("distilbert", "2_Dense/config.json", Some(&tanh), &["activation_function", "Tanh"]),
        ("distilbert", "modules.json", Some(modules), &["Transformer, expected Transformer, Pooling, Dense"]),
        ("distilbert", "modules.json", None, &["distilbert", "expected one of"]),
    ];
    for (model, file, text, expected) in cases {
        let (_folder, source) = changed(model, file, text);
        let error = dual_encoder::load(&source, DType::F32, &Device::Cpu).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File, "{error}");
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        for part in expected {
            assert!(message.contains(part), "{part:?} in {message}");
        }
    }
}
