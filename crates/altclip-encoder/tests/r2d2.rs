//! Compares R2D2 and PRD2, as their authors publish them, with their own code.

use std::fs;

use altclip_encoder::altclip::normalize;
use altclip_encoder::dual_encoder::{self, DualEncoder, Family};
use altclip_encoder::{ErrorKind, ModelSource, Tokenizer};
use candle_core::{DType, Device, Tensor};
use test_support::{MODULE_TOLERANCE, assert_close, golden, golden_json, golden_tensors};

fn source(model: &str) -> ModelSource {
    ModelSource::directory(golden("r2d2").join(model))
}

fn load(model: &str) -> Box<dyn DualEncoder> {
    dual_encoder::load(&source(model), DType::F32, &Device::Cpu).unwrap()
}

fn texts() -> Vec<String> {
    golden_json("r2d2/texts.json")
}

#[test]
fn vectors_are_those_of_the_authors() {
    for name in ["r2d2", "prd2"] {
        assert_eq!(Family::of(&source(name)).unwrap(), Family::R2d2);
        let golden = golden_tensors(&format!("r2d2/{name}/golden.safetensors"));
        let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
        let (ids, mask) = (u32s("input_ids"), u32s("attention_mask"));
        let model = load(name);
        assert_eq!((model.max_tokens(), model.image_size(), model.projection_dim()), (64, 20, 12));
        assert_eq!(model.ranker().is_some(), name == "r2d2");
        // The reference's vectors are of length 1.
        let text = normalize(&model.encode_text(&ids, &mask).unwrap()).unwrap();
        let image = normalize(&model.encode_image(&golden["pixel_values"]).unwrap()).unwrap();
        assert_close("text", &text, &golden["text_embeds"], MODULE_TOLERANCE);
        assert_close("image", &image, &golden["image_embeds"], MODULE_TOLERANCE);
        let logits = (image.matmul(&text.t().unwrap()).unwrap() * f64::from(model.logit_scale())).unwrap();
        assert_close("logits", &logits, &golden["logits_per_image"], MODULE_TOLERANCE);
        // Padding rows are meaningless.
        let shown = mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
        let hidden = model.text_hidden_states(&ids, &mask).unwrap().broadcast_mul(&shown).unwrap();
        assert_close("states", &hidden, &golden["hidden_states"], MODULE_TOLERANCE);
    }
}

#[test]
fn the_ranker_scores_as_the_authors_do() {
    let golden = golden_tensors("r2d2/r2d2/golden.safetensors");
    let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
    let (ids, mask) = (u32s("input_ids"), u32s("attention_mask"));
    let model = load("r2d2");
    let ranker = model.ranker().unwrap();
    let images = ranker.image_hidden_states(&golden["pixel_values"]).unwrap();
    assert_close("states", &images, &golden["image_hidden_states"], MODULE_TOLERANCE);
    let texts = model.text_hidden_states(&ids, &mask).unwrap();
    for image in 0..2 {
        let states = images.narrow(0, image, 1).unwrap();
        let states = states.expand((7, 17, 128)).unwrap().contiguous().unwrap();
        let found = ranker.match_pairs(&texts, &mask, &states).unwrap();
        let expected = golden["scores"].narrow(0, image, 1).unwrap().squeeze(0).unwrap();
        assert_close("scores", &found, &expected, MODULE_TOLERANCE);

        // One pair alone, without padding.
        let alone = |x: &Tensor| x.narrow(0, 2, 1).unwrap().narrow(1, 0, 3).unwrap().contiguous().unwrap();
        let text = model.text_hidden_states(&alone(&ids), &alone(&mask)).unwrap();
        let found = ranker.match_pairs(
            &text,
            &alone(&mask),
            &images.narrow(0, image, 1).unwrap().contiguous().unwrap(),
        );
        assert_close("alone", &found.unwrap(), &expected.narrow(0, 2, 1).unwrap(), MODULE_TOLERANCE);
    }
    let error = load("prd2").ranker().map(|_| ()).is_none();
    assert!(error, "PRD2 does not rank");
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn texts_have_the_ids_of_the_authors() {
    let golden = golden_tensors("r2d2/r2d2/golden.safetensors");
    let tokenizer = Tokenizer::from_source(&source("r2d2"), "").unwrap();
    let found = tokenizer.encode_padded(&texts(), 64).unwrap();
    let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    assert_eq!(found.input_ids.to_vec2::<u32>().unwrap(), u32s("input_ids"));
    assert_eq!(found.attention_mask.to_vec2::<u32>().unwrap(), u32s("attention_mask"));
}

#[cfg(all(feature = "images", feature = "tokenizer-json"))]
#[test]
fn texts_and_images_are_ranked_as_they_are() {
    use altclip_encoder::Embedder;

    let embedder = Embedder::from_source(&source("r2d2"), DType::F32, &Device::Cpu).unwrap();
    let files = golden_tensors("r2d2/images.safetensors");
    let images = ["0", "1"].map(|name| {
        let (height, width, _) = files[name].dims3().unwrap();
        let bytes = files[name].flatten_all().unwrap().to_vec1::<u8>().unwrap();
        image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(width as u32, height as u32, bytes).unwrap())
    });
    let golden = golden_tensors("r2d2/r2d2/golden.safetensors");
    let prepared = embedder.image_processor().unwrap().preprocess_batch(&images).unwrap();
    assert_close("pixels", &prepared, &golden["pixel_values"], 1e-6);
    assert!(embedder.ranks());
    let scores = embedder.match_scores(&images, &texts()).unwrap();
    assert_close("scores", &scores, &golden["scores"], 1e-4);
    let vectors = normalize(&embedder.embed_texts(&texts()).unwrap()).unwrap();
    assert_close("texts", &vectors, &golden["text_embeds"], 1e-4);
}

#[test]
fn what_does_not_fit_is_one_line() {
    let error = |files: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in files {
            fs::copy(golden(from), folder.path().join(to)).unwrap();
        }
        let source = ModelSource::directory(folder.path());
        let error = dual_encoder::load(&source, DType::F32, &Device::Cpu).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let r2d2 = "r2d2/r2d2/r2d2_pretrain_250m.pth";
    let message = error(&[(r2d2, "a.pth"), ("r2d2/prd2/prd2_pretrain_250m.pth", "b.pth")]);
    assert!(message.contains("one file that ends in .pth, found a.pth and b.pth"), "{message}");
    let message = error(&[("dual_encoders/clip/model.safetensors", "clip.pth")]);
    assert!(message.contains("expected R2D2 or PRD2 under the key model, found no tensor"), "{message}");
    // A tokenizer's configuration beside the weights is not the model's.
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden(r2d2), folder.path().join("model.pth")).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    assert_eq!(Family::of(&ModelSource::directory(folder.path())).unwrap(), Family::R2d2);
}
