//! Records a forward pass, so that a GPU can replay it without the host.

use std::sync::{Mutex, MutexGuard};

use candle_core::{DType, Tensor};
use fused_ops::Recording;
use model_files::candle_error;

use super::context::CrossAttentionContext;
use crate::Result;

/// Holds the pass that a UNet recorded. A clone records its own.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Recorded>);

impl Recorder {
    /// Locks the recording, unless another thread holds it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Recorded>> {
        self.0.try_lock().ok()
    }
}

/// The state of a UNet's recording.
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

/// A pass over fixed tensors, so that a GPU can replay it as a CUDA graph.
pub(super) struct RecordedPass {
    /// (batch, height, width, in_channels)
    input: Tensor,
    /// (batch), f32
    timesteps: Tensor,
    context: CrossAttentionContext,
    recording: Recording,
}

/// The shape that passes must share to use one recording.
pub(super) fn pass_shape(input: &Tensor, context: &CrossAttentionContext) -> Vec<usize> {
    [input.dims(), &[context.room()]].concat()
}

impl RecordedPass {
    /// Records what `predict` does with an input, timesteps and a context, and returns its prediction.
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

    /// Replays the pass with other values, and other prompts if given.
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
