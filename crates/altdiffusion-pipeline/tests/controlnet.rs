//! Compares ControlNets with golden values of diffusers 0.31.

mod common;

use std::path::Path;

use altdiffusion_pipeline::controlnet::{ChannelOrder, ControlNetConfig, ControlNetModel};
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::{Error, PerBlock};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{VarBuilder, VarMap};
use common::{ROUNDING, assert_gradient_is_slope, model};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use test_support::{MODULE_TOLERANCE, assert_close, golden, golden_tensors, normal, relative_error};

const WEIGHTS: &str = "diffusion_pytorch_model.fp16.safetensors";

fn load(name: &str) -> ControlNetModel {
    let source = ModelSource::directory(golden("controlnet").join(name));
    ControlNetModel::from_source(&source, DType::F32, &Device::Cpu).unwrap()
}

fn config_and_weights(name: &str) -> (ControlNetConfig, VarBuilder<'static>) {
    let folder = golden("controlnet").join(name);
    let config = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let weights = safetensors::load(folder.join(WEIGHTS), &Device::Cpu).unwrap();
    (config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))
}

/// Compares all residuals with the reference.
fn assert_adds_as_the_reference(name: &str, net: &ControlNetModel) {
    let golden = golden_tensors("controlnet/residuals.safetensors");
    for case in ["even", "odd"] {
        let value = |part: &str| &golden[&format!("{name}.{case}.{part}")];
        let context = net.project_context(value("encoder_hidden_states"), None).unwrap();
        let condition = net.embed_image(value("controlnet_cond")).unwrap();
        let found = net.forward(value("sample"), value("timesteps"), &context, &condition).unwrap();
        for (place, residual) in found.down().unwrap().iter().enumerate() {
            assert_close(
                &format!("{name}.{case}.{place}"),
                residual,
                value(&format!("down.{place}")),
                MODULE_TOLERANCE,
            );
        }
        assert_close(&format!("{name}.{case}.mid"), &found.mid().unwrap(), value("mid"), MODULE_TOLERANCE);
        assert!(!golden.contains_key(&format!("{name}.{case}.down.{}", found.down().unwrap().len())));
    }
}

#[test]
fn adds_as_the_reference() {
    for name in ["sd1", "sd2"] {
        assert_adds_as_the_reference(name, &load(name));
    }
}

/// In the original naming and in diffusers', with a prefix and without.
#[test]
fn a_single_file_says_what_it_is() {
    let file = golden("controlnet/single.pth");
    let load = |path: &Path| ControlNetModel::from_file(path, DType::F32, &Device::Cpu).unwrap();
    assert_adds_as_the_reference("single", &load(&file));

    let names = std::fs::read(golden("controlnet/single.json")).unwrap();
    let names: Vec<(String, String, Vec<usize>)> = serde_json::from_slice(&names).unwrap();
    let stored = Checkpoint::from_file(&file).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for diffusers_naming in [false, true] {
        let renamed = names.iter().map(|(diffusers, ldm, _)| {
            let tensor = stored.tensor(&format!("control_model.{ldm}"), DType::F16, &Device::Cpu).unwrap();
            (if diffusers_naming { diffusers } else { ldm }.clone(), tensor)
        });
        let path = directory.path().join(format!("{diffusers_naming}.safetensors"));
        safetensors::save(&renamed.collect(), &path).unwrap();
        assert_adds_as_the_reference("single", &load(&path));
    }
}

