//! Shares golden weights and prompts among the tests of this crate.

#![allow(dead_code, reason = "each test file is a program of its own and uses a part")]

pub mod outputs;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use test_support::{golden, golden_tensors};

/// The weights of a golden model.
pub fn weights(path: &str, dtype: DType) -> VarBuilder<'static> {
    if path.ends_with(".bin") {
        VarBuilder::from_pth(golden(path), dtype, &Device::Cpu).unwrap()
    } else {
        VarBuilder::from_tensors(golden_tensors(path), dtype, &Device::Cpu)
    }
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
