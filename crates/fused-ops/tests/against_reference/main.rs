//! Compares every fused operation and its gradients with the reference, on random input.

mod attention;
mod elementwise;
mod layers;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use fused_ops::{Epilogue, GroupNorm, Linear};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::io::Write;

/// f32 sums of a few thousand terms of order one, in another order: a few hundred units of 2⁻²⁴ at most.
const TOLERANCE: f64 = 1e-5;

fn random(rng: &mut impl Rng, shape: &[usize]) -> Result<Var> {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.random_range(-1f32..1.)).collect();
    Var::from_vec(values, shape, &Device::Cpu)
}

fn relative_error(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm(&(&a - &b)?)? / norm(&b)?.max(1e-12)).sqrt())
}

fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) -> Result<()> {
    let error = relative_error(a, b)?;
    assert!(error <= tolerance, "{what}: relative error {error:.2e}");
    Ok(())
}

/// Compares results, and the gradients of all `inputs` for a randomly weighted result.
fn compare(
    what: &str,
    rng: &mut impl Rng,
    inputs: &[&Var],
    fused: impl Fn() -> Result<Tensor>,
    reference: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    let (a, b) = (fused()?, reference()?);
    assert_close(what, &a, &b, TOLERANCE)?;
    let weighting = random(rng, b.dims())?;
    let (a, b) = ((a * weighting.as_tensor())?.sum_all()?, (b * weighting.as_tensor())?.sum_all()?);
    let (a, b) = (a.backward()?, b.backward()?);
    for (i, input) in inputs.iter().enumerate() {
        let (a, b) = (a.get(input), b.get(input));
        let (Some(a), Some(b)) = (a, b) else { panic!("{what}: no gradient for input {i}") };
        assert_close(&format!("{what}, gradient {i}"), a, b, 4. * TOLERANCE)?;
    }
    Ok(())
}

fn vb(tensors: &[(&str, &Tensor)]) -> VarBuilder<'static> {
    let map: HashMap<String, Tensor> = tensors.iter().map(|(k, v)| (k.to_string(), (*v).clone())).collect();
    VarBuilder::from_tensors(map, DType::F32, &Device::Cpu)
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
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let x = random(&mut rng, &[2, 3, 6])?.detach();
    assert!(fused_ops::attention(&x, &x, &x, 4, None).is_err());
    assert!(fused_ops::attention(&x, &x, &x, 0, None).is_err());
    let w = random(&mut rng, &[4, 5])?.detach();
    assert!(Linear::from_tensors(w, None)?.forward(&x).is_err());
    let row = random(&mut rng, &[6])?.detach();
    let linear = Linear::from_tensors(random(&mut rng, &[4, 6])?.detach(), None)?;
    assert_eq!(linear.forward(&row)?.dims(), [4], "a single row is an input as well");
    assert!(linear.forward_with(&row, &Epilogue::shift(&row)).is_err());
    assert!(GroupNorm::new(4, 6, 1e-5, vb(&[])).is_err());
    Ok(())
}
