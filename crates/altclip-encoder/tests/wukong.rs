//! Compares Wukong's forms, as their authors publish them, with their own code.

use std::fs;

use altclip_encoder::altclip::normalize;
use altclip_encoder::dual_encoder::{self, DualEncoder, Family, TextTokens};
use altclip_encoder::{ErrorKind, ModelSource};
use candle_core::{DType, Device, Tensor};
use test_support::{MODULE_TOLERANCE, assert_close, golden, golden_tensors};

fn source(form: &str) -> ModelSource {
    ModelSource::directory(golden("wukong").join(form))
}

fn load(form: &str) -> Box<dyn DualEncoder> {
    dual_encoder::load(&source(form), DType::F32, &Device::Cpu).unwrap()
}

fn u32s(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::U32).unwrap()
}

#[test]
fn vectors_are_those_of_the_authors() {
    let golden = golden_tensors("wukong/clip/golden.safetensors");
    let (ids, mask) = (u32s(&golden["input_ids"]), u32s(&golden["attention_mask"]));
    assert_eq!(Family::of(&source("clip")).unwrap(), Family::Wukong);
    let model = load("clip");
    assert!(model.token_wise().is_none());
    assert_eq!((model.max_tokens(), model.image_size(), model.projection_dim()), (32, 20, 64));
    let text = model.encode_text(&ids, &mask).unwrap();
    let image = model.encode_image(&golden["pixel_values"]).unwrap();
    assert_close("text", &text, &golden["text_embeds"], MODULE_TOLERANCE);
    assert_close("image", &image, &golden["image_embeds"], MODULE_TOLERANCE);
    let unit = |x: &Tensor| normalize(x).unwrap();
    let cosines = unit(&image).matmul(&unit(&text).t().unwrap()).unwrap();
    let logits = (cosines * f64::from(model.logit_scale())).unwrap();
    assert_close("logits", &logits, &golden["logits_per_image"], MODULE_TOLERANCE);

    // A text's vector does not depend on its padding.
    let alone = |x: &Tensor| x.narrow(0, 2, 1).unwrap().narrow(1, 0, 3).unwrap().contiguous().unwrap();
    let alone = model.encode_text(&alone(&ids), &alone(&mask)).unwrap();
    assert_close("alone", &alone, &golden["text_embeds"].narrow(0, 2, 1).unwrap(), MODULE_TOLERANCE);
}

#[test]
fn tokens_and_their_similarities_are_those_of_the_authors() {
    for form in ["filip", "reduced"] {
        let golden = golden_tensors(&format!("wukong/{form}/golden.safetensors"));
        let (ids, mask) = (u32s(&golden["input_ids"]), u32s(&golden["attention_mask"]));
        let model = load(form);
        let tokens = model.token_wise().unwrap();
        let texts = tokens.encode_text_tokens(&ids, &mask).unwrap();
        let shown = mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
        let padded = texts.broadcast_mul(&shown).unwrap();
        assert_close("texts", &padded, &golden["text_tokens"], MODULE_TOLERANCE);
        let images = tokens.encode_image_tokens(&golden["pixel_values"]).unwrap();
        assert_close("images", &images, &golden["image_tokens"], MODULE_TOLERANCE);

        let texts = TextTokens::new(&texts, &mask, model.max_tokens()).unwrap();
        for image in 0..2 {
            let one = images.get(image).unwrap();
            let [to_texts, to_images] = texts.similarities(&one).unwrap();
            let expected = golden["image_to_text"].get(image).unwrap();
            assert_close("image to texts", &to_texts, &expected, MODULE_TOLERANCE);
            let expected = golden["text_to_image"].narrow(1, image, 1).unwrap().squeeze(1).unwrap();
            assert_close("texts to image", &to_images, &expected, MODULE_TOLERANCE);

            // Without its padding, a short text is still compared as one that has some.
            let alone =
                |x: &Tensor| x.narrow(0, 2, 1).unwrap().narrow(1, 0, 3).unwrap().contiguous().unwrap();
            let (ids, mask) = (alone(&ids), alone(&mask));
            let text = tokens.encode_text_tokens(&ids, &mask).unwrap();
            let text = TextTokens::new(&text, &mask, model.max_tokens()).unwrap();
            let [to_text, _] = text.similarities(&one).unwrap();
            let expected = golden["image_to_text"].get(image).unwrap().narrow(0, 2, 1).unwrap();
            assert_close("alone", &to_text, &expected, MODULE_TOLERANCE);
        }
        let error = model.encode_text(&ids, &mask).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains("expected token-wise similarity"), "{error}");
    }
}

#[cfg(feature = "tokenizer-json")]
#[test]
fn texts_have_the_ids_of_the_authors() {
    use altclip_encoder::Tokenizer;

    let tokenizer = Tokenizer::from_source(&source("clip"), "").unwrap();
    let cases: Vec<serde_json::Value> = test_support::golden_json("wukong/cases.json");
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let found = serde_json::to_value(tokenizer.encode(text).unwrap()).unwrap();
        assert_eq!(found, case["ids"], "{text:?}");
    }
    let texts: Vec<String> = test_support::golden_json("wukong/texts.json");
    let golden = golden_tensors("wukong/clip/golden.safetensors");
    let found = tokenizer.encode_padded(&texts, 32).unwrap();
    let expected = u32s(&golden["input_ids"]).to_vec2::<u32>().unwrap();
    assert_eq!(found.input_ids.to_vec2::<u32>().unwrap(), expected);
}

#[cfg(all(feature = "images", feature = "tokenizer-json"))]
#[test]
fn an_embedder_compares_tokens() {
    use altclip_encoder::Embedder;

    let embedder = Embedder::from_source(&source("reduced"), DType::F32, &Device::Cpu).unwrap();
    assert!(embedder.is_token_wise());
    let image = image::DynamicImage::new_rgb8(40, 30);
    let found = embedder.token_similarities(&[image.clone(), image], &["猫", "a cat", ""]).unwrap();
    assert_eq!((found.of_images.dims(), found.of_texts.dims()), (&[2, 3][..], &[2, 3][..]));
    let error = embedder.embed_texts(&["猫"]).unwrap_err().to_string();
    assert!(error.contains("a vector for each token"), "{error}");
}

#[test]
fn what_does_not_fit_is_one_line() {
    let error = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("wukong.pkl"), bytes).unwrap();
        let source = ModelSource::directory(folder.path());
        let error = dual_encoder::load(&source, DType::F32, &Device::Cpu).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let message = error(&fs::read(golden("dual_encoders/clip/model.safetensors")).unwrap());
    assert!(message.contains("expected Wukong, found no tensor transformer.text_projection"), "{message}");
    let whole = fs::read(golden("wukong/filip/wukong_filip.pkl")).unwrap();
    for length in [0, 1, 2, 100, whole.len() / 2, whole.len() - 1] {
        error(&whole[..length]);
    }
}
