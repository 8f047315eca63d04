//! How the small operations around the UNet are launched.

use super::launch::{Address, Element, Launch, NotCovered, blocks, size};

/// As in `kernels/denoise.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct TimestepParams {
    pub timesteps: Address,
    pub out: Address,
    pub batch: i32,
    pub channels: i32,
    pub step: f32,
    pub cosines_first: i32,
}

/// As in `kernels/denoise.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct GuidedStepParams {
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

/// As in `kernels/denoise.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BytesParams {
    pub x: Address,
    pub out: Address,
    pub count: i64,
}

/// Sines and cosines of timesteps, (batch) to (batch, channels), as in diffusers' `get_timestep_embedding`.
#[derive(Debug, Clone, Copy)]
pub struct TimestepEmbedding {
    pub element: Element,
    pub batch: usize,
    pub channels: usize,
    pub cosines_first: bool,
    /// 0 or 1; see [`TimestepEmbedding::launch`].
    pub freq_shift: f64,
    /// f32
    pub timesteps: Address,
    pub out: Address,
}

/// Guidance and the update of the sample by the scheduler.
#[derive(Debug, Clone, Copy)]
pub struct GuidedStep {
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

/// Values from −1 to 1 as bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    pub element: Element,
    pub count: usize,
    pub x: Address,
    pub out: Address,
}

const THREADS: usize = 256;

/// The wavelength of the slowest sinusoid, over 2π.
const MAX_PERIOD: f64 = 10_000.;

fn launch<P>(name: &str, element: Element, items: usize, params: P) -> Result<Launch<P>, NotCovered> {
    let (kernel, grid) = (format!("{name}_{element}"), [blocks(items, THREADS)?, 1, 1]);
    Ok(Launch { kernel, grid, threads: THREADS as u32, shared_bytes: 0, params })
}

impl TimestepEmbedding {
    /// The launch. Of n frequencies the i-th is 10000^(−i / (n − `freq_shift`)).
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<TimestepParams>, NotCovered> {
        let half = (self.channels / 2) as f64;
        let params = TimestepParams {
            timesteps: self.timesteps,
            out: self.out,
            batch: size(self.batch)?,
            channels: size(self.channels)?,
            step: (-MAX_PERIOD.log2() / (half - self.freq_shift)) as f32,
            cosines_first: self.cosines_first.into(),
        };
        size(self.batch * self.channels)?;
        launch("timestep_embedding", self.element, self.batch * self.channels, params)
    }
}

impl GuidedStep {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<GuidedStepParams>, NotCovered> {
        let params = GuidedStepParams {
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
        launch("guided_step", self.element, self.batch * self.pixels * self.channels, params)
    }
}

impl Bytes {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<BytesParams>, NotCovered> {
        if !self.x.is_multiple_of(16) || !self.out.is_multiple_of(8) {
            return Err(NotCovered("pixels that do not begin at a multiple of 16 bytes"));
        }
        let params = BytesParams { x: self.x, out: self.out, count: self.count as i64 };
        launch("to_bytes", self.element, self.count.div_ceil(8), params)
    }
}
