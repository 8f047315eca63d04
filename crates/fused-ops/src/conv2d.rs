//! Two-dimensional convolution over channels-last pictures.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder, init};

/// Zero rows and columns added around a picture before it is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    pub top: usize,
    pub left: usize,
    pub bottom: usize,
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
    pub stride: usize,
    pub padding: Padding,
    /// Double the input by nearest neighbour first, as the upsampling blocks of UNet and VAE do.
    pub upsample: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: 1, padding: Padding::default(), upsample: false }
    }
}

/// A square convolution with weights as PyTorch stores them, `(out, in, kernel, kernel)`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    options: Conv2dOptions,
}

impl Conv2d {
    /// Reads `weight` (out, in, kernel, kernel) and `bias` (out) from `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        options: Conv2dOptions,
        vb: VarBuilder,
    ) -> Result<Self> {
        let bound = 1. / ((in_channels * kernel * kernel) as f64).sqrt();
        let bias = vb.get_with_hints(out_channels, "bias", Init::Uniform { lo: -bound, up: bound })?;
        let layer = Self::new_no_bias(in_channels, out_channels, kernel, options, vb)?;
        Ok(Self { bias: Some(bias), ..layer })
    }

    /// Like [`Conv2d::new`], without a bias.
    pub fn new_no_bias(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        options: Conv2dOptions,
        vb: VarBuilder,
    ) -> Result<Self> {
        let shape = (out_channels, in_channels, kernel, kernel);
        let weight = vb.get_with_hints(shape, "weight", init::DEFAULT_KAIMING_UNIFORM)?;
        Ok(Self { weight, bias: None, options })
    }

    /// The same convolution without the doubling before it, for input that is enlarged already.
    pub fn without_upsample(&self) -> Self {
        let options = Conv2dOptions { upsample: false, ..self.options };
        Self { options, ..self.clone() }
    }

    /// `(batch, height, width, in)` to `(batch, height', width', out)`, where
    /// `height' = (height · (2 if upsampled) + padding − kernel) / stride + 1`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv2d_reference(x, &self.weight, self.bias.as_ref(), self.options)
    }
}

/// The definition, in candle tensors.
pub(crate) fn conv2d_reference(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: Conv2dOptions,
) -> Result<Tensor> {
    let Padding { top, left, bottom, right } = options.padding;
    let mut x = x.permute((0, 3, 1, 2))?; // (batch, channels, height, width)
    if options.upsample {
        let (_, _, h, w) = x.dims4()?;
        x = x.contiguous()?.upsample_nearest2d(2 * h, 2 * w)?;
    }
    let x = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()?;
    let y = x.conv2d(weight, 0, options.stride, 1, 1)?.permute((0, 2, 3, 1))?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => y.contiguous(),
    }
}
