//! Compares every fused operation and its gradients with the reference, on random input.

mod attention;
mod elementwise;
mod layers;

use candle_core::{Result, Tensor, Var};
use fused_ops::{Epilogue, GroupNorm, Linear};
use std::io::Write;
use test_support::{Random, assert_close, relative_error_above, var_builder};

/// f32 sums of a few thousand terms of order one, in another order: a few hundred units of 2⁻²⁴ at most.
const TOLERANCE: f64 = 1e-5;

/// Gradients of a smaller norm are those of rounding: attention on a single key has none for the query.
const LEAST: f64 = 1e-6;

/// Compares results, and the gradients of all `inputs` for a randomly weighted result.
fn compare(
    what: &str,
    random: &mut Random,
    inputs: &[&Var],
    fused: impl Fn() -> Result<Tensor>,
    reference: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    let (a, b) = (fused()?, reference()?);
    assert_close(what, &a, &b, TOLERANCE);
    let weighting = random.variable(b.dims());
    let (a, b) = ((a * weighting.as_tensor())?.sum_all()?, (b * weighting.as_tensor())?.sum_all()?);
    let (a, b) = (a.backward()?, b.backward()?);
    for (i, input) in inputs.iter().enumerate() {
        let (a, b) = (a.get(input), b.get(input));
        let (Some(a), Some(b)) = (a, b) else { panic!("{what}: no gradient for input {i}") };
        let error = relative_error_above(a, b, LEAST);
        assert!(error <= 4. * TOLERANCE, "{what}, gradient {i}: relative error {error:.2e}");
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// The fastest kernels of the machine are what runs; the others must be right as well.
#[test]
fn other_kernels_pass_the_same_tests() {
    let name = "other_kernels_pass_the_same_tests";
    for (variable, value) in [
        ("FUSED_OPS_INSTRUCTIONS", "portable"),
        ("FUSED_OPS_INSTRUCTIONS", "avx2"),
        ("FUSED_OPS_BF16", "portable"),
    ] {
        if value == "avx2" && !has_avx2() {
            // Written directly, because the test harness captures output.
            let _ = writeln!(std::io::stderr(), "SKIPPED: this processor has no AVX2");
            continue;
        }
        let program = std::env::current_exe().expect("a test knows its program");
        let tests = std::process::Command::new(program)
            .args(["--skip", name, "--test-threads", "1"])
            .env(variable, value)
            .output()
            .expect("a test can be run again");
        assert!(tests.status.success(), "{variable}={value}:\n{}", String::from_utf8_lossy(&tests.stdout));
    }
}

#[test]
fn wrong_shapes_are_errors() -> Result<()> {
    let mut random = Random::new(9);
    let x = random.uniform(&[2, 3, 6]);
    assert!(fused_ops::attention(&x, &x, &x, 4, None).is_err());
    assert!(fused_ops::attention(&x, &x, &x, 0, None).is_err());
    let w = random.uniform(&[4, 5]);
    assert!(Linear::from_tensors(w, None)?.forward(&x).is_err());
    let row = random.uniform(&[6]);
    let linear = Linear::from_tensors(random.uniform(&[4, 6]), None)?;
    assert_eq!(linear.forward(&row)?.dims(), [4], "a single row is an input as well");
    assert!(linear.forward_with(&row, &Epilogue::shift(&row)).is_err());
    assert!(GroupNorm::new(4, 6, 1e-5, var_builder(&[])).is_err());
    Ok(())
}
