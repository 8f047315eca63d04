//! Trains text towers with teachers and image towers of every family.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use altclip_encoder::{DualEncoder, Embedder, ModelSource, dual_encoder};
use candle_core::{DType, Device, Tensor};
use common::workshop::{Workshop, error_of, lines};
use common::{golden_model, run};
use test_support::{TestResult, assert_close, golden, golden_tensors};

const FEW_STEPS: [&str; 2] = ["--set", "stage.optimizer.steps=2"];

/// Golden models with a tokenizer, and whether a model in AltCLIP's layout can have their image tower.
const MODELS: [(&str, bool); 9] = [
    ("dual_encoders/clip", true),
    ("dual_encoders/chinese_clip", true),
    ("dual_encoders/taiyi", true),
    ("mclip/distilbert", true),
    ("siglip/base", false),
    ("open_clip_own/base", false),
    ("nllb_clip/base", false),
    ("r2d2/r2d2", false),
    ("wukong/clip", false),
];

fn load(folder: impl AsRef<Path>) -> TestResult<Box<dyn DualEncoder>> {
    Ok(dual_encoder::load(&ModelSource::directory(folder.as_ref()), DType::F32, &Device::Cpu)?)
}

/// A workshop whose student has vectors of `dim` values, and in which no length of texts is set.
fn workshop(dim: usize) -> TestResult<Workshop> {
    let workshop = Workshop::new()?;
    let change = |file: &str, from: &str, to: &str| -> TestResult {
        let text = fs::read_to_string(workshop.path(file))?;
        assert!(text.contains(from), "{file}: {text}");
        Ok(fs::write(workshop.path(file), text.replace(from, to))?)
    };
    change("student/config.json", "\"projection_dim\": 128", &format!("\"projection_dim\": {dim}"))?;
    change("teacher.toml", "max_tokens = 32\n", "")?;
    Ok(workshop)
}

fn set(name: &str, value: &str) -> [String; 2] {
    ["--set".to_owned(), format!("{name}={value:?}")]
}

/// Whether the trained model has an image tower; it has the rest in any case.
fn has_image_tower(workshop: &Workshop) -> TestResult<bool> {
    let weights = candle_core::safetensors::load(workshop.path("run/model/model.safetensors"), &Device::Cpu)?;
    assert!(weights.contains_key("logit_scale") && weights.contains_key("text_projection.weight"));
    Ok(weights.contains_key("visual_projection.weight"))
}

/// Checks that the trained model has the image tower of `model`.
fn check_images(workshop: &Workshop, model: &str) -> TestResult {
    let trained = load(workshop.path("run/model"))?;
    let pixels = golden_tensors(&format!("{model}/golden.safetensors"))["pixel_values"].clone();
    let expected = load(golden(model))?.encode_image(&pixels)?;
    assert_close(model, &trained.encode_image(&pixels)?, &expected, 1e-6);
    // With the way its images are prepared.
    let embedder =
        Embedder::from_source(&ModelSource::directory(workshop.path("run/model")), DType::F32, &Device::Cpu)?;
    assert_eq!(embedder.embed_images(&[image::DynamicImage::new_rgb8(30, 20)])?.dim(0)?, 1);
    Ok(())
}

