//! Launches guidance with the update of a scheduler.

use super::description::{Address, Element, Launch, NotCovered, elementwise, size};

/// As in `kernels/linear_step.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LinearStepParams {
    pub output: Address,
    pub sample: Address,
    pub history: [Address; 3],
    pub coefficients: Address,
    pub next: Address,
    pub kept: Address,
    pub next_input: Address,
    pub batch: i32,
    pub pixels: i32,
    pub channels: i32,
    pub guided: i32,
}

/// Guidance and the update of the sample by the scheduler.
#[derive(Debug, Clone, Copy)]
pub struct LinearStepOperands {
    pub element: Element,
    pub batch: usize,
    pub pixels: usize,
    pub channels: usize,
    /// Whether the model's output has two halves, the one without the prompt first.
    pub guided: bool,
    /// (batch, pixels, channels), or twice as many.
    pub output: Address,
    /// f32, (batch, channels, pixels), as the samples and outputs below.
    pub sample: Address,
    /// Guided outputs of the steps before, the newest first.
    pub history: [Option<Address>; 3],
    /// The numbers of [`crate::LinearStep`].
    pub coefficients: Address,
    pub next: Address,
    /// Where the guided output goes, if later steps want it.
    pub kept: Option<Address>,
    /// What the model reads next, of the shape of `output`.
    pub next_input: Address,
}

impl LinearStepOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<LinearStepParams>, NotCovered> {
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
