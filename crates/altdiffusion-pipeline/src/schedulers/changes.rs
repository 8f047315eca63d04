//! Changes the scheduler that a checkpoint configures.

use serde_json::Map;

use super::{Algorithm, SchedulerConfig, SchedulerKind, SigmaSpacing, TimestepSpacing};
use crate::{Error, Result};

impl SchedulerConfig {
    /// Replaces the scheduler and keeps the noise levels. Fields that only the old class knew are dropped.
    pub fn with_kind(mut self, kind: SchedulerKind) -> Self {
        kind.class_name().clone_into(&mut self.class_name);
        self = self.without_unread_spacing();
        match kind {
            SchedulerKind::DpmSolverMultistep => self.algorithm_type = Algorithm::DpmSolverPlusPlus,
            SchedulerKind::DpmSolverMultistepSde => self.algorithm_type = Algorithm::SdeDpmSolverPlusPlus,
            _ => {}
        }
        self.refused = Map::new();
        self
    }

    /// Replaces the spacing of the sigmas.
    ///
    /// # Errors
    /// If the scheduler does not support this spacing.
    pub fn with_sigma_spacing(mut self, spacing: SigmaSpacing) -> Result<Self> {
        let kind = self.kind()?;
        if !kind.takes_sigma_spacing(spacing) {
            let others = SchedulerKind::names(|kind| kind.takes_sigma_spacing(spacing));
            let problem = format!("{spacing} is not possible with {kind}; expected one of {others}");
            return Err(Error::option("sigma spacing", problem));
        }
        self.sigma_spacing = spacing;
        Ok(self)
    }

    /// Replaces the spacing of the timesteps.
    ///
    /// # Errors
    /// If the scheduler supports only one spacing.
    pub fn with_timestep_spacing(mut self, spacing: TimestepSpacing) -> Result<Self> {
        let kind = self.kind()?;
        if !kind.takes_timestep_spacing() {
            let others = SchedulerKind::names(SchedulerKind::takes_timestep_spacing);
            let problem = format!("{kind} has but one; expected one of {others}");
            return Err(Error::option("timestep spacing", problem));
        }
        self.timestep_spacing = Some(spacing);
        Ok(self)
    }

    /// Sets how much noise DDIM adds in each step: [`SchedulerConfig::eta`].
    ///
    /// # Errors
    /// If it is not in 0 to 1, or not 0 for a scheduler other than DDIM.
    pub fn with_eta(mut self, eta: f64) -> Result<Self> {
        let kind = self.kind()?;
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::option("eta", format!("{eta}, expected 0 to 1")));
        }
        if eta != 0.0 && kind != SchedulerKind::Ddim {
            return Err(Error::option("eta", format!("{eta} has no meaning for {kind}; expected ddim")));
        }
        self.eta = eta;
        Ok(self)
    }

    /// Drops a spacing of the sigmas that the class in diffusers would not read.
    pub(super) fn without_unread_spacing(mut self) -> Self {
        if self.kind().is_ok_and(|kind| !kind.reads_sigma_spacing()) {
            self.sigma_spacing = SigmaSpacing::Timesteps;
        }
        self
    }

    /// Corrects the configuration like diffusers' `AltDiffusionPipeline` on loading: `steps_offset` is 1 and the
    /// predicted sample is not clipped, since latents have no fixed range. Older published files say otherwise.
    pub fn for_latents(mut self) -> Self {
        if self.steps_offset != 1 {
            tracing::debug!("{}: steps_offset is {}, using 1", self.file, self.steps_offset);
            self.steps_offset = 1;
        }
        self.clip_sample = Some(false);
        self
    }
}
