//! Brings the caller's own noise into a run.

use std::fmt;
use std::sync::Arc;

use super::Noise;
use crate::Result;

/// A function that makes the source of a run's noise from the number of images. It brings your own [`Noise`] into the
/// run, such as a generator that was used before.
///
/// ```
/// use altdiffusion_pipeline::random::{NoiseFactory, TorchCpu};
///
/// let factory = NoiseFactory::new(|_images| Ok(Box::new(TorchCpu::new(7))));
/// assert_eq!(factory.build(1)?.normal(&[1, 4, 8, 8])?.dims(), [1, 4, 8, 8]);
/// # Ok::<_, altdiffusion_pipeline::Error>(())
/// ```
#[derive(Clone)]
pub struct NoiseFactory(Arc<Build>);

type Build = dyn Fn(usize) -> Result<Box<dyn Noise>> + Send + Sync;

impl NoiseFactory {
    /// Wraps a function from the number of images to a source of noise.
    pub fn new(build: impl Fn(usize) -> Result<Box<dyn Noise>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(build))
    }

    /// Builds the source of a run's noise.
    ///
    /// # Errors
    /// The errors of the function.
    pub fn build(&self, images: usize) -> Result<Box<dyn Noise>> {
        (self.0)(images)
    }
}

impl fmt::Debug for NoiseFactory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NoiseFactory")
    }
}