/// One image equals that image repeated for the batch, and a batch equals its members.
#[test]
fn an_image_is_for_all_or_for_one() {
    let net = load("sd2");
    let (sample, states, pixels) =
        (normal(1, &[3, 4, 4, 6]), normal(2, &[3, 5, 20]), normal(3, &[1, 3, 32, 48]));
    let timesteps = Tensor::new(&[1f32, 500.0, 981.0], &Device::Cpu).unwrap();
    let context = net.project_context(&states, None).unwrap();
    let forward = |pixels: &Tensor| {
        let condition = net.embed_image(pixels).unwrap();
        net.forward(&sample, &timesteps, &context, &condition).unwrap()
    };
    let together = forward(&pixels);
    let each = forward(&pixels.repeat((3, 1, 1, 1)).unwrap());
    assert!(relative_error(&each.mid().unwrap(), &together.mid().unwrap()) < ROUNDING);
    for i in 0..3 {
        let one = |tensor: &Tensor| tensor.narrow(0, i, 1).unwrap();
        let context = net.project_context(&one(&states), None).unwrap();
        let condition = net.embed_image(&pixels).unwrap();
        let alone = net.forward(&one(&sample), &one(&timesteps), &context, &condition).unwrap();
        for (alone, together) in alone.down().unwrap().iter().zip(together.down().unwrap()) {
            assert!(relative_error(alone, &one(&together)) < ROUNDING);
        }
    }
}

#[test]
fn colours_may_come_the_other_way_round() {
    let (config, weights) = config_and_weights("sd1");
    let other =
        ControlNetConfig { controlnet_conditioning_channel_order: ChannelOrder::Bgr, ..config.clone() };
    let (rgb, bgr) = (
        ControlNetModel::new(&config, weights.clone()).unwrap(),
        ControlNetModel::new(&other, weights).unwrap(),
    );
    let (sample, pixels) = (normal(1, &[1, 4, 2, 2]), normal(2, &[1, 3, 16, 16]));
    let turned = pixels.index_select(&Tensor::new(&[2u32, 1, 0], &Device::Cpu).unwrap(), 1).unwrap();
    let timesteps = Tensor::new(&[7f32], &Device::Cpu).unwrap();
    let mid = |net: &ControlNetModel, pixels: &Tensor| {
        let context = net.project_context(&normal(3, &[1, 4, 20]), None).unwrap();
        let condition = net.embed_image(pixels).unwrap();
        net.forward(&sample, &timesteps, &context, &condition).unwrap().mid().unwrap()
    };
    assert_eq!(relative_error(&mid(&bgr, &turned), &mid(&rgb, &pixels)), 0.0);
    assert!(relative_error(&mid(&bgr, &pixels), &mid(&rgb, &pixels)) > 1e-3);
}

/// A residual reaches every skip and the middle: it has the UNet's gradient, and zeros change nothing.
#[test]
fn every_weight_can_be_trained() {
    let (config, _) = config_and_weights("sd1");
    let (unet_config, unet_weights) = model::<UNet2DConditionConfig>("alt_diffusion/unet");
    let unet = UNet2DConditionModel::new(&unet_config, unet_weights).unwrap();
    let variables = VarMap::new();
    let weights = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let net = ControlNetModel::new(&config, weights).unwrap();
    let (sample, noise, states) =
        (normal(1, &[2, 4, 4, 6]), normal(2, &[2, 4, 4, 6]), normal(3, &[2, 5, 20]));
    let pixels = normal(4, &[2, 3, 32, 48]);
    let steps = Tensor::new(&[10f32, 900.0], &Device::Cpu).unwrap();
    let predict = |scale: f64| {
        let context = net.project_context(&states, None).unwrap();
        let condition = net.embed_image(&pixels).unwrap();
        let residuals = net.forward(&sample, &steps, &context, &condition).unwrap().scaled(scale).unwrap();
        let context = unet.project_context(&states, None).unwrap();
        unet.forward_with_residuals(&sample, &steps, &context, Some(&residuals)).unwrap()
    };
    assert_gradient_is_slope(&variables, || {
        (predict(0.5) - &noise).unwrap().sqr().unwrap().mean_all().unwrap()
    });
    let plain = unet.forward_with_hidden_states(&sample, &steps, &states).unwrap();
    assert_eq!(relative_error(&predict(0.0), &plain), 0.0);
    assert!(relative_error(&predict(1.0), &plain) > 1e-2);
}

