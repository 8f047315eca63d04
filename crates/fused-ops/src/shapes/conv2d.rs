//! Says how a convolution walks over its input.

/// Zero rows and columns added around an image before it is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same number of zeros on every side.
    pub const fn same(n: usize) -> Self {
        Self { top: n, left: n, bottom: n, right: n }
    }
}

/// How a convolution walks over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Pixels from one window to the next, in both directions.
    pub stride: usize,
    /// Zeros around the input, after any doubling.
    pub padding: Padding,
    /// Double the input by nearest neighbour first, as the upsampling blocks of UNet and VAE do.
    pub upsample: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: 1, padding: Padding::default(), upsample: false }
    }
}
