//! Tests ControlNets stored as differences from a model's UNet, and files of other kinds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use altdiffusion_pipeline::controlnet::ControlNetModel;
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::{AltDiffusion, Control, GenerateOptions, PerBlock};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{VarBuilder, VarMap};
use image::RgbImage;
use model_files::source::ModelSource;
use test_support::{
    MODULE_TOLERANCE, TestResult, copy_directory, golden, golden_json, normal, relative_error,
};

/// The prompt width of the model that provides the other parts.
const WIDTH: usize = 20;
/// The prompt width of the ControlNet that provides names and shapes.
const ITS_WIDTH: usize = 4;

fn text(path: &Path) -> TestResult<&str> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}

/// Writes to `folder` a model whose UNet has one level, to match the names in `single.json`.
fn model(folder: &Path) -> TestResult<HashMap<String, Tensor>> {
    for part in ["text_encoder", "tokenizer", "scheduler", "vae"] {
        copy_directory(&golden("alt_diffusion").join(part), &folder.join(part))?;
    }
    let config = UNet2DConditionConfig {
        block_out_channels: vec![32],
        down_block_types: vec!["CrossAttnDownBlock2D".to_owned()],
        up_block_types: vec!["CrossAttnUpBlock2D".to_owned()],
        layers_per_block: PerBlock::Same(1),
        cross_attention_dim: PerBlock::Same(WIDTH),
        attention_head_dim: PerBlock::Same(8),
        ..Default::default()
    };
    let variables = VarMap::new();
    UNet2DConditionModel::new(&config, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let unet = folder.join("unet");
    std::fs::create_dir(&unet)?;
    std::fs::write(unet.join("config.json"), serde_json::to_vec(&config)?)?;
    let weights = unet.join("diffusion_pytorch_model.safetensors");
    variables.save(&weights)?;
    Ok(safetensors::load(weights, &Device::Cpu)?)
}

#[test]
fn differences_are_added_to_the_unet_of_the_model() -> TestResult {
    let folder = tempfile::tempdir()?;
    let model_folder = folder.path().join("model");
    std::fs::create_dir(&model_folder)?;
    let unet = model(&model_folder)?;
    let pipeline =
        AltDiffusion::from_source(&ModelSource::directory(&model_folder), DType::F32, &Device::Cpu)?;

    let names: Vec<(String, String, Vec<usize>)> = golden_json("controlnet/single.json");
    let is_of_prompt = |name: &str| name.contains("attn2.to_k") || name.contains("attn2.to_v");
    let mut whole = HashMap::new();
    for (place, (name, _, shape)) in names.iter().enumerate() {
        let shape: Vec<usize> = shape
            .iter()
            .map(|side| if *side == ITS_WIDTH && is_of_prompt(name) { WIDTH } else { *side })
            .collect();
        whole.insert(name.clone(), (normal(place as u64, &shape) * 0.1)?);
    }
    let mut shared = 0;
    let mut differences = HashMap::new();
    for (name, tensor) in &whole {
        let difference = match unet.get(name) {
            Some(base) => {
                shared += 1;
                (tensor - base)?
            }
            None => tensor.clone(),
        };
        differences.insert(name.clone(), difference);
    }
    assert!(shared > 40 && shared < whole.len(), "{shared} of {}", whole.len());

    let draw = |tensors: &HashMap<String, Tensor>,
                prefix: &str,
                in_diffusers: bool,
                marker: Option<&str>|
     -> TestResult<Tensor> {
        let renamed = names.iter().filter_map(|(diffusers, ldm, _)| {
            let name = if in_diffusers { diffusers } else { ldm };
            Some((format!("{prefix}{name}"), tensors.get(diffusers)?.clone()))
        });
        let mut renamed: HashMap<String, Tensor> = renamed.collect();
        if let Some(marker) = marker {
            renamed.insert(marker.to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
        }
        let file = folder.path().join("net.safetensors");
        safetensors::save(&renamed, &file)?;
        let net = pipeline.load_controlnet(text(&file)?, DType::F32)?;
        if marker.is_some() {
            let alone = ControlNetModel::from_file(&file, DType::F32, &Device::Cpu).err();
            let alone = alone.map(|error| error.to_string()).unwrap_or_default();
            assert!(alone.contains("holds differences from the UNet of a model"), "{alone}");
        }
        let control = Control::new(Arc::new(net), RgbImage::from_pixel(32, 32, image::Rgb([9, 99, 199])));
        let options = GenerateOptions::new("一只猫").steps(2).guidance_scale(2.0).control(control);
        Ok(pipeline.generate(&options.initial_latents(normal(1, &[1, 4, 4, 4])))?.latents)
    };
    let expected = draw(&whole, "control_model.", false, None)?;
    for (prefix, in_diffusers, marker) in [
        ("control_model.", false, "difference"),
        ("", false, "difference"),
        ("control_model.", false, "control_model.difference"),
        ("", true, "difference"),
    ] {
        let error = relative_error(&draw(&differences, prefix, in_diffusers, Some(marker))?, &expected);
        assert!(error <= MODULE_TOLERANCE, "{prefix} {in_diffusers}: {error:.1e}");
    }
    let unadded = relative_error(&draw(&differences, "", false, None)?, &expected);
    assert!(unadded > 100.0 * MODULE_TOLERANCE, "{unadded:.1e}");
    Ok(())
}

/// A diffusers folder with obsolete fields, and weights in half precision.
#[test]
fn differences_may_be_in_a_folder() -> TestResult {
    let folder = tempfile::tempdir()?;
    let source = ModelSource::directory(golden("alt_diffusion"));
    let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu)?;
    let mut config: serde_json::Value = golden_json("controlnet/sd1/config.json");
    config["unheard_of"] = serde_json::json!({"a": 1});
    std::fs::write(folder.path().join("config.json"), config.to_string())?;
    let file = "diffusion_pytorch_model.safetensors";
    let whole = safetensors::load(
        golden("controlnet/sd1").join("diffusion_pytorch_model.fp16.safetensors"),
        &Device::Cpu,
    )?;
    let unet = safetensors::load(golden("alt_diffusion/unet").join(file), &Device::Cpu)?;
    let mut differences =
        HashMap::from([("difference".to_owned(), Tensor::zeros(0, DType::F32, &Device::Cpu)?)]);
    for (name, tensor) in &whole {
        let tensor = tensor.to_dtype(DType::F32)?;
        let difference = if let Some(base) = unet.get(name) { (tensor - base)? } else { tensor };
        differences.insert(name.clone(), difference);
    }
    safetensors::save(&differences, folder.path().join(file))?;
    let draw = |name: &Path| -> TestResult<Tensor> {
        let net = pipeline.load_controlnet(text(name)?, DType::F32)?;
        let control = Control::new(Arc::new(net), RgbImage::from_pixel(32, 32, image::Rgb([9, 99, 199])));
        let options = GenerateOptions::new("一只猫").steps(1).control(control);
        Ok(pipeline.generate(&options.initial_latents(normal(1, &[1, 4, 4, 4])))?.latents)
    };
    let error = relative_error(&draw(folder.path())?, &draw(&golden("controlnet/sd1"))?);
    assert!(error <= MODULE_TOLERANCE, "{error:.1e}");
    Ok(())
}

#[test]
fn other_ways_to_lead_a_model_are_named() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("net.safetensors");
    for (tensor, problem) in [
        ("lora_controlnet", "found a ControlNet-LoRA"),
        (
            "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight",
            "found a ControlLLLite",
        ),
        ("adapter.body.0.resnets.0.block1.weight", "found a T2I-Adapter"),
        ("lora_unet_conv_in.lora_up.weight", "found a LoRA, expected after --lora"),
        ("down_blocks.0.weight", "found no tensor controlnet_cond_embedding"),
    ] {
        // The first layers of a ControlNet-LoRA are complete.
        let names = if tensor == "lora_controlnet" {
            vec![tensor, "input_hint_block.0.weight"]
        } else {
            vec![tensor]
        };
        let tensors: HashMap<String, Tensor> =
            names.into_iter().map(|name| (name.to_owned(), normal(1, &[2, 3]))).collect();
        safetensors::save(&tensors, &file)?;
        let error = ControlNetModel::from_file(&file, DType::F32, &Device::Cpu).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("net.safetensors") && error.contains(problem), "{tensor}: {error}");
    }
    Ok(())
}
