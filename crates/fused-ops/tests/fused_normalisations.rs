//! Compares normalisations fused with the preceding operations with the separate steps.

use candle_core::{Result, Tensor};
use fused_ops::{GroupNorm, LayerNorm, Linear, reference, shift_channels};
use test_support::{Random, largest_difference, var_builder};

/// Sums of a few thousand products of order one in f32.
#[track_caller]
fn assert_near(found: &Tensor, expected: &Tensor) {
    let difference = largest_difference(found, expected);
    assert!(difference < 2e-5, "{difference}");
}

#[test]
fn group_normalisation_of_a_shifted_image() -> Result<()> {
    let mut random = Random::new(1);
    let (x, shift) = (random.normal(&[2, 5, 7, 24]), random.normal(&[2, 24]));
    let (weight, bias) = (random.normal(&[24]), random.normal(&[24]));
    let norm = GroupNorm::new(8, 24, 1e-5, var_builder(&[("weight", &weight), ("bias", &bias)]))?;
    let expected = reference::group_norm(&shift_channels(&x, &shift)?, &weight, &bias, 8, 1e-5, true)?;
    assert_near(&norm.forward_shifted_silu(&x, &shift)?, &expected);
    assert!(norm.forward_shifted_silu(&x, &random.normal(&[1, 24])).is_err());
    Ok(())
}

#[test]
fn a_linear_layer_with_a_residual_and_a_norm() -> Result<()> {
    let mut random = Random::new(2);
    let (x, residual) = (random.normal(&[3, 11, 24]), random.normal(&[3, 11, 40]));
    let linear = Linear::from_tensors((random.normal(&[40, 24]) * 0.2)?, Some(random.normal(&[40])))?;
    let (weight, bias) = (random.normal(&[40]), random.normal(&[40]));
    let norm = LayerNorm::new(40, 1e-5, var_builder(&[("weight", &weight), ("bias", &bias)]))?;
    let [sum, y] = linear.forward_then_norm(&x, &residual, &norm)?;
    assert_near(&sum, &(linear.forward(&x)? + &residual)?);
    assert_near(&y, &reference::layer_norm(&sum, &weight, &bias, 1e-5)?);
    assert_near(&linear.forward_normalised(&x, &residual, &norm)?, &y);
    assert!(linear.forward_then_norm(&x, &random.normal(&[3, 40]), &norm).is_err());
    Ok(())
}
