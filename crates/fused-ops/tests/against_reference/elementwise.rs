//! Tests normalisations, activations and shifts.

use crate::compare;
use candle_core::{DType, Device, Result, Tensor, Var};
use fused_ops::{GroupNorm, LayerNorm, reference};
use test_support::{Random, assert_close, var_builder};

#[test]
fn normalisations_and_their_gradients() -> Result<()> {
    let mut random = Random::new(3);
    for (batch, pixels, channels, groups) in
        [(1, 1, 16, 2), (2, 35, 24, 8), (3, 64, 32, 32), (1, 100, 320, 32), (2, 257, 16, 1)]
    {
        let x = random.variable(&[batch, pixels, channels]);
        let (w, b) = (random.variable(&[channels]), random.variable(&[channels]));
        let group = GroupNorm::new(groups, channels, 1e-5, var_builder(&[("weight", &w), ("bias", &b)]))?;
        let layer = LayerNorm::new(channels, 1e-5, var_builder(&[("weight", &w), ("bias", &b)]))?;
        let inputs = [&x, &w, &b];
        let what = format!("{batch}×{pixels}×{channels}, {groups} groups");
        let reference = |silu| reference::group_norm(&x, &w, &b, groups, 1e-5, silu);
        compare(
            &format!("group norm {what}"),
            &mut random,
            &inputs,
            || group.forward(&x),
            || reference(false),
        )?;
        compare(
            &format!("with silu {what}"),
            &mut random,
            &inputs,
            || group.forward_silu(&x),
            || reference(true),
        )?;
        let reference = || reference::layer_norm(&x, &w, &b, 1e-5);
        compare(&format!("layer norm {what}"), &mut random, &inputs, || layer.forward(&x), reference)?;
    }
    Ok(())
}

#[test]
fn a_mean_far_from_zero_costs_no_precision() -> Result<()> {
    let mut random = Random::new(4);
    let x = (random.variable(&[1, 1000, 8]).as_tensor() + 500.)?;
    let ones = Tensor::ones(8, DType::F32, &Device::Cpu)?;
    let zeros = Tensor::zeros(8, DType::F32, &Device::Cpu)?;
    let norm = GroupNorm::new(2, 8, 1e-5, var_builder(&[("weight", &ones), ("bias", &zeros)]))?;
    let x64 = x.to_dtype(DType::F64)?.reshape((1000, 2, 4))?;
    let centred = x64.broadcast_sub(&x64.mean_keepdim(2)?.mean_keepdim(0)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(2)?.mean_keepdim(0)? + 1e-5)?.sqrt()?;
    let expected = centred.broadcast_div(&deviation)?.reshape((1, 1000, 8))?;
    // Subtracting the mean of 500 from values of 500 ± 1 loses 2⁻²⁴ · 500 of an absolute size of 0.6.
    assert_close("group norm", &norm.forward(&x)?, &expected, 1e-4);
    Ok(())
}

#[test]
fn activations_and_their_gradients() -> Result<()> {
    let mut random = Random::new(7);
    let x = random.variable(&[7, 46]);
    let x = Var::from_tensor(&(x.as_tensor() * 6.)?)?;
    compare("gelu", &mut random, &[&x], || fused_ops::gelu(&x), || x.gelu_erf())?;
    compare("gelu by tanh", &mut random, &[&x], || fused_ops::gelu_tanh(&x), || x.gelu())?;
    compare("silu", &mut random, &[&x], || fused_ops::silu(&x), || x.silu())?;
    let quick = || x.as_tensor() * candle_nn::ops::sigmoid(&(x.as_tensor() * 1.702)?)?;
    compare("quick gelu", &mut random, &[&x], || fused_ops::quick_gelu(&x), quick)?;
    compare("geglu", &mut random, &[&x], || fused_ops::geglu(&x), || reference::geglu(&x))
}

#[test]
fn channel_shifts_and_their_gradients() -> Result<()> {
    let mut random = Random::new(10);
    for (batch, height, width, channels) in [(1, 1, 1, 1), (3, 5, 7, 20), (2, 16, 16, 32)] {
        let x = random.variable(&[batch, height, width, channels]);
        let shift = random.variable(&[batch, channels]);
        let reference = || x.broadcast_add(&shift.reshape((batch, 1, 1, channels))?);
        compare("shift", &mut random, &[&x, &shift], || fused_ops::shift_channels(&x, &shift), reference)?;
    }
    Ok(())
}
