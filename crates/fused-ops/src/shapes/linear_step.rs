//! Says how a sampler steps from one sample to the next.

use candle_core::Tensor;

/// A step of a sampler that is linear in the sample and the model's outputs, as those of DDIM, Euler and PNDM are.
#[derive(Debug, Clone, Copy)]
pub struct LinearStep<'a> {
    /// f32, (7), on the device of the sample, where nothing has to wait for the host: the scale of guidance, the weights of
    /// the sample, of this output and of the history, and what the next sample is multiplied by before the model sees it.
    pub coefficients: &'a Tensor,
    /// What else goes into it, such as the guided outputs of up to three steps before; each as the sample.
    pub history: &'a [&'a Tensor],
    /// Whether the output has two halves, the one without the prompt first (Ho & Salimans, arXiv 2207.12598).
    pub guided: bool,
}

/// What a [`LinearStep`] gives.
#[derive(Debug, Clone)]
pub struct Stepped {
    /// The next sample: f32, (batch, channels, height, width).
    pub sample: Tensor,
    /// This step's output after guidance, for the history: f32, as the sample.
    pub output: Tensor,
    /// What the model reads next, of the shape and type of its output.
    pub model_input: Tensor,
}

impl LinearStep<'_> {
    /// The most tensors of its history.
    pub const MAX_HISTORY: usize = 3;
    /// The numbers of its coefficients.
    pub(crate) const COEFFICIENTS: usize = 7;
}
