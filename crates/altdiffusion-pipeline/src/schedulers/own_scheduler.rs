//! Brings the caller's own schedulers into the loop.

use std::fmt;
use std::sync::Arc;

use super::{Scheduler, Steps};
use crate::Result;

/// A function that makes a new scheduler for each run. It brings your own [`Scheduler`] into the loop.
///
/// ```
/// use altdiffusion_pipeline::schedulers::{SchedulerConfig, SchedulerFactory};
///
/// let config = SchedulerConfig::default();
/// let factory = SchedulerFactory::new(move |steps| config.build_for(steps));
/// assert_eq!(factory.build(&20.into())?.timesteps().len(), 20);
/// # Ok::<_, altdiffusion_pipeline::Error>(())
/// ```
#[derive(Clone)]
pub struct SchedulerFactory(Arc<Build>);

type Build = dyn Fn(&Steps) -> Result<Box<dyn Scheduler>> + Send + Sync;

impl SchedulerFactory {
    /// Wraps a function from the requested steps to a scheduler.
    pub fn new(build: impl Fn(&Steps) -> Result<Box<dyn Scheduler>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(build))
    }

    /// Builds the scheduler of a run.
    ///
    /// # Errors
    /// The errors of the function.
    pub fn build(&self, steps: &Steps) -> Result<Box<dyn Scheduler>> {
        (self.0)(steps)
    }
}

impl fmt::Debug for SchedulerFactory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SchedulerFactory")
    }
}
