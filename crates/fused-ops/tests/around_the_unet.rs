//! Tests the small operations around a UNet against closed forms and each other.

use candle_core::{DType, Device, Result, Tensor};
use fused_ops::{LinearStep, Sinusoids, reference, timestep_embedding, to_bytes};

/// Values of diffusers' `get_timestep_embedding`: of 4 channels the frequencies are 1 and 1/100, or with a shift of 1,
/// 1 and 1/10 000.
#[test]
fn sinusoids_of_a_timestep() -> Result<()> {
    let timesteps = Tensor::new(&[0f32, 2.], &Device::Cpu)?;
    let embed = |channels, flip_sin_to_cos, freq_shift| {
        let sinusoids = Sinusoids { channels, flip_sin_to_cos, freq_shift };
        timestep_embedding(&timesteps, sinusoids, DType::F32)?.to_vec2::<f32>()
    };
    let close = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}"));
    };
    let found = embed(5, true, 0.)?;
    close(&found[0], &[1., 1., 0., 0., 0.]);
    close(&found[1], &[2f32.cos(), 0.02f32.cos(), 2f32.sin(), 0.02f32.sin(), 0.]);
    close(&embed(4, false, 1.)?[1], &[2f32.sin(), 2e-4f32.sin(), 2f32.cos(), 2e-4f32.cos()]);
    Ok(())
}

#[test]
fn a_linear_step_with_guidance_and_history() -> Result<()> {
    let output = Tensor::new(&[[[[1f32]]], [[[3.]]]], &Device::Cpu)?;
    let sample = Tensor::new(&[[[[10f32]]]], &Device::Cpu)?;
    let (earlier, older) = ((&sample * 2.)?, (&sample * 3.)?);
    let coefficients = Tensor::new(&[7.5f32, 0.9, -0.5, 0.25, 0.125, 100., 0.5], &Device::Cpu)?;
    let step = LinearStep { coefficients: &coefficients, history: &[&earlier, &older], guided: true };
    let stepped = step.apply(&output, &sample)?;
    // 1 + 7.5 · (3 − 1) = 16; 9 − 8 + 5 + 3.75 = 9.75
    assert_eq!(stepped.output.flatten_all()?.to_vec1::<f32>()?, [16.]);
    assert_eq!(stepped.sample.flatten_all()?.to_vec1::<f32>()?, [9.75]);
    assert_eq!(stepped.model_input.dims(), output.dims());
    assert_eq!(stepped.model_input.flatten_all()?.to_vec1::<f32>()?, [4.875, 4.875]);
    let unguided = LinearStep { guided: false, ..step };
    assert!(unguided.apply(&output, &sample).is_err(), "two halves without guidance");
    let only = unguided.apply(&output.narrow(0, 1, 1)?, &sample)?;
    assert_eq!(only.output.flatten_all()?.to_vec1::<f32>()?, [3.]);
    Ok(())
}

#[test]
fn bytes_are_rounded_to_even_and_cut_off() -> Result<()> {
    // 2 · (n + 1/2) / 255 − 1 is a tie where f32 has it exactly; −1 + 1/255 is just above one.
    let values: Vec<f32> =
        (0..=20_000).map(|i| -1.1 + 0.00011 * i as f32).chain([-1., 0., 1., 3e8, -3e8]).collect();
    let expected: Vec<u8> = values
        .iter()
        .map(|value| ((value / 2. + 0.5).clamp(0., 1.) * 255.).round_ties_even() as u8)
        .collect();
    assert_eq!(expected[20_002], 128, "a tie, to even");
    let values = Tensor::new(values, &Device::Cpu)?;
    assert_eq!(to_bytes(&values)?.to_vec1::<u8>()?, expected);
    assert_eq!(reference::to_bytes(&values)?.to_vec1::<u8>()?, expected);
    Ok(())
}
