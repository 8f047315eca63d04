//! Defines the steps of a run.

use serde::{Deserialize, Serialize};

use super::{SchedulerConfig, SchedulerKind};
use crate::{Error, Result};

/// The steps of a run: their number or, for schedulers that take them, explicit noise levels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steps {
    /// A step at each of these training timesteps, descending.
    Timesteps(Vec<usize>),
    /// A step from each of these noise levels σ to the next, descending; the run ends at the last, usually 0.
    Sigmas(Vec<f32>),
    /// This many, spread as the configuration says. A number in JSON.
    #[serde(untagged)]
    Count(usize),
}

impl Steps {
    /// Their number.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::Timesteps(timesteps) => timesteps.len(),
            Self::Sigmas(sigmas) => sigmas.len().saturating_sub(1),
        }
    }

    /// Checks that `kind` and the training of `config` support these steps.
    pub(super) fn check(&self, kind: SchedulerKind, config: &SchedulerConfig) -> Result<()> {
        match self {
            Self::Count(_) => Ok(()),
            Self::Timesteps(_) if !kind.takes_timesteps() => {
                let others = SchedulerKind::names(SchedulerKind::takes_timesteps);
                let problem =
                    format!("not possible with {kind}; expected a number of steps, or one of {others}");
                Err(Error::option("timesteps", problem))
            }
            Self::Timesteps(timesteps) => {
                let train = config.num_train_timesteps;
                let descend = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
                match timesteps.first() {
                    Some(&first) if descend && first < train => Ok(()),
                    _ => {
                        let problem =
                            format!("expected at least one, each below the one before it and {train}");
                        Err(Error::option("timesteps", problem))
                    }
                }
            }
            Self::Sigmas(_) if !kind.takes_sigmas() => {
                let others = SchedulerKind::names(SchedulerKind::takes_sigmas);
                let problem = format!("not possible with {kind}; expected a number of steps, or {others}");
                Err(Error::option("sigmas", problem))
            }
            Self::Sigmas(sigmas) => {
                let descend = sigmas.windows(2).all(|pair| pair[0] > pair[1]);
                let ends = sigmas.first().zip(sigmas.last());
                match ends {
                    Some((first, last))
                        if sigmas.len() > 1 && descend && first.is_finite() && *last >= 0.0 =>
                    {
                        Ok(())
                    }
                    _ => {
                        let problem =
                            "expected at least two numbers, each below the one before it, none below 0";
                        Err(Error::option("sigmas", problem))
                    }
                }
            }
        }
    }
}

impl From<usize> for Steps {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}
