//! Builds an objective from two closures.

use crate::error::Result;
use crate::gradients::Gradients;
use crate::run::{Batch, Objective};
use image::RgbImage;

/// The two functions of an [`Objective`].
pub struct ObjectiveFunctions<G, S> {
    /// [`Objective::gradients`].
    pub gradients: G,
    /// [`Objective::sample`].
    pub sample: S,
}

impl<G, S> Objective for ObjectiveFunctions<G, S>
where
    G: Fn(&mut Batch) -> Result<Gradients>,
    S: Fn() -> Result<Option<RgbImage>>,
{
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients> {
        (self.gradients)(batch)
    }

    fn sample(&self) -> Result<Option<RgbImage>> {
        (self.sample)()
    }
}
