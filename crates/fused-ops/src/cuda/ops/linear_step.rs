//! Applies a sampler's step to candle tensors.

use super::super::launch::linear_step::LinearStepOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element, optional, run};
use crate::shapes::{LinearStep, Stepped};
use crate::tensors::slices::as_f32;
use candle_core::{DType, Result, Tensor};

/// Like [`LinearStep::apply`], for shapes that fit together.
pub(crate) fn linear_step(step: &LinearStep, output: &Tensor, sample: &Tensor) -> Result<Option<Stepped>> {
    if !output.device().is_cuda() {
        return Ok(None);
    }
    let (batch, channels, height, width) = sample.dims4()?;
    let output = output.contiguous()?;
    let (sample, coefficients) = (as_f32(sample)?, as_f32(step.coefficients)?);
    let history = step.history.iter().map(|earlier| as_f32(earlier)).collect::<Result<Vec<_>>>()?;
    let earlier: [Option<&Tensor>; LinearStep::MAX_HISTORY] = std::array::from_fn(|i| history.get(i));
    let inputs = [Some(&output), Some(&sample), Some(&coefficients), earlier[0], earlier[1], earlier[2]];
    let results = [(sample.dims(), DType::F32), (sample.dims(), DType::F32), (output.dims(), output.dtype())];
    let pixels = height * width;
    let launch = |dispatch: &Dispatch, element, from: [_; 6], [next, kept, next_input]: [_; 3]| {
        let [output_address, sample, coefficients, history @ ..] = from;
        let op = LinearStepOperands {
            element,
            batch,
            pixels,
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
        let launch = op.launch()?;
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        Ok(unsafe { dispatch.kernels().launch(&launch) })
    };
    // SAFETY: the kernel writes every value of all three.
    let stepped = unsafe { run("linear_step", element([&output]), inputs, results, launch) }?;
    Ok(stepped.map(|[sample, output, model_input]| Stepped { sample, output, model_input }))
}
