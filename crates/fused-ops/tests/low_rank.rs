//! Compares a LoRA beside a weight with the merged weight, forwards and backwards.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Conv2d, Conv2dOptions, Epilogue, LORA_DOWN, LORA_UP, Linear, Padding};
use test_support::{Random, assert_close, error_message};

/// Two orders of summing a few hundred products.
const ROUNDING: f64 = 1e-5;

fn named(tensors: Vec<(&str, Tensor)>) -> HashMap<String, Tensor> {
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// A weight with a bias and both matrices, and the merged one.
struct Weights {
    beside: HashMap<String, Tensor>,
    merged: HashMap<String, Tensor>,
}

impl Weights {
    fn new(random: &mut Random, out: usize, inputs: &[usize], rank: usize) -> Result<Self> {
        let scale = 1. / (inputs.iter().product::<usize>() as f64).sqrt();
        let weight = (random.normal(&[&[out], inputs].concat()) * scale)?;
        let bias = random.normal(&[out]);
        let down = (random.normal(&[&[rank], inputs].concat()) * scale)?;
        let up = (random.normal(&[out, rank]) * 0.5)?;
        let change = up.matmul(&down.flatten_from(1)?)?.reshape(weight.shape())?;
        let common =
            vec![("weight", weight.clone()), ("bias", bias.clone()), (LORA_DOWN, down), (LORA_UP, up)];
        let merged = vec![("weight", (weight + change)?), ("bias", bias)];
        Ok(Self { beside: named(common), merged: named(merged) })
    }

    fn builders(&self) -> [VarBuilder<'static>; 2] {
        [&self.beside, &self.merged]
            .map(|tensors| VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu))
    }
}

#[test]
fn linear_layers() -> Result<()> {
    let mut random = Random::new(1);
    let weights = Weights::new(&mut random, 96, &[40], 4)?;
    let [beside, merged] = weights.builders().map(|vb| Linear::new(40, 96, true, vb));
    let (beside, merged) = (beside?, merged?);
    let (x, residual) = (random.normal(&[2, 7, 40]), random.normal(&[2, 7, 96]));
    assert_close("forward", &beside.forward(&x)?, &merged.forward(&x)?, ROUNDING);
    let all = Epilogue { residual: Some(&residual), activation: Some(Activation::Gelu), shift: None };
    assert_close("epilogue", &beside.forward_with(&x, &all)?, &merged.forward_with(&x, &all)?, ROUNDING);
    assert_close("geglu", &beside.forward_geglu(&x)?, &merged.forward_geglu(&x)?, ROUNDING);
    Ok(())
}

#[test]
fn convolutions() -> Result<()> {
    let mut random = Random::new(2);
    let plain =
        |kernel: usize| Conv2dOptions { padding: Padding::same(kernel / 2), ..Conv2dOptions::default() };
    for (kernel, options) in [
        (1, plain(1)),
        (3, plain(3)),
        (3, Conv2dOptions { stride: 2, ..plain(3) }),
        (3, Conv2dOptions { upsample: true, ..plain(3) }),
    ] {
        let weights = Weights::new(&mut random, 24, &[16, kernel, kernel], 3)?;
        let [beside, merged] = weights.builders().map(|vb| Conv2d::new(16, 24, kernel, options, vb));
        let (beside, merged) = (beside?, merged?);
        let x = random.normal(&[2, 9, 6, 16]);
        let shift = random.normal(&[2, 24]);
        let what = format!("{kernel} {options:?}");
        let (found, expected) = (
            beside.forward_with(&x, &Epilogue::shift(&shift))?,
            merged.forward_with(&x, &Epilogue::shift(&shift))?,
        );
        assert_close(&what, &found, &expected, ROUNDING);
        let (beside, merged) = (beside.without_upsample(), merged.without_upsample());
        assert_close(&what, &beside.forward(&x)?, &merged.forward(&x)?, ROUNDING);
    }
    Ok(())
}

/// A LoRA is trained beside a frozen weight: its gradients are those of the same sums in candle tensors.
#[test]
fn only_the_matrices_are_trained() -> Result<()> {
    let mut random = Random::new(3);
    let weights = Weights::new(&mut random, 24, &[16], 3)?;
    let mut tensors = weights.beside.clone();
    let (down, up) = (Var::from_tensor(&tensors[LORA_DOWN])?, Var::from_tensor(&tensors[LORA_UP])?);
    tensors.insert(LORA_DOWN.to_owned(), down.as_tensor().clone());
    tensors.insert(LORA_UP.to_owned(), up.as_tensor().clone());
    let layer = Linear::new(16, 24, true, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
    let (x, target) = (random.normal(&[5, 16]), random.normal(&[5, 24]));
    let loss = |y: Tensor| (y * &target)?.sum_all();
    let found = loss(layer.forward(&x)?)?.backward()?;

    let change = x.matmul(&down.t()?)?.matmul(&up.t()?)?;
    let plain = x.matmul(&weights.beside["weight"].t()?)?.broadcast_add(&weights.beside["bias"])?;
    let expected = loss((plain + change)?)?.backward()?;
    for (name, var) in [("down", &down), ("up", &up)] {
        let gradient = |all: &candle_core::backprop::GradStore| all.get(var).cloned();
        let (Some(found), Some(expected)) = (gradient(&found), gradient(&expected)) else {
            candle_core::bail!("no gradient of {name}")
        };
        assert_close(name, &found, &expected, ROUNDING);
    }
    Ok(())
}

#[test]
fn matrices_of_another_layer_are_an_error() -> Result<()> {
    let mut random = Random::new(4);
    let weights = Weights::new(&mut random, 24, &[16], 3)?;
    let mut tensors = weights.beside.clone();
    tensors.insert(LORA_DOWN.to_owned(), random.normal(&[3, 17]));
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let error = error_message(Linear::new(16, 24, true, vb));
    assert!(
        error.contains("the LoRA is for another architecture: its matrices are [3, 17] and [24, 3]"),
        "{error}"
    );
    Ok(())
}
