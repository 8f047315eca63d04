//! Spreads the steps of a run over the training timesteps.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How to spread a run's steps over the training timesteps: table 2 of Lin et al. 2023,
/// <https://arxiv.org/abs/2305.08891>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Evenly, including the first and the last timestep.
    Linspace,
    /// In equal integer steps from the first timestep, shifted by `steps_offset`; the last is left out.
    Leading,
    /// Evenly, backwards from the last timestep.
    Trailing,
}

impl TimestepSpacing {
    /// Every spacing.
    pub const ALL: [Self; 3] = [Self::Linspace, Self::Leading, Self::Trailing];

    /// The name in options and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linspace => "linspace",
            Self::Leading => "leading",
            Self::Trailing => "trailing",
        }
    }

    /// `steps` timesteps in `0..train`, ascending. Only those of [`TimestepSpacing::Linspace`] are not integers.
    ///
    /// # Errors
    /// If there are no steps, or more than `train`.
    pub(super) fn spread(self, steps: usize, train: usize, offset: usize) -> Result<Vec<f64>> {
        if steps == 0 {
            return Err(Error::option("steps", "0 steps, expected at least 1"));
        }
        if steps > train {
            return Err(Error::option(
                "steps",
                format!(
                    "{steps} steps, but the model was trained on {train} timesteps: expected at most {train}"
                ),
            ));
        }
        Ok(match self {
            Self::Linspace if steps == 1 => vec![0.0],
            Self::Linspace => {
                let last = (train - 1) as f64;
                let distance = last / (steps - 1) as f64;
                (0..steps - 1).map(|step| step as f64 * distance).chain([last]).collect()
            }
            Self::Leading => {
                let distance = train / steps;
                (0..steps).map(|step| (step * distance + offset) as f64).collect()
            }
            Self::Trailing => {
                let train = train as f64;
                // NumPy's `arange` increments by the difference of its first two values, which are rounded.
                let distance = train - (train - train / steps as f64);
                (0..steps)
                    .rev()
                    .map(|step| (train - step as f64 * distance).round_ties_even() - 1.0)
                    .collect()
            }
        })
    }

    /// Like [`TimestepSpacing::spread`], in integers that index the training timesteps.
    ///
    /// # Errors
    /// Also if `offset` shifts a timestep past the last.
    pub(super) fn spread_whole(self, steps: usize, train: usize, offset: usize) -> Result<Vec<usize>> {
        let timesteps: Vec<usize> = self
            .spread(steps, train, offset)?
            .into_iter()
            .map(|timestep| timestep.round_ties_even() as usize)
            .collect();
        match timesteps.last() {
            Some(&last) if last >= train => Err(Error::option(
                "steps",
                format!(
                    "with {steps} steps and a steps_offset of {offset} the first timestep is {last}, but the model \
                     knows those below {train}: expected fewer steps"
                ),
            )),
            _ => Ok(timesteps),
        }
    }
}

impl fmt::Display for TimestepSpacing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for TimestepSpacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|spacing| spacing.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::option("timestep spacing", format!("{name:?} is not known; expected one of {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where 1000 divided by the number of steps rounds down, NumPy's `arange` returns one entry too many, at zero,
    /// which the reference turns into a timestep of −1. This crate returns the requested number of steps.
    #[test]
    fn trailing_has_as_many_timesteps_as_asked_for() -> Result<()> {
        for steps in 1..=1000 {
            let timesteps = TimestepSpacing::Trailing.spread_whole(steps, 1000, 0)?;
            assert_eq!(timesteps.len(), steps);
            assert_eq!(timesteps.last(), Some(&999));
            assert!(timesteps.windows(2).all(|pair| pair[0] < pair[1]));
        }
        Ok(())
    }

    #[test]
    fn impossible_numbers_of_steps_are_errors() {
        for spacing in [TimestepSpacing::Linspace, TimestepSpacing::Leading, TimestepSpacing::Trailing] {
            assert!(spacing.spread(0, 1000, 0).is_err());
            assert!(spacing.spread(1001, 1000, 0).is_err());
        }
        let error = TimestepSpacing::Leading.spread_whole(1000, 1000, 1);
        assert!(error.is_err_and(|error| error.to_string().contains("steps_offset of 1")));
    }
}
