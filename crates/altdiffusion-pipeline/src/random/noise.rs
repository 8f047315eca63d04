//! Defines the source of a run's noise.

use candle_core::Tensor;

use crate::Result;

/// A source of standard normal numbers.
pub trait Noise: Send {
    /// Draws a tensor of any rank, f32, on the CPU.
    ///
    /// # Errors
    /// If there is no more noise of this shape.
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor>;

    /// Draws noise that a batch shares, such as for its initial image, whose shape is (1, …). The result is (1, …),
    /// or (images, …) if each image has its own generator.
    ///
    /// # Errors
    /// Like [`Noise::normal`].
    fn normal_for_all(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.normal(shape)
    }
}
