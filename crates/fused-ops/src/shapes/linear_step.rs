//! Defines a sampler's step as a linear combination.

use candle_core::Tensor;

/// A sampler's step that is linear in the sample and the model's outputs, as in DDIM, Euler and PNDM.
#[derive(Debug, Clone, Copy)]
pub struct LinearStep<'a> {
    /// f32, (7), on the sample's device, so that nothing waits for the host: the guidance scale, the weights of the
    /// sample, this output and the history, and the factor of the next sample as the model's input.
    pub coefficients: &'a Tensor,
    /// Other terms, such as the guided outputs of up to three earlier steps, shaped like the sample.
    pub history: &'a [&'a Tensor],
    /// Whether the output has two halves, the unconditional one first (Ho & Salimans, arXiv 2207.12598).
    pub guided: bool,
}

/// The result of a [`LinearStep`].
#[derive(Debug, Clone)]
pub struct Stepped {
    /// The next sample: f32, (batch, channels, height, width).
    pub sample: Tensor,
    /// This step's guided output, for the history: f32, shaped like the sample.
    pub output: Tensor,
    /// The model's next input, in the shape and type of its output.
    pub model_input: Tensor,
}

impl LinearStep<'_> {
    /// The limit for the history.
    pub const MAX_HISTORY: usize = 3;
    /// The number of coefficients.
    pub(crate) const COEFFICIENTS: usize = 7;
}
