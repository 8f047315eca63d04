//! Compares normalisations fused with the preceding operations with the separate steps.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{GroupNorm, LayerNorm, Linear, reference, shift_channels};
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
fn group_normalisation_of_a_shifted_image() -> Result<()> {
    let (x, shift) = (normal(&[2, 5, 7, 24])?, normal(&[2, 24])?);
    let (weight, bias) = (normal(&[24])?, normal(&[24])?);
    let norm = GroupNorm::new(8, 24, 1e-5, vb(&weight, &bias))?;
    let expected = reference::group_norm(&shift_channels(&x, &shift)?, &weight, &bias, 8, 1e-5, true)?;
    assert_close(&norm.forward_shifted_silu(&x, &shift)?, &expected)?;
    assert!(norm.forward_shifted_silu(&x, &normal(&[1, 24])?).is_err());
    Ok(())
}

#[test]
fn a_linear_layer_with_a_residual_and_a_norm() -> Result<()> {
    let (x, residual) = (normal(&[3, 11, 24])?, normal(&[3, 11, 40])?);
    let linear = Linear::from_tensors((normal(&[40, 24])? * 0.2)?, Some(normal(&[40])?))?;
    let (weight, bias) = (normal(&[40])?, normal(&[40])?);
    let norm = LayerNorm::new(40, 1e-5, vb(&weight, &bias))?;
    let [sum, y] = linear.forward_then_norm(&x, &residual, &norm)?;
    assert_close(&sum, &(linear.forward(&x)? + &residual)?)?;
    assert_close(&y, &reference::layer_norm(&sum, &weight, &bias, 1e-5)?)?;
    assert_close(&linear.forward_normalised(&x, &residual, &norm)?, &y)?;
    assert!(linear.forward_then_norm(&x, &normal(&[3, 40])?, &norm).is_err());
    Ok(())
}
