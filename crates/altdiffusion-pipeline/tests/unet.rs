//! Compares the UNet with golden values of diffusers 0.31, and with itself.

mod common;

use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::{Error, PerBlock};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::{ROUNDING, assert_gradient_is_slope, model};
use test_support::{MODULE_TOLERANCE, assert_close, golden_tensors, normal, relative_error};

fn load(folder: &str) -> UNet2DConditionModel {
    let (config, weights) = model::<UNet2DConditionConfig>(folder);
    UNet2DConditionModel::new(&config, weights).unwrap()
}

fn timesteps(steps: &[f32]) -> Tensor {
    Tensor::new(steps, &Device::Cpu).unwrap()
}

#[test]
fn predicts_as_the_reference() {
    let golden = golden_tensors("unet.safetensors");
    for repository in ["alt_diffusion", "alt_diffusion_m18"] {
        let unet = load(&format!("{repository}/unet"));
        for case in ["square", "wide", "batch", "ragged", "odd", "tiny"] {
            let value = |name: &str| &golden[&format!("{repository}.{case}.{name}")];
            let context = unet.project_context(value("encoder_hidden_states"), None).unwrap();
            let output = unet.forward(value("sample"), value("timesteps"), &context).unwrap();
            assert_close(&format!("{repository}.{case}"), &output, value("output"), MODULE_TOLERANCE);
        }
    }
}

/// Unusual settings, and a bias per key instead of a repeated or masked token.
#[test]
fn unusual_configurations_are_as_the_reference() {
    for name in ["unet_uneven", "unet_three_levels"] {
        let unet = load(&format!("variants/{name}"));
        let golden = golden_tensors(&format!("variants/{name}/golden.safetensors"));
        for case in ["even", "odd"] {
            let value = |name: &str| &golden[&format!("{case}.{name}")];
            let (sample, steps, states) =
                (value("sample"), value("timesteps"), value("encoder_hidden_states"));
            let output = unet.forward_with_hidden_states(sample, steps, states).unwrap();
            assert_close(&format!("{name}.{case}"), &output, value("output"), MODULE_TOLERANCE);
            // The third token of the first prompt counts twice, the last one of the second not at all.
            let (twice, hidden) = (2f32.ln(), f32::NEG_INFINITY);
            let bias =
                Tensor::new(&[[0.0, 0.0, twice, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, hidden]], &Device::Cpu)
                    .unwrap();
            let context = unet.project_context(states, Some(&bias)).unwrap();
            let output = unet.forward(sample, steps, &context).unwrap();
            assert_close(
                &format!("{name}.{case} with a bias"),
                &output,
                value("output_with_bias"),
                MODULE_TOLERANCE,
            );
        }
    }
}

#[test]
fn a_batch_does_not_change_its_members() {
    let unet = load("alt_diffusion_m18/unet");
    let (sample, states) = (normal(1, &[3, 4, 8, 16]), normal(2, &[3, 7, 20]));
    let steps = timesteps(&[1.0, 500.5, 981.0]);
    let together = unet.forward_with_hidden_states(&sample, &steps, &states).unwrap();
    for i in 0..3 {
        let one = |tensor: &Tensor| tensor.narrow(0, i, 1).unwrap();
        let alone = unet.forward_with_hidden_states(&one(&sample), &one(&steps), &one(&states)).unwrap();
        let distance = relative_error(&alone, &one(&together));
        assert!(distance < ROUNDING, "{distance:.1e}");
    }
}

/// Several equal tokens equal one with the logarithm of their number as its bias.
#[test]
fn padding_collapses() {
    let unet = load("alt_diffusion/unet");
    let (sample, states) = (normal(1, &[1, 4, 16, 16]), normal(2, &[1, 5, 20]));
    let pad = states.narrow(1, 4, 1).unwrap().repeat((1, 72, 1)).unwrap();
    let padded = Tensor::cat(&[&states, &pad], 1).unwrap();
    let bias = Tensor::new(&[[0.0, 0.0, 0.0, 0.0, 73f32.ln()]], &Device::Cpu).unwrap();
    let all = unet.forward_with_hidden_states(&sample, &timesteps(&[261.0]), &padded).unwrap();
    let context = unet.project_context(&states, Some(&bias)).unwrap();
    let collapsed = unet.forward(&sample, &timesteps(&[261.0]), &context).unwrap();
    let distance = relative_error(&collapsed, &all);
    assert!(distance < ROUNDING, "{distance:.1e}");
}

