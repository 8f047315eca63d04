//! Shares golden models, weights and images, and the check of gradients, among the tests of this crate.

#![allow(dead_code, reason = "each test file is a program of its own and uses a part")]

use std::collections::HashMap;
use std::fs;

use altdiffusion_pipeline::AltDiffusion;
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{VarBuilder, VarMap};
use image::{GrayImage, RgbImage};
use model_files::source::ModelSource;
use serde::de::DeserializeOwned;
use test_support::{TestResult, copy_directory, golden, golden_json, golden_tensors, normal};

/// The largest relative difference ‖a − b‖ / ‖b‖ between two orders of summation in f32, over a whole module.
pub const ROUNDING: f64 = 5e-6;

/// A model's configuration and weights.
pub fn model<C: DeserializeOwned>(folder: &str) -> (C, VarBuilder<'static>) {
    let config = golden_json(&format!("{folder}/config.json"));
    let weights = golden_tensors(&format!("{folder}/diffusion_pytorch_model.safetensors"));
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    (config, weights)
}

/// A golden model that draws.
pub fn load(model: &str) -> altdiffusion_pipeline::Result<AltDiffusion> {
    AltDiffusion::from_source(&ModelSource::directory(golden(model)), DType::F32, &Device::Cpu)
}

/// A golden model with an inpainting UNet, whose first layer `scripts/golden/given_images.py` made.
pub fn load_inpainting(model: &str) -> TestResult<AltDiffusion> {
    let folder = tempfile::tempdir()?;
    for part in ["tokenizer", "text_encoder", "unet", "vae", "scheduler"] {
        copy_directory(&golden(model).join(part), &folder.path().join(part))?;
    }
    let config = folder.path().join("unet/config.json");
    let mut fields: serde_json::Value = serde_json::from_slice(&fs::read(&config)?)?;
    fields["in_channels"] = 9.into();
    fs::write(&config, fields.to_string())?;
    let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let mut tensors = safetensors::load(&weights, &Device::Cpu)?;
    let conv_in = golden_tensors("given_images.safetensors")[&format!("{model}.conv_in.weight")].clone();
    tensors.insert("conv_in.weight".to_owned(), conv_in);
    safetensors::save(&tensors, weights)?;
    Ok(AltDiffusion::from_source(&ModelSource::directory(folder.path()), DType::F32, &Device::Cpu)?)
}

/// The image called `name` among golden tensors.
pub fn golden_image(tensors: &HashMap<String, Tensor>, name: &str) -> TestResult<RgbImage> {
    let (width, height, bytes) = pixels(tensors, name)?;
    RgbImage::from_raw(width, height, bytes).ok_or_else(|| "an image of another size".into())
}

/// The mask among golden tensors.
pub fn golden_mask(tensors: &HashMap<String, Tensor>) -> TestResult<GrayImage> {
    let (width, height, bytes) = pixels(tensors, "mask")?;
    GrayImage::from_raw(width, height, bytes).ok_or_else(|| "a mask of another size".into())
}

/// The width, height and bytes of an image among golden tensors.
fn pixels(tensors: &HashMap<String, Tensor>, name: &str) -> TestResult<(u32, u32, Vec<u8>)> {
    let tensor = tensors.get(name).ok_or_else(|| format!("no {name}"))?;
    Ok((tensor.dim(1)? as u32, tensor.dim(0)? as u32, tensor.flatten_all()?.to_vec1()?))
}

/// Checks that every variable has a gradient, and that together they are the slope of `loss`: along the gradient g
/// the loss changes by |g| per unit, according to a difference quotient over a small step.
pub fn assert_gradient_is_slope(variables: &VarMap, loss: impl Fn() -> Tensor) {
    let variables = variables.data().lock().unwrap();
    // Fixed, moderate weights: with some random draws the loss is too curved for a difference quotient.
    let mut names: Vec<&String> = variables.keys().collect();
    names.sort();
    for (seed, name) in names.into_iter().enumerate() {
        let dims = variables[name].dims();
        let inputs: usize = dims.iter().skip(1).product();
        let is_scale = dims.len() == 1 && name.ends_with("weight");
        let scale = if dims.len() > 1 { 1.0 / (inputs as f64).sqrt() } else { 0.1 };
        let value = normal(seed as u64, dims).affine(scale, if is_scale { 1.0 } else { 0.0 }).unwrap();
        variables[name].set(&value).unwrap();
    }
    let gradients = loss().backward().unwrap();
    let gradient = |name: &str| {
        let gradient = gradients.get(&variables[name]);
        gradient.unwrap_or_else(|| panic!("{name} has no gradient")).to_dtype(DType::F64).unwrap()
    };
    let square = |name: &String| gradient(name).sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    let norm = variables.keys().map(square).sum::<f64>().sqrt();
    let loss_at = |distance: f64| {
        let originals: Vec<_> = variables.values().map(|variable| variable.copy().unwrap()).collect();
        for (name, variable) in variables.iter() {
            let step = (gradient(name) * (distance / norm)).unwrap().to_dtype(DType::F32).unwrap();
            variable.set(&(variable.as_detached_tensor() + step).unwrap()).unwrap();
        }
        let value = loss().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        for (variable, original) in variables.values().zip(&originals) {
            variable.set(original).unwrap();
        }
        value
    };
    let step = 2e-4;
    let slope = (loss_at(step) - loss_at(-step)) / (2.0 * step);
    println!("slope {slope}, norm of the gradient {norm}");
    assert!((slope / norm - 1.0).abs() < 0.01, "the slope is {slope}, the norm of the gradient {norm}");
}
