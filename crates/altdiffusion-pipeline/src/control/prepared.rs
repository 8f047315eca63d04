//! Computes the ControlNets' residuals in the steps of a run.

use std::sync::Arc;

use candle_core::Tensor;

use super::Control;
use crate::Result;
use crate::controlnet::{Condition, ControlNetModel};
use crate::unet::{AdditionalResiduals, CrossAttentionContext};

/// The ControlNets of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct PreparedControls {
    pub controls: Vec<PreparedControl>,
    /// Whether to leave the unconditional half alone, and to follow the image less at higher resolutions.
    pub guess_mode: bool,
}

/// One ControlNet, with what stays the same in all steps.
#[derive(Debug, Clone)]
pub(crate) struct PreparedControl {
    net: Arc<ControlNetModel>,
    condition: Condition,
    /// For the whole batch, or only for its conditional half in guess mode.
    context: CrossAttentionContext,
    scale: f64,
    start: f64,
    end: f64,
}

impl PreparedControl {
    pub(crate) fn new(control: &Control, condition: Condition, context: CrossAttentionContext) -> Self {
        let Control { ref net, scale, start, end, .. } = *control;
        Self { net: net.clone(), condition, context, scale, start, end }
    }

    /// Whether the image is followed in step `step` of `steps`.
    fn is_followed(&self, step: usize, steps: usize) -> bool {
        let (before, after) = (step as f64 / steps as f64, (step + 1) as f64 / steps as f64);
        before >= self.start && after <= self.end && self.scale != 0.0
    }
}

impl PreparedControls {
    /// The residuals of a step, for latents (images, channels, height, width) as the scheduler scales them; `None` if
    /// no image is followed in this step.
    pub(crate) fn residuals(
        &self,
        sample: &Tensor,
        timestep: f64,
        (step, steps): (usize, usize),
        guided: bool,
    ) -> Result<Option<AdditionalResiduals>> {
        let half_goes_without = guided && self.guess_mode;
        let sample = match guided && !self.guess_mode {
            true => &Tensor::cat(&[sample, sample], 0)?,
            false => sample,
        };
        let timesteps = Tensor::full(timestep as f32, sample.dim(0)?, sample.device())?;
        let mut sum: Option<AdditionalResiduals> = None;
        for control in self.controls.iter().filter(|control| control.is_followed(step, steps)) {
            let residuals = control.net.forward(sample, &timesteps, &control.context, &control.condition)?;
            let residuals = match self.guess_mode && !control.net.config().global_pool_conditions {
                true => residuals.faded(control.scale)?,
                false => residuals.scaled(control.scale)?,
            };
            sum = Some(match sum {
                Some(sum) => sum.plus(&residuals)?,
                None => residuals,
            });
        }
        match sum {
            Some(sum) if half_goes_without => Ok(Some(sum.for_conditioned_half()?)),
            sum => Ok(sum),
        }
    }
}
