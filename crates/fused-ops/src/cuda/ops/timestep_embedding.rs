//! Computes sinusoidal embeddings of timesteps on candle tensors.

use super::super::launch::timestep_embedding::TimestepEmbeddingOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element_of, only, run};
use crate::shapes::Sinusoids;
use crate::tensors::slices::as_f32;
use candle_core::{DType, Result, Tensor};

/// Like [`crate::timestep_embedding()`].
pub(crate) fn timestep_embedding(
    timesteps: &Tensor,
    sinusoids: Sinusoids,
    dtype: DType,
) -> Result<Option<Tensor>> {
    let batch = timesteps.dim(0)?;
    let timesteps = as_f32(timesteps)?;
    let results = [(&[batch, sinusoids.channels][..], dtype)];
    let launch = |dispatch: &Dispatch, element, [timesteps]: [_; 1], [out]: [_; 1]| {
        let launch = TimestepEmbeddingOperands { element, batch, sinusoids, timesteps, out }.launch()?;
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        Ok(unsafe { dispatch.kernels().launch(&launch) })
    };
    let inputs = [Some(&timesteps)];
    // SAFETY: the kernel writes every channel of every timestep.
    unsafe { run("timestep_embedding", element_of(dtype), inputs, results, launch) }.map(only)
}