#[test]
fn bad_configurations_and_tensors_are_named() {
    let (config, weights) = config_and_weights("sd1");
    let message = |change: &dyn Fn(&mut ControlNetConfig)| {
        let mut config = config.clone();
        change(&mut config);
        ControlNetModel::new(&config, weights.clone()).unwrap_err().to_string()
    };
    assert!(message(&|config| config.conditioning_channels = 1).contains("`conditioning_channels` is 1"));
    assert!(
        message(&|config| config.conditioning_embedding_out_channels.clear())
            .contains("`conditioning_embedding_out_channels`")
    );
    assert!(message(&|config| config.block_out_channels.clear()).contains("ControlNetModel config"));
    assert!(message(&|config| config.attention_head_dim = PerBlock::Same(3)).contains("divides"));
    assert!(
        message(&|config| {
            config.other.insert("addition_embed_type".into(), "text_time".into());
        })
        .contains("`addition_embed_type` is \"text_time\"; expected null")
    );
    assert!(message(&|config| config.layers_per_block = 3).contains("down_blocks.0.resnets.2"));
    assert!(message(&|config| config.cross_attention_dim = 24).contains("attn2.to_k.weight"));

    let net = ControlNetModel::new(&config, weights).unwrap();
    for shape in [&[1, 4, 16, 16][..], &[3, 16, 16]] {
        let error = net.embed_image(&normal(0, shape)).unwrap_err();
        assert!(matches!(error, Error::Shape { tensor: "pixels", .. }), "{error}");
    }
    let context = net.project_context(&normal(0, &[2, 7, 20]), None).unwrap();
    let steps = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    let run = |sample: &[usize], pixels: &[usize]| {
        let condition = net.embed_image(&normal(0, pixels)).unwrap();
        match net.forward(&normal(0, sample), &steps, &context, &condition).unwrap_err() {
            Error::Shape { tensor, .. } => tensor,
            error => panic!("{error}"),
        }
    };
    assert_eq!(run(&[2, 9, 4, 4], &[1, 3, 32, 32]), "sample");
    assert_eq!(run(&[2, 4, 4, 4], &[1, 3, 32, 24]), "condition");
    assert_eq!(run(&[2, 4, 4, 4], &[3, 3, 32, 32]), "condition");
}

/// The error names the field that keeps a ControlNet from fitting a UNet.
#[test]
fn what_was_made_for_another_unet_is_refused() {
    let (unet_config, unet_weights) = model::<UNet2DConditionConfig>("alt_diffusion/unet");
    let unet = UNet2DConditionModel::new(&unet_config, unet_weights).unwrap();
    load("sd1").check_fits(unet.config()).unwrap();
    let error = load("sd2").check_fits(unet.config()).unwrap_err().to_string();
    assert!(error.contains("`block_out_channels` is [8, 12, 12, 16]; expected [8, 12, 16, 16]"), "{error}");
    let single = ControlNetModel::from_file(&golden("controlnet/single.pth"), DType::F32, &Device::Cpu);
    let error = single.unwrap().check_fits(unet.config()).unwrap_err().to_string();
    assert!(error.contains("`block_out_channels` is [32]"), "{error}");
}

#[test]
fn what_is_no_controlnet_is_refused() {
    let unet = ModelSource::directory(golden("alt_diffusion/unet"));
    let error = ControlNetModel::from_source(&unet, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(
        error.contains("`_class_name` is \"UNet2DConditionModel\", expected \"ControlNetModel\""),
        "{error}"
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), "{}").unwrap();
    let weights = golden("alt_diffusion/unet/diffusion_pytorch_model.safetensors");
    std::fs::copy(&weights, directory.path().join("model.safetensors")).unwrap();
    let unnamed = ModelSource::directory(directory.path());
    for error in [
        ControlNetModel::from_source(&unnamed, DType::F32, &Device::Cpu).unwrap_err(),
        ControlNetModel::from_file(&weights, DType::F32, &Device::Cpu).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.contains("expected a ControlNet, found no tensor controlnet_cond_embedding"),
            "{error}"
        );
    }
}
