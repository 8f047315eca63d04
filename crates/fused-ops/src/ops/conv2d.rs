//! Convolves channels-last images.

use super::linear::Linear;
use super::weight::{Pack, Weight, packed_bias};
use super::{epilogue, low_rank};
use crate::cpu::conv2d::Geometry;
use crate::cpu::epilogue::SliceEpilogue;
use crate::cpu::microkernel::Stored;
use crate::cpu::pack::{FactorSize, Panels};
use crate::cpu::packed_weight::PackedWeight;
use crate::shapes::{Conv2dOptions, Epilogue, Padding};
use crate::tensors::compute_dtype::for_computing;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder};
use std::sync::{Arc, OnceLock};

/// A square convolution with weights in PyTorch's layout, `(out, in, kernel, kernel)`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Weight,
    /// The weights of a doubled image's phases, on a GPU.
    #[cfg(feature = "cuda")]
    phases: Option<Tensor>,
    /// The weight transformed for Winograd's algorithm, on first use.
    transformed: Arc<OnceLock<Panels>>,
    bias: Option<Tensor>,
    /// A LoRA: down over the same window, and up at each position.
    low_rank: Option<Arc<(Conv2d, Linear)>>,
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    options: Conv2dOptions,
}

impl Conv2d {
    /// Reads `weight` (out, in, kernel, kernel) and `bias` (out) from `vb`. On the CPU a
    /// [quantized](crate::BlockType) weight stays quantized, with a [LoRA](crate::LORA_DOWN) computed beside it.
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
        Ok(Self { bias: Some(for_computing(bias)?), ..layer })
    }

    /// Like [`Conv2d::new`], without a bias.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new_no_bias(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        options: Conv2dOptions,
        vb: VarBuilder,
    ) -> Result<Self> {
        let shape = (out_channels, in_channels, kernel, kernel);
        let geometry = Geometry { batch: 0, height: 0, width: 0, in_channels, out_channels, kernel, options };
        let low_rank = match low_rank::read(&vb, &[in_channels, kernel, kernel], out_channels)? {
            Some((down, up)) => {
                Some(Arc::new((Self::from_weight(down, options)?, Linear::from_tensors(up, None)?)))
            }
            None => None,
        };
        Ok(Self { low_rank, ..Self::from_parts(Weight::read(&vb, shape, &geometry)?, &geometry)? })
    }

    /// A layer with a weight (out, in, kernel, kernel) and no bias.
    fn from_weight(weight: Tensor, options: Conv2dOptions) -> Result<Self> {
        let (out_channels, in_channels, kernel, _) = weight.dims4()?;
        let geometry = Geometry { batch: 0, height: 0, width: 0, in_channels, out_channels, kernel, options };
        Self::from_parts(Weight::new(weight, &geometry)?, &geometry)
    }

    /// A layer with a weight only, for images of any size.
    fn from_parts(weight: Weight, geometry: &Geometry) -> Result<Self> {
        let Geometry { in_channels, out_channels, kernel, options, .. } = *geometry;
        #[cfg(feature = "cuda")]
        let (weight, phases) = match weight {
            Weight::Plain(weight) => {
                let phases = crate::cuda::ops::phases(&weight, options)?;
                (Weight::Plain(crate::cuda::ops::lay_out_weight(weight)?), phases)
            }
            weight => (weight, None),
        };
        Ok(Self {
            weight,
            #[cfg(feature = "cuda")]
            phases,
            transformed: Arc::default(),
            bias: None,
            low_rank: None,
            in_channels,
            out_channels,
            kernel,
            options,
        })
    }

    /// The same convolution without doubling, for an input that is already enlarged.
    pub fn without_upsample(&self) -> Self {
        let options = Conv2dOptions { upsample: false, ..self.options };
        let low_rank = self.low_rank.as_deref().map(|(down, up)| (down.without_upsample(), up.clone()));
        // For a doubled image, Winograd's algorithm transforms weights differently.
        Self { options, low_rank: low_rank.map(Arc::new), transformed: Arc::default(), ..self.clone() }
    }

    /// `(batch, height, width, in)` to `(batch, height', width', out)`, where
    /// `height' = (height · (2 if upsampled) + padding − kernel) / stride + 1`.
    ///
    /// # Errors
    /// If `x` has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, &Epilogue::default())
    }

    /// Like [`Conv2d::forward`], followed by an epilogue.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_with(&self, x: &Tensor, epilogue: &Epilogue) -> Result<Tensor> {
        let Some((down, up)) = self.low_rank.as_deref() else { return self.forward_alone(x, epilogue) };
        let change = up.forward(&down.forward(x)?)?;
        epilogue::apply(epilogue, self.forward_alone(x, &Epilogue::residual(&change))?)
    }

    /// The weight's part, without the LoRA.
    fn forward_alone(&self, x: &Tensor, epilogue: &Epilogue) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let Self { in_channels, out_channels, kernel, options, .. } = *self;
        if channels != in_channels {
            candle_core::bail!(
                "a convolution of {in_channels} channels got an input of shape {:?}",
                x.dims()
            );
        }
        let geometry = Geometry { batch, height, width, in_channels, out_channels, kernel, options };
        let y = match &self.weight {
            Weight::Packed(weight) if epilogue::is_fusible(epilogue, x) => {
                let bias = packed_bias(self.bias.as_ref())?;
                let dims = out_shape(&geometry);
                return epilogue::run(epilogue, x, dims.dims(), bias.as_deref(), |x, epilogue| {
                    geometry.forward_fast(x, weight, &self.transformed, epilogue)
                });
            }
            Weight::Plain(weight) if on_cpu(x) => {
                let bias = match &self.bias {
                    Some(bias) => bias.clone(),
                    None => Tensor::zeros(out_channels, x.dtype(), x.device())?,
                };
                let y = as_f32(x)?.apply_op3(&as_f32(weight)?, &as_f32(&bias)?, Conv2dOp(geometry))?;
                y.to_dtype(x.dtype())?
            }
            Weight::Plain(weight) => {
                #[cfg(feature = "cuda")]
                {
                    let weights = crate::cuda::ops::Conv2dWeights {
                        weight,
                        phases: self.phases.as_ref(),
                        bias: self.bias.as_ref(),
                    };
                    let size = [geometry.out_height(), geometry.out_width()];
                    if let Some(y) = crate::cuda::ops::conv2d(x, weights, options, size, epilogue)? {
                        return Ok(y);
                    }
                }
                conv2d_reference(x, weight, self.bias.as_ref(), options)?
            }
            Weight::Packed(weight) => {
                let bias = packed_bias(self.bias.as_ref())?;
                let op = PackedConv2dOp { geometry, weight: weight.clone(), bias };
                as_f32(x)?.apply_op1(op)?.to_dtype(x.dtype())?
            }
        };
        epilogue::apply(epilogue, y)
    }
}

