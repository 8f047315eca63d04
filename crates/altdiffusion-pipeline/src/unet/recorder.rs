//! Records a forward pass, so that a GPU can repeat it without the host.

use std::sync::{Mutex, MutexGuard};

use candle_core::{DType, Tensor};
use fused_ops::Recording;
use model_files::candle_error;

use super::context::CrossAttentionContext;
use crate::Result;

/// Where a UNet keeps the pass that it recorded. A clone records its own.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Recorded>);

impl Recorder {
    /// What is recorded, unless another thread has it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Recorded>> {
        self.0.try_lock().ok()
    }
}

/// What a UNet has recorded.
#[derive(Default)]
pub(super) enum Recorded {
    #[default]
    Nothing,
    Pass(Box<RecordedPass>),
    /// Passes of this shape cannot be recorded.
    Refused(Vec<usize>),
}

impl Clone for Recorder {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// A pass whose tensors are always the same ones, so that a GPU can do it as one CUDA graph.
pub(super) struct RecordedPass {
    /// (batch, height, width, in_channels)
    input: Tensor,
    /// (batch), f32
    timesteps: Tensor,
    context: CrossAttentionContext,
    recording: Recording,
}

/// What passes have in common that can be one recorded pass.
pub(super) fn pass_shape(input: &Tensor, context: &CrossAttentionContext) -> Vec<usize> {
    [input.dims(), &[context.room()]].concat()
}

impl RecordedPass {
    /// Records what `predict` does to an input, timesteps and a context; with what it predicts of these.
    pub(super) fn new(
        input: &Tensor,
        timesteps: &Tensor,
        context: &CrossAttentionContext,
        predict: impl Fn(&Tensor, &Tensor, &CrossAttentionContext) -> Result<Tensor> + Send + 'static,
    ) -> Result<(Self, Tensor)> {
        let pass = (input.copy()?, timesteps.to_dtype(DType::F32)?.copy()?, context.copy()?);
        let (input, timesteps, context) = pass.clone();
        let (recording, prediction) = Recording::new(move || {
            let (input, timesteps, context) = &pass;
            predict(input, timesteps, context).map_err(candle_error::carry)
        })?;
        Ok((Self { input, timesteps, context, recording }, prediction))
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        pass_shape(&self.input, &self.context)
    }

    /// The pass on other values, with other prompts if there are some.
    pub(super) fn replay(
        &self,
        input: &Tensor,
        timesteps: &Tensor,
        context: Option<&CrossAttentionContext>,
    ) -> Result<Tensor> {
        context.map(|context| self.context.overwrite(context)).transpose()?;
        self.input.slice_set(&input.contiguous()?, 0, 0)?;
        self.timesteps.slice_set(&timesteps.to_dtype(DType::F32)?, 0, 0)?;
        Ok(self.recording.replay()?)
    }
}
