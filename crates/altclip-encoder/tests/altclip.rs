//! Tests AltCLIP against the reference implementation, and assembled from separately trained parts.

mod common;

use std::collections::HashMap;

use altclip_encoder::altclip::{AltClip, AltClipConfig, AltClipTextTower, normalize};
use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::prompts;
use test_support::{MODULE_TOLERANCE, assert_close, golden_json, golden_tensors, normal};

fn clip_config() -> AltClipConfig {
    golden_json("alt_clip/config.json")
}

fn golden_inputs(golden: &HashMap<String, Tensor>) -> (Tensor, Tensor) {
    let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
    (u32s("input_ids"), u32s("attention_mask"))
}

fn check_against_golden(clip: &AltClip) {
    let golden = golden_tensors("alt_clip/golden.safetensors");
    let (input_ids, mask) = golden_inputs(&golden);
    let text = clip.encode_text(&input_ids, &mask).unwrap();
    let image = clip.encode_image(&golden["pixel_values"]).unwrap();
    assert_close("text_features", &text, &golden["text_features"], MODULE_TOLERANCE);
    assert_close("image_features", &image, &golden["image_features"], MODULE_TOLERANCE);
    assert_close("text_embeds", &normalize(&text).unwrap(), &golden["text_embeds"], MODULE_TOLERANCE);
    assert_close("image_embeds", &normalize(&image).unwrap(), &golden["image_embeds"], MODULE_TOLERANCE);
    assert_close(
        "logits_per_image",
        &clip.similarity(&image, &text).unwrap(),
        &golden["logits_per_image"],
        MODULE_TOLERANCE,
    );
}

#[test]
fn embeddings_and_logits_are_those_of_the_reference() {
    let vb = common::weights("alt_clip/model.safetensors", DType::F32);
    check_against_golden(&AltClip::new(&clip_config(), vb).unwrap());
}

#[test]
fn towers_that_are_stored_apart_are_the_same_model() {
    let config = clip_config();
    // The text tower, named as in a diffusion model.
    let text: HashMap<String, Tensor> = golden_tensors("alt_clip/model.safetensors")
        .into_iter()
        .map(|(name, tensor)| (name.trim_start_matches("text_model.").to_owned(), tensor))
        .collect();
    let text = VarBuilder::from_tensors(text, DType::F32, &Device::Cpu);
    let vision = common::weights("alt_clip/model.safetensors", DType::F32);
    let vision_config = VisionConfig { projection_dim: config.projection_dim, ..config.vision_config };
    let clip = AltClip::from_towers(
        AltClipTextTower::new(
            &config.text_config,
            config.projection_dim,
            text.clone(),
            text.pp("text_projection"),
        )
        .unwrap(),
        ClipVisionTower::new(&vision_config, vision).unwrap(),
        text.get((), "logit_scale").unwrap(),
    );
    check_against_golden(&clip);
}

#[test]
fn a_field_left_out_has_its_value_in_transformers() {
    let config = clip_config();
    let encoder = &config.text_config.encoder;
    // With the file's values, which are only the differences, and without.
    assert_eq!(
        (encoder.vocab_size, encoder.max_position_embeddings, config.text_config.project_dim),
        (120, 40, 20)
    );
    assert_eq!((encoder.type_vocab_size, encoder.layer_norm_eps, encoder.pad_token_id), (1, 1e-5, 1));
    let config: AltClipConfig = serde_json::from_str(r#"{"text_config": {}, "vision_config": {}}"#).unwrap();
    let encoder = &config.text_config.encoder;
    assert_eq!(
        (encoder.vocab_size, encoder.num_hidden_layers, config.text_config.project_dim),
        (250_002, 24, 768)
    );
    assert_eq!((config.vision_config.patch_size, config.projection_dim), (32, 768));

    let parse = |json: &str| serde_json::from_str::<AltClipConfig>(json).unwrap_err().to_string();
    let message = parse(r#"{"text_config": {"hidden_size": 15}, "vision_config": {}}"#);
    assert!(message.contains("hidden_size 15 is not a multiple"), "{message}");

    let json = serde_json::to_string(&clip_config()).unwrap();
    assert_eq!(serde_json::from_str::<AltClipConfig>(&json).unwrap(), clip_config());
}

#[test]
fn every_weight_gets_a_gradient_from_the_contrastive_logits() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let clip = AltClip::new(&clip_config(), vb).unwrap();
    let (input_ids, mask) = prompts(&[3, 9, 12], 12, 120);
    let text = clip.encode_text(&input_ids, &mask).unwrap();
    let image = clip.encode_image(&normal(1, &[3, 3, 28, 28])).unwrap();
    let logits = clip.similarity(&image, &text).unwrap();
    let labels = Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap();
    let gradients = candle_nn::loss::cross_entropy(&logits, &labels).unwrap().backward().unwrap();
    for (name, variable) in variables.data().lock().unwrap().iter() {
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} has none"));
        assert!(gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0., "{name}");
    }
}
