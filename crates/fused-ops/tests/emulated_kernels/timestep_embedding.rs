//! Tests the sinusoidal embedding of timesteps.

use crate::emulator::{Buffer, kernels, seed};
use crate::launch::description::Element;
use crate::launch::timestep_embedding::TimestepEmbeddingOperands;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_rounded};
use candle_core::{Device, Tensor};
use fused_ops::Sinusoids;
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

/// Compared with the formula in f64. An angle of up to 1 000 is accurate to 2⁻²⁴, and its frequency to a few units:
/// 64 units of 2⁻²⁴ of 1 000, which `assert_rounded` allows.
#[test]
fn timestep_embeddings() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let timesteps: Vec<f32> = (0..5).map(|_| rng.random_range(0f32..1000.)).collect();
    let input = Buffer::input("timesteps", &timesteps);
    for (channels, flip_sin_to_cos, freq_shift) in [(320, true, 0.), (128, false, 1.), (7, true, 0.)] {
        let sinusoids = Sinusoids { channels, flip_sin_to_cos, freq_shift };
        let (batch, half) = (timesteps.len(), channels / 2);
        let expected = timesteps.iter().flat_map(|&timestep| {
            (0..channels).map(move |channel| {
                if channel == 2 * half {
                    return 0.;
                }
                let exponent = -((channel % half) as f64) / (half as f64 - freq_shift);
                let angle = f64::from(timestep) * 10_000f64.powf(exponent);
                (if (channel < half) == flip_sin_to_cos { angle.cos() } else { angle.sin() }) as f32
            })
        });
        let expected = Tensor::from_vec(expected.collect::<Vec<_>>(), (batch, channels), &Device::Cpu)?;
        let embed = |element, out: &Buffer| {
            let (timesteps, out_address) = (input.address(), out.address());
            let op = TimestepEmbeddingOperands { element, batch, sinusoids, timesteps, out: out_address };
            emulator.run(&op.launch().map_err(|reason| reason.0)?, &[&input, out], 1)
        };
        let what = format!("timestep embedding of {channels} channels");
        let out = Buffer::output::<f16>("out", batch * channels);
        embed(Element::F16, &out)?;
        assert_rounded(&what, &out.to_f32::<f16>(), &expected, F16_UNIT, 1000.)?;
        let out = Buffer::output::<bf16>("out", batch * channels);
        embed(Element::Bf16, &out)?;
        assert_rounded(&what, &out.to_f32::<bf16>(), &expected, BF16_UNIT, 1000.)?;
    }
    Ok(())
}
