//! Normalisations with what comes before them in one step, against the steps one by one.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{GroupNorm, LayerNorm, reference, shift_channels};
use std::collections::HashMap;

fn normal(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1., shape, &Device::Cpu)
}

fn vb(weight: &Tensor, bias: &Tensor) -> VarBuilder<'static> {
    let tensors =
        [("weight", weight), ("bias", bias)].map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    VarBuilder::from_tensors(HashMap::from(tensors), DType::F32, &Device::Cpu)
}

/// Sums of a few thousand products of order one in f32.
fn assert_close(a: &Tensor, b: &Tensor) -> Result<()> {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b)?.abs()?.flatten_all()?.max(D::Minus1)?.to_scalar::<f32>()?;
    assert!(difference < 2e-5, "{difference}");
    Ok(())
}

#[test]
fn group_normalisation_of_a_shifted_picture() -> Result<()> {
    let (x, shift) = (normal(&[2, 5, 7, 24])?, normal(&[2, 24])?);
    let (weight, bias) = (normal(&[24])?, normal(&[24])?);
    let norm = GroupNorm::new(8, 24, 1e-5, vb(&weight, &bias))?;
    let expected = reference::group_norm(&shift_channels(&x, &shift)?, &weight, &bias, 8, 1e-5, true)?;
    assert_close(&norm.forward_shifted_silu(&x, &shift)?, &expected)?;
    assert!(norm.forward_shifted_silu(&x, &normal(&[1, 24])?).is_err());
    Ok(())
}

#[test]
fn layer_normalisation_of_a_sum() -> Result<()> {
    let (x, residual) = (normal(&[3, 11, 40])?, normal(&[3, 11, 40])?);
    let (weight, bias) = (normal(&[40])?, normal(&[40])?);
    let norm = LayerNorm::new(40, 1e-5, vb(&weight, &bias))?;
    let [sum, y] = norm.forward_residual(&x, &residual)?;
    assert_close(&sum, &(&x + &residual)?)?;
    assert_close(&y, &reference::layer_norm(&sum, &weight, &bias, 1e-5)?)?;
    assert!(norm.forward_residual(&x, &normal(&[3, 40])?).is_err());
    Ok(())
}
