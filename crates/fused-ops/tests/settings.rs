//! Checks that invalid settings are errors of the first operation, and that threads do not change results.
//!
//! Settings apply to the whole process, so each case is a process of its own: this program again, running a single
//! test.

use candle_core::{Device, Result, Tensor};
use fused_ops::{Instructions, Linear, Settings, SettingsError, silu};
use std::process::Command;

/// Set in the processes that a test starts.
const CASE: &str = "FUSED_OPS_TEST_CASE";

fn is_case() -> bool {
    std::env::var_os(CASE).is_some()
}

/// Runs the test of this name alone, with a variable set.
fn run(test: &str, variable: &str, value: &str) {
    let program = std::env::current_exe().expect("a test knows its program");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(CASE, "1")
        .env(variable, value)
        .output()
        .expect("a test can be run again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn ones() -> Result<Tensor> {
    Tensor::ones(3, candle_core::DType::F32, &Device::Cpu)
}

#[test]
fn a_misspelt_value_is_an_error_of_every_operation() -> Result<()> {
    if !is_case() {
        run("a_misspelt_value_is_an_error_of_every_operation", "FUSED_OPS_INSTRUCTIONS", "avx513");
        return Ok(());
    }
    let expected = "FUSED_OPS_INSTRUCTIONS: expected widest, avx2 or portable, found \"avx513\"";
    let layer = Linear::from_tensors(ones()?.reshape((1, 3))?, None);
    for error in [silu(&ones()?).err(), layer.err()] {
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{error:?}");
    }
    Ok(())
}

#[test]
fn a_variable_of_kernels_that_are_not_asked_for_is_read_as_well() -> Result<()> {
    if !is_case() {
        run("a_variable_of_kernels_that_are_not_asked_for_is_read_as_well", "FUSED_OPS_ATTENTION", "usual");
        return Ok(());
    }
    let error = silu(&ones()?).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("FUSED_OPS_ATTENTION: expected default, hopper or measured"), "{error:?}");
    Ok(())
}

#[test]
fn installed_settings_are_not_those_of_the_environment() -> std::result::Result<(), SettingsError> {
    if !is_case() {
        run(
            "installed_settings_are_not_those_of_the_environment",
            "FUSED_OPS_INSTRUCTIONS",
            "nothing that there is",
        );
        return Ok(());
    }
    let settings = Settings { instructions: Instructions::Portable, ..Settings::default() };
    settings.install()?;
    assert!(ones().and_then(|x| silu(&x)).is_ok());
    assert_eq!(Settings::current()?, settings);
    // Installing the same again changes nothing.
    settings.install()?;
    assert_eq!(Settings::default().install(), Err(SettingsError::InUse));
    Ok(())
}

#[test]
fn any_number_of_threads_gives_the_same() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let x = Tensor::randn(0f32, 1., (200, 96), &Device::Cpu)?;
    let layer = Linear::from_tensors(Tensor::randn(0f32, 1., (64, 96), &Device::Cpu)?, None)?;
    let with_threads = |threads| -> std::result::Result<_, Box<dyn std::error::Error>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(pool.install(|| layer.forward(&x)?.to_vec2::<f32>())?)
    };
    assert_eq!(with_threads(1)?, with_threads(3)?);
    Ok(())
}
