//! Generates random input, and checks results that are computed in f32 and rounded once.

use crate::emulator::Value;
use candle_core::{Device, Result, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Half the distance from 1 to the next number.
pub(crate) const F16_UNIT: f32 = 1. / 2048.;
pub(crate) const BF16_UNIT: f32 = 1. / 256.;

/// Values of a type, from −`size` to `size`.
pub(crate) fn random<T: Value>(rng: &mut ChaCha8Rng, count: usize, size: f32) -> Vec<T> {
    (0..count).map(|_| T::from_f32(rng.random_range(-size..size))).collect()
}

/// The values as an f32 tensor.
pub(crate) fn tensor<T: Value>(values: &[T], dims: &[usize]) -> Result<Tensor> {
    let values: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}

/// Checks that every value is the expected one, rounded once by at most `unit` of its size or half of f16's smallest
/// number, after a computation in f32 on terms of up to `size`, with an error of a few dozen units of 2⁻²⁴.
pub(crate) fn assert_rounded(
    what: &str,
    found: &[f32],
    expected: &Tensor,
    unit: f32,
    size: f32,
) -> Result<()> {
    assert_each_rounded(what, found, expected, unit, &Tensor::new(size, &Device::Cpu)?)
}

/// Like [`assert_rounded`], with a `size` per value, broadcast to the shape of `expected`.
pub(crate) fn assert_each_rounded(
    what: &str,
    found: &[f32],
    expected: &Tensor,
    unit: f32,
    size: &Tensor,
) -> Result<()> {
    let sizes = size.broadcast_as(expected.shape())?.flatten_all()?.to_vec1::<f32>()?;
    let expected = expected.flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, ((&found, expected), size)) in found.iter().zip(expected).zip(sizes).enumerate() {
        let allowed = unit * expected.abs() + 2f32.powi(-25) + 64. * 2f32.powi(-24) * size;
        let close = (found - expected).abs() <= allowed;
        assert!(close, "{what}, value {i}: {found}, expected {expected} ± {allowed}");
    }
    Ok(())
}
