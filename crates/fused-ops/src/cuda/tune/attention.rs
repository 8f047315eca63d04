//! Chooses between the general attention kernels and those for Hopper.

use super::super::launch::attention::AttentionOperands;
use super::super::launch::description::Element;
use super::super::runtime::kernels::Kernels;
use super::launched::Launched;
use super::measure::{done, is_recorded, milliseconds};
use crate::settings::AttentionKernels;
use candle_core::Result;
use std::collections::HashMap;

/// The sizes that the time of attention depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct AttentionShape {
    element: Element,
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
    causal: bool,
}

/// The choices for a device.
pub(super) struct AttentionTuner {
    kernels: AttentionKernels,
    takes_hopper: HashMap<AttentionShape, bool>,
}

impl AttentionTuner {
    /// # Errors
    /// If the settings ask for kernels that the device cannot run.
    pub(super) fn new(kernels: AttentionKernels, is_hopper: bool) -> Result<Self> {
        let kernels = match kernels {
            AttentionKernels::Hopper if !is_hopper => {
                candle_core::bail!("FUSED_OPS_ATTENTION=hopper asks for a GPU of compute capability 9.0")
            }
            // Only compute capability 9.0 has these instructions, not even later ones.
            AttentionKernels::Measured if !is_hopper => AttentionKernels::Default,
            kernels => kernels,
        };
        Ok(Self { kernels, takes_hopper: HashMap::new() })
    }

    /// Queues attention on the stream of `kernels`.
    ///
    /// # Safety
    /// See [`Kernels::launch`].
    pub(super) unsafe fn launch(&mut self, kernels: &Kernels, op: &AttentionOperands) -> Launched {
        let default = || {
            let launch = op.launch(kernels.multiprocessors())?;
            // SAFETY: the caller guarantees the addresses.
            Ok(unsafe { kernels.launch(&launch) })
        };
        let hopper = || {
            let launch = op.launch_on_hopper()?;
            // SAFETY: as above.
            Ok(unsafe { kernels.launch(&launch) })
        };
        // Packed sequences are too short for it.
        let covers = self.kernels != AttentionKernels::Default
            && op.launch_on_hopper().is_ok()
            && op.offsets.is_none();
        if covers && self.takes_hopper(kernels, op, default, hopper) { hopper() } else { default() }
    }

    fn takes_hopper(
        &mut self,
        kernels: &Kernels,
        op: &AttentionOperands,
        default: impl Fn() -> Launched,
        hopper: impl Fn() -> Launched,
    ) -> bool {
        let AttentionOperands { element, batch, queries, keys, heads, head_dim, causal, .. } = *op;
        let shape = AttentionShape { element, batch, queries, keys, heads, head_dim, causal };
        if self.kernels == AttentionKernels::Hopper {
            return true;
        }
        if let Some(&takes) = self.takes_hopper.get(&shape) {
            return takes;
        }
        // Nothing can be measured during recording.
        if is_recorded(kernels.stream()) {
            return false;
        }
        let default = milliseconds(kernels, || done(default()));
        let hopper = milliseconds(kernels, || done(hopper()));
        tracing::debug!(?shape, ?default, ?hopper, "milliseconds of attention");
        let takes = hopper.is_ok_and(|hopper| default.is_ok_and(|default| hopper < default));
        self.takes_hopper.insert(shape, takes);
        takes
    }
}
