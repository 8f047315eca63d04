//! Builds the scheduler of a run from a configuration.

use super::{
    Ddim, Ddpm, DpmSolverMultistep, DpmSolverSinglestep, EulerAncestralDiscrete, EulerDiscrete, HeunDiscrete,
    Lcm, LmsDiscrete, Pndm, Scheduler, SchedulerConfig, SchedulerKind, Steps, UniPcMultistep,
    fields::unsupported,
};
use crate::{Error, Result};

impl SchedulerConfig {
    /// A scheduler for one run of `steps` steps.
    ///
    /// # Errors
    /// See [`SchedulerConfig::build_for`].
    pub fn build(&self, steps: usize) -> Result<Box<dyn Scheduler>> {
        self.build_for(&Steps::Count(steps))
    }

    /// A scheduler for one run.
    ///
    /// # Errors
    /// If the class is not known, there are no steps or more than training timesteps, the scheduler does not support
    /// these steps or a field of the configuration, or the class needs a field that is missing.
    pub fn build_for(&self, steps: &Steps) -> Result<Box<dyn Scheduler>> {
        let kind = self.kind()?;
        if let Some(problem) = unsupported(&self.refused).filter(|_| kind.takes_flows()) {
            return Err(Error::content(&self.file, problem));
        }
        Ok(match kind {
            SchedulerKind::Ddpm => Box::new(Ddpm::new(self, steps)?),
            SchedulerKind::Ddim => Box::new(Ddim::new(self, steps)?),
            SchedulerKind::Pndm => Box::new(Pndm::new(self, steps)?),
            SchedulerKind::LmsDiscrete => Box::new(LmsDiscrete::new(self, steps)?),
            SchedulerKind::HeunDiscrete => Box::new(HeunDiscrete::new(self, steps)?),
            SchedulerKind::EulerDiscrete => Box::new(EulerDiscrete::new(self, steps)?),
            SchedulerKind::EulerAncestralDiscrete => Box::new(EulerAncestralDiscrete::new(self, steps)?),
            SchedulerKind::DpmSolverMultistep | SchedulerKind::DpmSolverMultistepSde => {
                Box::new(DpmSolverMultistep::new(self, steps)?)
            }
            SchedulerKind::DpmSolverSinglestep => Box::new(DpmSolverSinglestep::new(self, steps)?),
            SchedulerKind::UniPcMultistep => Box::new(UniPcMultistep::new(self, steps)?),
            SchedulerKind::Lcm => Box::new(Lcm::new(self, steps)?),
        })
    }
}