impl Pack for Geometry {
    fn size(&self) -> FactorSize {
        FactorSize { taps: self.taps(), depth: self.in_channels, columns: self.out_channels }
    }

    fn pack<T: Stored>(&self, weight: &[T]) -> Panels<T> {
        self.pack(weight)
    }
}

fn out_shape(g: &Geometry) -> Shape {
    Shape::from((g.batch, g.out_height(), g.out_width(), g.out_channels))
}

/// A frozen convolution: only the input has a gradient.
struct PackedConv2dOp {
    geometry: Geometry,
    weight: Arc<PackedWeight>,
    bias: Option<Arc<[f32]>>,
}

impl CustomOp1 for PackedConv2dOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, epilogue) = (slice(x, layout)?, SliceEpilogue::bias(self.bias.as_deref()));
        let y = self.geometry.forward(x, &self.weight, &epilogue);
        Ok((CpuStorage::F32(y), out_shape(&self.geometry)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let panels = self.geometry.pack_transposed_panels(&self.weight);
        with_slice(grad, |grad| gradient(self.geometry.input_gradient_of_panels(&panels, grad), x))
    }
}

/// A trained convolution: input, weight and bias have gradients.
struct Conv2dOp(Geometry);

impl CustomOp3 for Conv2dOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weight = self.0.pack(slice(weight, weight_layout)?);
        let epilogue = SliceEpilogue::bias(Some(slice(bias, bias_layout)?));
        let y = self.0.forward_once(slice(x, x_layout)?, &weight, &epilogue);
        Ok((CpuStorage::F32(y), out_shape(&self.0)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        with_slice(grad, |grad| {
            // The first layer's image is not differentiated and needs no gradient.
            let grad_x = if x.track_op() {
                gradient(with_slice(weight, |weight| Ok(self.0.input_gradient(weight, grad)))?, x)?
            } else {
                None
            };
            let (grad_weight, grad_bias) = with_slice(x, |x| Ok(self.0.weight_gradient(x, grad)))?;
            Ok((grad_x, gradient(grad_weight, weight)?, gradient(grad_bias, bias)?))
        })
    }
}

/// The definition of [`Conv2d::forward`], in candle tensors: `x` (batch, height, width, in), `weight`
/// (out, in, kernel, kernel), `bias` (out).
///
/// # Errors
/// If the shapes do not fit together.
pub fn conv2d_reference(
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
