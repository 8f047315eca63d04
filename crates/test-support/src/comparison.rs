//! Measures differences in f64.

use candle_core::{DType, Tensor};

/// The largest relative error of a module in f32 against the reference, whose sums are in another order.
pub const MODULE_TOLERANCE: f64 = 1e-5;

/// ‖found − expected‖ / ‖expected‖ over all elements.
#[track_caller]
pub fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    relative_error_above(found, expected, 0.)
}

/// ‖found − expected‖ / max(‖expected‖, `least`), for values that are zero up to rounding, such as some gradients.
/// What is equal, be it zero or empty, has no error.
#[track_caller]
pub fn relative_error_above(found: &Tensor, expected: &Tensor, least: f64) -> f64 {
    let (difference, expected) = difference(found, expected);
    let difference = norm(&difference);
    if difference == 0. { 0. } else { difference / norm(&expected).max(least) }
}

/// Asserts that [`relative_error`] is at most `tolerance`.
#[track_caller]
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = relative_error(found, expected);
    println!("{what}: {error:.1e}");
    assert!(error <= tolerance, "{what}: relative error {error:.2e}, at most {tolerance:.0e} expected");
}

/// The largest difference between two elements.
#[track_caller]
pub fn largest_difference(found: &Tensor, expected: &Tensor) -> f64 {
    let (difference, _) = difference(found, expected);
    difference.abs().and_then(|difference| difference.max_all()?.to_scalar()).unwrap()
}

/// Asserts that no number is further than `tolerance` from its expected value.
#[track_caller]
pub fn assert_each_close<E: Copy + Into<f64>>(what: &str, found: &[f32], expected: &[E], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let expected: f64 = expected.into();
        let difference = (f64::from(found) - expected).abs();
        assert!(difference <= tolerance, "{what}: value {place} is {found}, expected {expected}");
    }
}

/// `found` − `expected`, and `expected`, in f64.
#[track_caller]
fn difference(found: &Tensor, expected: &Tensor) -> (Tensor, Tensor) {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found, expected].map(|x| x.to_dtype(DType::F64).unwrap());
    ((found - &expected).unwrap(), expected)
}

fn norm(x: &Tensor) -> f64 {
    x.sqr().and_then(|x| x.sum_all()?.to_scalar::<f64>()).unwrap().sqrt()
}
