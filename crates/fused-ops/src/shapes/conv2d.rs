//! Defines how a convolution moves over its input.

/// Zero rows and columns around an image.
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

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Pixels from one window to the next, along both axes.
    pub stride: usize,
    /// Zeros around the input, after any doubling.
    pub padding: Padding,
    /// Doubles the input by nearest neighbour first, as the upsampling blocks of the UNet and the VAE do.
    pub upsample: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: 1, padding: Padding::default(), upsample: false }
    }
}
