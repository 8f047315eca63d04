//! Launches guidance and a scheduler's update.

use super::description::{Address, Element, Launch, NotCovered, elementwise, size};

/// As in `kernels/linear_step.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct LinearStepParams {
    pub(crate) output: Address,
    pub(crate) sample: Address,
    pub(crate) history: [Address; 3],
    pub(crate) coefficients: Address,
    pub(crate) next: Address,
    pub(crate) kept: Address,
    pub(crate) next_input: Address,
    pub(crate) batch: i32,
    pub(crate) pixels: i32,
    pub(crate) channels: i32,
    pub(crate) guided: i32,
}

/// Guidance and the scheduler's update of the sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearStepOperands {
    pub(crate) element: Element,
    pub(crate) batch: usize,
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    /// Whether the model's output has two halves, the unconditional one first.
    pub(crate) guided: bool,
    /// (batch, pixels, channels), or twice as many.
    pub(crate) output: Address,
    /// f32, (batch, channels, pixels), like the samples and outputs below.
    pub(crate) sample: Address,
    /// Guided outputs of earlier steps, newest first.
    pub(crate) history: [Option<Address>; 3],
    /// The coefficients of [`crate::LinearStep`].
    pub(crate) coefficients: Address,
    pub(crate) next: Address,
    /// Where to write the guided output, if later steps need it.
    pub(crate) kept: Option<Address>,
    /// The model's next input, shaped like `output`.
    pub(crate) next_input: Address,
}

impl LinearStepOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self) -> Result<Launch<LinearStepParams>, NotCovered> {
        let params = LinearStepParams {
            output: self.output,
            sample: self.sample,
            history: self.history.map(|address| address.unwrap_or(0)),
            coefficients: self.coefficients,
            next: self.next,
            kept: self.kept.unwrap_or(0),
            next_input: self.next_input,
            batch: size(self.batch)?,
            pixels: size(self.pixels)?,
            channels: size(self.channels)?,
            guided: self.guided.into(),
        };
        elementwise("linear_step", self.element, self.batch * self.pixels * self.channels, params)
    }
}
