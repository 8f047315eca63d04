//! Shares golden values and comparisons among the tests of this crate.

#![allow(dead_code, reason = "each test file is a program of its own and uses a part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde::de::DeserializeOwned;

/// The largest relative error ‖a − b‖ / ‖b‖ of a module in f32 against the reference.
pub const TOLERANCE: f64 = 1e-5;

/// A file or folder of the golden values.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

pub fn config<T: DeserializeOwned>(path: &str) -> T {
    model_files::config::read_json(golden(path)).unwrap()
}

pub fn tensors(path: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden(path), &Device::Cpu).unwrap()
}

pub fn var_builder(path: &str, dtype: DType) -> VarBuilder<'static> {
    if path.ends_with(".bin") {
        VarBuilder::from_pth(golden(path), dtype, &Device::Cpu).unwrap()
    } else {
        VarBuilder::from_tensors(tensors(path), dtype, &Device::Cpu)
    }
}

/// ‖a − b‖ / ‖b‖ over all elements.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let norm = |x: Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
    norm((a - &b).unwrap()) / norm(b)
}

/// Asserts that `a` is `b` up to `tolerance` in [`relative_error`].
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    let error = relative_error(a, b);
    assert!(error <= tolerance, "relative error {error:e}, at most {tolerance:e} expected");
}

/// Standard normal numbers.
pub fn randn(shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap()
}

/// Id 0, then `tokens − 2` others, then 2, then padding up to `length`, with the mask that hides the padding.
pub fn prompt(tokens: u32, length: u32, vocab_size: u32) -> (Vec<u32>, Vec<u32>) {
    let ids = (0..length).map(|row| match row {
        0 => 0,
        row if row + 1 < tokens => 3 + (row * 7919 + tokens * 104_729) % (vocab_size - 3),
        row if row + 1 == tokens => 2,
        _ => 1,
    });
    (ids.collect(), (0..length).map(|row| u32::from(row < tokens)).collect())
}

/// Prompts of the given numbers of tokens, padded to `length`: ids and mask, both (prompts, length).
pub fn prompts(tokens: &[u32], length: u32, vocab_size: u32) -> (Tensor, Tensor) {
    let (ids, masks): (Vec<_>, Vec<_>) =
        tokens.iter().map(|&tokens| prompt(tokens, length, vocab_size)).unzip();
    (Tensor::new(ids, &Device::Cpu).unwrap(), Tensor::new(masks, &Device::Cpu).unwrap())
}
