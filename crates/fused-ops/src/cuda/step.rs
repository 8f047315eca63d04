//! The small operations around a UNet on candle tensors.

use super::launches::denoise;
use super::{element, element_of, only, optional, run};
use crate::custom::as_f32;
use crate::step::{LinearStep, Sinusoids, Stepped};
use candle_core::{DType, Result, Tensor};

/// As [`crate::timestep_embedding()`].
pub(crate) fn timestep_embedding(
    timesteps: &Tensor,
    sinusoids: Sinusoids,
    dtype: DType,
) -> Result<Option<Tensor>> {
    let batch = timesteps.dim(0)?;
    let timesteps = as_f32(timesteps)?;
    let results = [(&[batch, sinusoids.channels][..], dtype)];
    run(
        "timestep_embedding",
        element_of(dtype),
        [Some(&timesteps)],
        results,
        |kernels, element, [address], [out]| {
            let op = denoise::TimestepEmbedding {
                element,
                batch,
                channels: sinusoids.channels,
                cosines_first: sinusoids.flip_sin_to_cos,
                freq_shift: sinusoids.freq_shift,
                timesteps: address,
                out,
            };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}

/// As [`LinearStep::apply`], of shapes that fit together.
pub(crate) fn linear_step(step: &LinearStep, output: &Tensor, sample: &Tensor) -> Result<Option<Stepped>> {
    if !output.device().is_cuda() {
        return Ok(None);
    }
    let (batch, channels, height, width) = sample.dims4()?;
    let output = output.contiguous()?;
    let (sample, coefficients) = (as_f32(sample)?, as_f32(step.coefficients)?);
    let history = step.history.iter().map(|earlier| as_f32(earlier)).collect::<Result<Vec<_>>>()?;
    let earlier: [Option<&Tensor>; LinearStep::MOST_HISTORY] = std::array::from_fn(|i| history.get(i));
    let inputs = [Some(&output), Some(&sample), Some(&coefficients), earlier[0], earlier[1], earlier[2]];
    let results = [(sample.dims(), DType::F32), (sample.dims(), DType::F32), (output.dims(), output.dtype())];
    let stepped = run(
        "linear_step",
        element([&output]),
        inputs,
        results,
        |kernels, element, from, [next, kept, next_input]| {
            let [output_address, sample, coefficients, history @ ..] = from;
            let op = denoise::GuidedStep {
                element,
                batch,
                pixels: height * width,
                channels,
                guided: step.guided,
                output: output_address,
                sample,
                history: history.map(optional),
                coefficients,
                next,
                kept: Some(kept),
                next_input,
            };
            Ok(kernels.launch(&op.launch()?))
        },
    )?;
    Ok(stepped.map(|[sample, output, model_input]| Stepped { sample, output, model_input }))
}

/// As [`crate::to_bytes()`].
pub(crate) fn to_bytes(x: &Tensor) -> Result<Option<Tensor>> {
    let contiguous = x.contiguous()?;
    run(
        "to_bytes",
        element([x]),
        [Some(&contiguous)],
        [(x.dims(), DType::U8)],
        |kernels, element, [address], [out]| {
            let op = denoise::Bytes { element, count: x.elem_count(), x: address, out };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}
