//! Draws the noise of a run, one tensor after the other.

use candle_core::Tensor;

use crate::Result;

/// A source of standard normal numbers.
pub trait Noise: Send {
    /// The next tensor of them, f32, on the CPU. A shape may have any number of dimensions.
    ///
    /// # Errors
    /// When there is no more noise of this shape.
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor>;

    /// Noise for what all images of a batch have in common, such as the one that they begin with, whose shape is (1, …):
    /// once, unless each image has a generator of its own, and then (images, …).
    ///
    /// # Errors
    /// As [`Noise::normal`].
    fn normal_for_all(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.normal(shape)
    }
}
