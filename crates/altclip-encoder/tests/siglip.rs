//! Compares SigLIP and SigLIP 2 with transformers.

mod common;

use std::fs;

use altclip_encoder::dual_encoder::{self, Family};
use altclip_encoder::{Embedder, ErrorKind, ModelSource, Tokenizer};
use candle_core::{DType, Device};
use common::outputs::{self, check_half_precision, check_outputs};
use serde::Deserialize;
use test_support::{MODULE_TOLERANCE, assert_close, copy_directory, golden, golden_json, golden_tensors};

const MODELS: [&str; 2] = ["base", "siglip2"];

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("siglip").join(model))
}

fn embedder(model: &str) -> Embedder {
    Embedder::from_source(&source(model), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn vectors_are_those_of_transformers() {
    for name in MODELS {
        assert_eq!(Family::of(&source(name)).unwrap(), Family::Siglip);
        let folder = format!("siglip/{name}");
        check_outputs(&*outputs::load(&folder, DType::F32), &folder, MODULE_TOLERANCE);
    }
}

#[test]
fn half_precision_is_better_than_that_of_transformers() {
    check_half_precision(&MODELS.map(|name| format!("siglip/{name}")));
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn ids_are_those_of_transformers() {
    let models: &[&str] = if cfg!(feature = "tokenizer-json") {
        &["base", "multilingual", "siglip2"]
    } else {
        &["base", "multilingual"]
    };
    for name in models {
        let tokenizer = Tokenizer::from_source(&source(name), "").unwrap();
        let cases: Vec<Case> = golden_json(&format!("siglip/{name}_cases.json"));
        assert!(cases.len() > 200);
        assert_eq!(tokenizer.bos_id(), None);
        for case in cases {
            assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{name}: {:?}", case.text);
        }
    }
}

#[cfg(all(feature = "tokenizer-json", feature = "images"))]
#[test]
fn texts_and_images_are_prepared_as_by_transformers() {
    for name in MODELS {
        let embedder = embedder(name);
        let expected = golden_tensors(&format!("siglip/{name}/golden.safetensors"));
        let texts: Vec<String> = golden_json(&format!("siglip/{name}/texts.json"));
        // Every text is padded to all positions, however long its neighbours are.
        let together = embedder.embed_texts(&texts).unwrap();
        assert_close(name, &together, &expected["text_embeds"], MODULE_TOLERANCE);
        let alone = embedder.embed_texts(&texts[1..2]).unwrap();
        assert_close(name, &alone, &expected["text_embeds"].narrow(0, 1, 1).unwrap(), MODULE_TOLERANCE);

        let image = golden_tensors(&format!("siglip/{name}/image.safetensors"));
        let (height, width, _) = image["image"].dims3().unwrap();
        let bytes = image["image"].flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let picture = image::RgbImage::from_raw(width as u32, height as u32, bytes).unwrap();
        let found = embedder.embed_images(&[image::DynamicImage::ImageRgb8(picture)]).unwrap();
        let prepared = image["prepared"].unsqueeze(0).unwrap();
        assert_close(
            name,
            &found,
            &outputs::load(&format!("siglip/{name}"), DType::F32).encode_image(&prepared).unwrap(),
            1e-4,
        );
    }
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn probabilities_say_whether_a_text_matches() {
    let embedder = embedder("base");
    let expected = golden_tensors("siglip/base/golden.safetensors");
    let logits = embedder.similarity(&expected["image_embeds"], &expected["text_embeds"]).unwrap();
    assert_close("logits", &logits, &expected["logits_per_image"], MODULE_TOLERANCE);
    // A relative error of 1e-5 in a logit of 20 is one of 2e-4 in its exponential.
    assert_close("each", &embedder.probabilities(&logits).unwrap(), &expected["probabilities"], 2e-4);
}

#[test]
fn what_does_not_fit_is_one_line() {
    let cases = [
        (r#""model_type": "siglip","#, r#""model_type": "siglip2","#, "NaFlex"),
        (r#""max_position_embeddings": 20"#, r#""max_position_embeddings": 21"#, "[21, 18]"),
        (r#""patch_size": 5"#, r#""patch_size": 0"#, "patch_size is 0"),
        (r#""patch_size": 5"#, r#""patch_size": 5, "vision_use_head": false"#, "vision_use_head"),
        (
            r#""vocab_size": 300"#,
            r#""vocab_size": 300, "projection_size": 17"#,
            "vectors of 17 values and images of 18",
        ),
    ];
    for (from, to, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        copy_directory(&golden("siglip/base"), folder.path()).unwrap();
        let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
        assert!(config.contains(from), "{from}");
        fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
        let source = ModelSource::directory(folder.path());
        let error = dual_encoder::load(&source, DType::F32, &Device::Cpu).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File, "{error}");
        let message = error.to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{expected:?} in {message}");
    }
}
