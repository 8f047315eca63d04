//! Shares tolerances, weights and the check of gradients among the tests of the models.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use serde::de::DeserializeOwned;
use test_support::{golden_json, golden_tensors, normal};

/// The largest relative difference ‖a − b‖ / ‖b‖ between two orders of summation in f32, over a whole module.
pub const ROUNDING: f64 = 5e-6;

/// A model's configuration and weights.
pub fn model<C: DeserializeOwned>(folder: &str) -> (C, VarBuilder<'static>) {
    let config = golden_json(&format!("{folder}/config.json"));
    let weights = golden_tensors(&format!("{folder}/diffusion_pytorch_model.safetensors"));
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    (config, weights)
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