#[test]
fn any_family_can_be_the_teacher() -> TestResult {
    for (model, has_clips_tower) in MODELS {
        let workshop = workshop(load(golden(model))?.projection_dim())?;
        let [option, teacher] = set("teacher", &golden_model(model)?);
        let output =
            workshop.teacher("run", &[&FEW_STEPS[..], &[option.as_str(), teacher.as_str()]].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{model}: {stderr}");
        assert_eq!(lines(&workshop.path("run/teacher/metrics.jsonl")), 2, "{model}");
        assert_eq!(has_image_tower(&workshop)?, has_clips_tower, "{model}");
        assert_eq!(stderr.contains("the result has only texts"), !has_clips_tower, "{model}: {stderr}");
        if has_clips_tower {
            check_images(&workshop, model)?;
        }
    }
    Ok(())
}

#[test]
fn an_nllb_clip_teaches_in_the_language_asked_for() -> TestResult {
    let workshop = workshop(12)?;
    let [option, teacher] = set("teacher", &golden_model("nllb_clip/base")?);
    let base = [&FEW_STEPS[..], &[option.as_str(), teacher.as_str()]].concat();
    let vectors = |more: &[&str], folder: &str| -> TestResult<Vec<f32>> {
        let output = workshop.teacher(folder, &[&base[..], more].concat())?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = workshop.path(folder).join("teacher-vectors.safetensors");
        let tensors = candle_core::safetensors::load(file, &Device::Cpu)?;
        Ok(tensors["vectors"].flatten_all()?.to_vec1()?)
    };
    let english = vectors(&["--set", "teacher_language=eng_Latn"], "run")?;
    assert_eq!(vectors(&[], "default")?, english);
    assert_ne!(vectors(&["--set", "teacher_language=zho_Hans"], "chinese")?, english);
    let unknown = [&base[..], &["--set", "teacher_language=tlh_Piqd"]].concat();
    let error = error_of(&workshop.teacher("other", &unknown)?);
    assert!(error.contains("no language \"tlh_Piqd\""), "{error}");
    Ok(())
}

#[test]
fn what_cannot_teach_is_one_line() -> TestResult {
    let workshop = workshop(12)?;
    let error = |settings: &[[String; 2]]| -> TestResult<String> {
        let more: Vec<&str> = settings.iter().flatten().map(String::as_str).collect();
        Ok(error_of(&workshop.teacher("run", &more)?))
    };
    let found = error(&[set("teacher", &golden_model("wukong/filip")?)])?;
    assert!(found.starts_with("error: teacher: ") && found.contains("a vector for each token"), "{found}");
    let found = error(&[set("teacher", &golden_model("siglip/base")?)])?;
    assert_eq!(found, "error: student: its vectors have 12 values, expected 18 as the teacher's");
    let teacher = set("teacher", &golden_model("open_clip_own/base")?);
    let found = error(&[teacher, ["--set".to_owned(), "stage.max_tokens=77".to_owned()]])?;
    assert!(found.contains("stage.max_tokens: expected 2 to 38") && found.contains("found 77"), "{found}");
    Ok(())
}

#[test]
fn any_family_can_have_the_image_tower() -> TestResult {
    for (model, has_clips_tower) in
        [("siglip/base", false), ("dual_encoders/clip", true), ("r2d2/r2d2", false)]
    {
        let workshop = workshop(load(golden(model))?.projection_dim())?;
        workshop.write_contrastive()?;
        let [option, image_model] = set("image_model", &golden_model(model)?);
        let arguments =
            ["train", "contrastive", "--config", "run.toml", "--device", "cpu", "--output", "run"];
        let more = ["--set", "model=student", option.as_str(), image_model.as_str()];
        let output = run(workshop.0.path(), &[&arguments[..], &more[..]].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{model}: {stderr}");
        assert_eq!(lines(&workshop.path("run/contrastive/metrics.jsonl")), 3, "{model}");
        assert_eq!(has_image_tower(&workshop)?, has_clips_tower, "{model}");
        if has_clips_tower {
            check_images(&workshop, model)?;
        }
    }
    Ok(())
}

#[test]
fn a_model_without_a_scale_begins_with_that_of_the_image_tower() -> TestResult {
    for (model, expected) in [
        ("dual_encoders/clip", load(golden("dual_encoders/clip"))?.logit_scale().ln()),
        ("siglip/base", 2.6592),
    ] {
        let workshop = workshop(load(golden(model))?.projection_dim())?;
        workshop.write_contrastive()?;
        // The student's only weight is its scale.
        let other = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
        let file = workshop.path("student/model.safetensors");
        candle_core::safetensors::save(&HashMap::from([("other", other)]), file)?;
        let [option, image_model] = set("image_model", &golden_model(model)?);
        let arguments =
            ["train", "contrastive", "--config", "run.toml", "--device", "cpu", "--output", "run"];
        let settings = ["--set", "model=student", "--set", "stage.optimizer.learning_rate=1e-9"];
        let more = [&settings[..], &[option.as_str(), image_model.as_str()]].concat();
        let output = run(workshop.0.path(), &[&arguments[..], &more[..]].concat())?;
        assert!(output.status.success(), "{model}: {}", String::from_utf8_lossy(&output.stderr));
        let weights =
            candle_core::safetensors::load(workshop.path("run/model/model.safetensors"), &Device::Cpu)?;
        let found = weights["logit_scale"].to_scalar::<f32>()?;
        assert!((found - expected).abs() < 1e-3, "{model}: {found}, expected {expected}");
    }
    Ok(())
}