#[test]
fn every_weight_can_be_trained() {
    let (config, _) = model::<UNet2DConditionConfig>("variants/unet_three_levels");
    let variables = VarMap::new();
    let weights = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let unet = UNet2DConditionModel::new(&config, weights).unwrap();
    let (sample, noise, states) = (normal(1, &[2, 4, 8, 8]), normal(2, &[2, 4, 8, 8]), normal(3, &[2, 5, 6]));
    let steps = timesteps(&[10.0, 900.0]);
    assert_gradient_is_slope(&variables, || {
        let predicted = unet.forward_with_hidden_states(&sample, &steps, &states).unwrap();
        (predicted - &noise).unwrap().sqr().unwrap().mean_all().unwrap()
    });
}

#[test]
fn half_precision_stays_near() {
    let (config, weights) = model::<UNet2DConditionConfig>("alt_diffusion/unet");
    let (sample, states) = (normal(1, &[1, 4, 16, 16]), normal(2, &[1, 7, 20]));
    let exact = UNet2DConditionModel::new(&config, weights.clone()).unwrap();
    let exact = exact.forward_with_hidden_states(&sample, &timesteps(&[500.0]), &states).unwrap();
    for (dtype, tolerance) in [(DType::F16, 5e-3), (DType::BF16, 4e-2)] {
        let unet = UNet2DConditionModel::new(&config, weights.clone().set_dtype(dtype)).unwrap();
        let output = unet.forward_with_hidden_states(&sample, &timesteps(&[500.0]), &states).unwrap();
        assert_eq!(output.dtype(), DType::F32);
        assert!(
            relative_error(&output, &exact) < tolerance,
            "{dtype:?}: {}",
            relative_error(&output, &exact)
        );
    }
}

#[test]
fn bad_configurations_and_tensors_are_named() {
    let (config, weights) = model::<UNet2DConditionConfig>("alt_diffusion/unet");
    let message = |change: &dyn Fn(&mut UNet2DConditionConfig)| {
        let mut config = config.clone();
        change(&mut config);
        UNet2DConditionModel::new(&config, weights.clone()).unwrap_err().to_string()
    };
    assert!(message(&|config| config.block_out_channels.clear()).contains("`block_out_channels`"));
    assert!(message(&|config| config.up_block_types = vec!["AttnUpBlock2D".into(); 4]).contains("UpBlock2D"));
    assert!(message(&|config| config.attention_head_dim = PerBlock::Same(3)).contains("divides"));
    assert!(
        message(&|config| config.attention_head_dim = PerBlock::Same(0)).contains("`attention_head_dim`")
    );
    assert!(message(&|config| config.layers_per_block = PerBlock::Each(vec![1])).contains("4 blocks"));
    assert!(message(&|config| config.conv_in_kernel = 2).contains("odd"));
    assert!(message(&|config| config.freq_shift = 4.0).contains("`freq_shift`"));
    assert!(
        message(&|config| {
            config.other.insert("class_embed_type".into(), "timestep".into());
        })
        .contains("`class_embed_type` is \"timestep\"; expected null")
    );
    assert!(
        message(&|config| {
            config.other.insert("only_cross_attention".into(), vec![true, false, false, false].into());
        })
        .contains("`only_cross_attention`")
    );
    // A configuration that contradicts the weights: the missing or misshapen tensor is named.
    assert!(message(&|config| config.in_channels = 9).contains("conv_in.weight"));
    assert!(message(&|config| config.cross_attention_dim = PerBlock::Same(24)).contains("attn2.to_k.weight"));

    let unet = UNet2DConditionModel::new(&config, weights).unwrap();
    let run = |sample: &[usize], steps: &[f32], states: &[usize]| {
        unet.forward_with_hidden_states(&normal(0, sample), &timesteps(steps), &normal(0, states))
            .unwrap_err()
    };
    let shape_of = |error| match error {
        Error::Shape { tensor, .. } => tensor,
        error => panic!("{error}"),
    };
    assert_eq!(shape_of(run(&[1, 9, 8, 8], &[1.0], &[1, 7, 20])), "sample");
    assert_eq!(shape_of(run(&[1, 4, 0, 8], &[1.0], &[1, 7, 20])), "sample");
    assert_eq!(shape_of(run(&[2, 4, 8, 8], &[1.0], &[2, 7, 20])), "timesteps");
    assert_eq!(shape_of(run(&[2, 4, 8, 8], &[1.0, 2.0], &[1, 7, 20])), "hidden_states");
    assert_eq!(shape_of(run(&[1, 4, 8, 8], &[1.0], &[7, 20])), "hidden_states");
    // A prompt of another width fails in the first projection.
    run(&[1, 4, 8, 8], &[1.0], &[1, 7, 24]);
    let bias = normal(0, &[1, 6]);
    let error = unet.project_context(&normal(0, &[1, 7, 20]), Some(&bias)).unwrap_err();
    assert_eq!(shape_of(error), "key_bias");
}
