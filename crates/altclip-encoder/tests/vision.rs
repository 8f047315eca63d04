//! Compares the image tower with the reference implementation, and with itself.

mod common;

use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use test_support::{MODULE_TOLERANCE, assert_close, golden_json, golden_tensors, normal};

/// One golden tower per activation: AltCLIP's ViT-L and AltCLIP-m18's ViT-H.
const TOWERS: [&str; 2] = ["image_tower/quick_gelu", "image_tower/gelu"];

fn tower_config(folder: &str) -> VisionConfig {
    golden_json(&format!("{folder}/config.json"))
}

fn tower(folder: &str, dtype: DType) -> ClipVisionTower {
    let vb = common::weights(&format!("{folder}/model.safetensors"), dtype);
    ClipVisionTower::new(&tower_config(folder), vb).unwrap()
}

#[test]
fn embeddings_and_hidden_states_are_those_of_the_reference() {
    for folder in TOWERS {
        let golden = golden_tensors(&format!("{folder}/golden.safetensors"));
        let (tower, pixels) = (tower(folder, DType::F32), &golden["pixel_values"]);
        assert_close(
            "image_embeds",
            &tower.forward(pixels).unwrap(),
            &golden["image_embeds"],
            MODULE_TOLERANCE,
        );
        let hidden = tower.vision_model().hidden_states(pixels).unwrap();
        assert_close("last_hidden_state", &hidden, &golden["last_hidden_state"], MODULE_TOLERANCE);
    }
}

#[test]
fn half_precision_is_close_to_single() {
    for folder in TOWERS {
        let golden = golden_tensors(&format!("{folder}/golden.safetensors"));
        for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 1e-2)] {
            let embeddings = tower(folder, dtype).forward(&golden["pixel_values"]).unwrap();
            assert_eq!(embeddings.dtype(), DType::F32); // on the CPU only the weights are in half precision
            assert_close("image_embeds", &embeddings, &golden["image_embeds"], tolerance);
        }
    }
}

#[test]
fn a_batch_does_not_change_its_members() {
    let tower = tower(TOWERS[0], DType::F32);
    let pixels = normal(1, &[3, 3, 28, 28]);
    let batch = tower.forward(&pixels).unwrap();
    for index in 0..3 {
        let alone = tower.forward(&pixels.narrow(0, index, 1).unwrap()).unwrap();
        assert_close("batch", &batch.narrow(0, index, 1).unwrap(), &alone, 1e-6);
    }
}

#[test]
fn every_weight_gets_a_gradient() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let tower = ClipVisionTower::new(&tower_config(TOWERS[0]), vb).unwrap();
    let embeddings = tower.forward(&normal(2, &[2, 3, 28, 28])).unwrap();
    let loss = (&embeddings * normal(3, embeddings.dims())).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (name, variable) in variables.data().lock().unwrap().iter() {
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} has none"));
        assert!(gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0., "{name}");
    }
}

#[test]
fn images_of_another_size_are_refused() {
    let tower = tower(TOWERS[0], DType::F32);
    let error = tower.forward(&normal(4, &[1, 3, 21, 28])).unwrap_err().to_string();
    assert!(error.contains("28×21 pixels, the image tower expects 28×28"), "{error}");
    let error = tower.forward(&normal(5, &[1, 4, 28, 28])).unwrap_err().to_string();
    assert!(error.contains("4 channels, the image tower expects 3"), "{error}");
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let config = tower_config(TOWERS[0]);
    let error = |config: VisionConfig| config.check().unwrap_err();
    assert!(error(VisionConfig { patch_size: 0, ..config.clone() }).contains("patch_size is 0"));
    assert!(error(VisionConfig { image_size: 3, ..config.clone() }).contains("image_size 3"));
    assert!(error(VisionConfig { hidden_size: 15, ..config.clone() }).contains("hidden_size 15"));
    assert!(error(VisionConfig { num_channels: 0, ..config.clone() }).contains("num_channels is 0"));
    assert!(error(VisionConfig { layer_norm_eps: -1., ..config }).contains("layer_norm_eps"));
}
