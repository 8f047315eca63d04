//! Rejects configuration values that no scheduler can run with.

use super::SchedulerConfig;
use crate::Result;

/// More than any model was trained with; a larger number is a mistake that would ask for gigabytes.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

impl SchedulerConfig {
    /// Rejects values that no scheduler can run with.
    pub(super) fn check(&self) -> Result<()> {
        let timesteps = self.num_train_timesteps;
        if timesteps == 0 || timesteps > MAX_TRAIN_TIMESTEPS {
            return Err(self.error(
                "num_train_timesteps",
                format!("is {timesteps}, expected 1 to {MAX_TRAIN_TIMESTEPS}"),
            ));
        }
        match &self.trained_betas {
            Some(betas) => {
                if betas.len() != timesteps {
                    return Err(self.error(
                        "trained_betas",
                        format!("has {} values, but num_train_timesteps is {timesteps}", betas.len()),
                    ));
                }
                if let Some(beta) = betas.iter().find(|beta| !(0.0..=1.0).contains(*beta)) {
                    return Err(self.error("trained_betas", format!("has {beta}, expected 0 to 1")));
                }
            }
            None => {
                let (start, end, schedule) = self.betas();
                for (field, beta) in [("beta_start", start), ("beta_end", end)] {
                    if !(0.0..=1.0).contains(&beta) {
                        return Err(self.error(field, format!("is {beta}, expected 0 to 1")));
                    }
                }
                if start > end && !schedule.is_fixed() {
                    return Err(self.error("beta_start", format!("is {start}, larger than beta_end, {end}")));
                }
            }
        }
        if self.steps_offset >= timesteps {
            return Err(self.error(
                "steps_offset",
                format!("is {}, but num_train_timesteps is {timesteps}", self.steps_offset),
            ));
        }
        for (field, value) in [
            ("clip_sample_range", self.clip_sample_range),
            ("sample_max_value", self.sample_max_value),
            ("sigma_min", self.sigma_min.unwrap_or(1.0)),
            ("sigma_max", self.sigma_max.unwrap_or(1.0)),
            ("timestep_scaling", self.timestep_scaling),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(self.error(field, format!("is {value}, expected more than 0")));
            }
        }
        if !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
            return Err(self.error(
                "dynamic_thresholding_ratio",
                format!("is {}, expected 0 to 1", self.dynamic_thresholding_ratio),
            ));
        }
        if self.lambda_min_clipped.is_nan() {
            return Err(self.error("lambda_min_clipped", "is NaN, expected a number"));
        }
        for (field, count) in
            [("solver_order", self.solver_order), ("original_inference_steps", self.original_inference_steps)]
        {
            if count == 0 {
                return Err(self.error(field, "is 0, expected at least 1"));
            }
        }
        match (self.sigma_min, self.sigma_max) {
            (Some(min), Some(max)) if min > max => {
                Err(self.error("sigma_min", format!("is {min}, larger than sigma_max, {max}")))
            }
            _ => Ok(()),
        }
    }
}
