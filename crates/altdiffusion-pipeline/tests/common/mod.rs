//! Shares golden values, weights and distances among the tests of the models.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{VarBuilder, VarMap};
use serde::de::DeserializeOwned;

/// The largest relative error ‖a − b‖ / ‖b‖ of a module in f32 against the reference.
pub const TOLERANCE: f32 = 1e-5;

/// The largest relative difference ‖a − b‖ / ‖b‖ between two orders of summation in f32, over a whole module.
pub const ROUNDING: f32 = 5e-6;

/// A file or folder of the golden values.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

/// All tensors of a golden file.
pub fn tensors(path: &str) -> HashMap<String, Tensor> {
    safetensors::load(golden(path), &Device::Cpu).unwrap()
}

/// A model's configuration and weights.
pub fn model<C: DeserializeOwned>(folder: &str) -> (C, VarBuilder<'static>) {
    let config = std::fs::read(golden(folder).join("config.json")).unwrap();
    let weights = tensors(&format!("{folder}/diffusion_pytorch_model.safetensors"));
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    (serde_json::from_slice(&config).unwrap(), weights)
}

/// ‖a − b‖ / ‖b‖
pub fn distance(a: &Tensor, b: &Tensor) -> f32 {
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(a.dims(), b.dims());
    norm(&(a - b).unwrap()) / norm(b)
}

/// `found` is the reference's value.
pub fn assert_close(what: &str, found: &Tensor, reference: &Tensor) {
    let distance = distance(found, reference);
    println!("{what}: {distance:.1e}");
    assert!(distance <= TOLERANCE, "{what}: {distance:.1e} from the reference, more than {TOLERANCE:.0e}");
}

/// Standard normal numbers, the same in every run.
pub fn normal(seed: u64, shape: &[usize]) -> Tensor {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let numbers: Vec<f32> =
        (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut generator)).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
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
