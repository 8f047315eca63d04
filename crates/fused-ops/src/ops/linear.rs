//! Multiplies by weights: `x · weightᵀ + bias`.

use super::geglu::geglu;
use super::input_record::InputRecord;
use super::layer_norm::LayerNorm;
use super::weight::{Pack, Weight, packed_bias};
use super::{epilogue, low_rank};
use crate::cpu::epilogue::SliceEpilogue;
use crate::cpu::matmul::gather_product;
use crate::cpu::matmul_gradient::{column_sums, gather_gradient};
use crate::cpu::microkernel::{PANEL, Stored};
use crate::cpu::pack::{FactorSize, Panels, Strides};
use crate::cpu::packed_weight::PackedWeight;
use crate::cpu::window::Window;
use crate::shapes::Epilogue;
use crate::tensors::compute_dtype::for_computing;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder};
use std::sync::Arc;

mod feed_forward;

/// A linear layer with weights in PyTorch's layout, `(out, in)`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    /// A LoRA: down and up.
    low_rank: Option<Arc<(Linear, Linear)>>,
    /// Where to record what the layer takes in, while its weight is measured.
    record: Option<Arc<InputRecord>>,
}

impl Linear {
    /// Reads `weight` (out, in) and, if `bias`, `bias` (out) from `vb`. On the CPU a [quantized](crate::BlockType)
    /// weight stays quantized, with a [LoRA](crate::LORA_DOWN) computed beside it.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(in_features: usize, out_features: usize, bias: bool, vb: VarBuilder) -> Result<Self> {
        let weight =
            Weight::read(&vb, (out_features, in_features), &MatrixLayout { in_features, out_features })?;
        let bound = 1. / (in_features as f64).sqrt();
        let bias = bias
            .then(|| vb.get_with_hints(out_features, "bias", Init::Uniform { lo: -bound, up: bound }))
            .transpose()?;
        let low_rank = match low_rank::read(&vb, &[in_features], out_features)? {
            Some((down, up)) => {
                Some(Arc::new((Self::from_tensors(down, None)?, Self::from_tensors(up, None)?)))
            }
            None => None,
        };
        let record = InputRecord::read(&vb, in_features)?.map(Arc::new);
        Ok(Self { weight, bias: bias.map(for_computing).transpose()?, low_rank, record })
    }

    /// A layer with a weight (out, in) and a bias (out).
    ///
    /// # Errors
    /// If the weight is not a matrix.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (out_features, in_features) = weight.dims2()?;
        let weight = Weight::new(weight, &MatrixLayout { in_features, out_features })?;
        Ok(Self { weight, bias: bias.map(for_computing).transpose()?, low_rank: None, record: None })
    }

    /// `(…, in)` to `(…, out)`.
    ///
    /// # Errors
    /// If the last dimension is not `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, &Epilogue::default())
    }

    /// Like [`Linear::forward`], followed by an epilogue. A shift takes the first dimension as images.
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
        if let Some(record) = &self.record {
            record.add(x)?;
        }
        let y = match &self.weight {
            Weight::Packed(weight) if epilogue::is_fusible(epilogue, x) => {
                let (rows, shape) = out_shape(x.dims(), weight.depth(), weight.columns())?;
                let bias = packed_bias(self.bias.as_ref())?;
                return epilogue::run(epilogue, x, shape.dims(), bias.as_deref(), |x, epilogue| {
                    weight.product(x, rows, &Window::Same, epilogue)
                });
            }
            Weight::Plain(weight) if on_cpu(x) => {
                let bias = match &self.bias {
                    Some(bias) => bias.clone(),
                    None => Tensor::zeros(weight.dim(0)?, x.dtype(), x.device())?,
                };
                let y = as_f32(x)?.apply_op3(&as_f32(weight)?, &as_f32(&bias)?, LinearOp)?;
                y.to_dtype(x.dtype())?
            }
            Weight::Plain(weight) => {
                #[cfg(feature = "cuda")]
                if x.device().is_cuda() {
                    return on_cuda(x, weight, self.bias.as_ref(), epilogue);
                }
                linear_reference(x, weight, self.bias.as_ref())?
            }
            Weight::Packed(weight) => {
                let op = PackedLinearOp { weight: weight.clone(), bias: packed_bias(self.bias.as_ref())? };
                as_f32(x)?.apply_op1(op)?.to_dtype(x.dtype())?
            }
        };
        epilogue::apply(epilogue, y)
    }

    /// [`geglu`] of [`Linear::forward`], (…, in) to (…, out / 2), in one pass if possible, without writing values and
    /// gates.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_geglu(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(weight)
                if self.low_rank.is_none()
                    && self.record.is_none()
                    && epilogue::is_fusible(&Epilogue::default(), x)
                    && weight.columns().is_multiple_of(2 * PANEL) =>
            {
                let (rows, shape) = out_shape(x.dims(), weight.depth(), weight.columns() / 2)?;
                let bias = packed_bias(self.bias.as_ref())?;
                let y = with_slice(x, |x| Ok(weight.geglu(x, rows, bias.as_deref())))?;
                Tensor::from_vec(y, shape, x.device())?.to_dtype(x.dtype())
            }
            #[cfg(feature = "cuda")]
            Weight::Plain(weight) if self.low_rank.is_none() && x.device().is_cuda() => {
                // Bias and gate in one pass after the product.
                let product = linear_reference(x, weight, None)?;
                match crate::cuda::ops::geglu(&product, self.bias.as_ref())? {
                    Some(y) => Ok(y),
                    None => geglu(&with_bias(product, self.bias.as_ref())?),
                }
            }
            _ => geglu(&self.forward(x)?),
        }
    }

    /// [`Linear::forward`] plus a residual of the result's shape, and that sum normalised, as between a transformer
    /// layer and the next one's norm. On a GPU both come from one pass after the product.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_then_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Result<[Tensor; 2]> {
        #[cfg(feature = "cuda")]
        if let Some(results) = self.fused_norm(x, residual, norm)? {
            return Ok(results);
        }
        let sum = self.forward_with(x, &Epilogue::residual(residual))?;
        let normalised = norm.forward(&sum)?;
        Ok([sum, normalised])
    }

    /// Like [`forward_then_norm`](Self::forward_then_norm), without the sum, as at the end of a post-norm layer.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_normalised(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some([normalised]) = self.fused_norm(x, residual, norm)? {
            return Ok(normalised);
        }
        norm.forward(&self.forward_with(x, &Epilogue::residual(residual))?)
    }

    /// The product and everything after it in one pass, where a kernel covers it.
    #[cfg(feature = "cuda")]
    fn fused_norm<const RESULTS: usize>(
        &self,
        x: &Tensor,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<Option<[Tensor; RESULTS]>> {
        let Some((weight, bias)) = self.movable().filter(|_| x.device().is_cuda()) else { return Ok(None) };
        let (_, shape) = out_shape(x.dims(), weight.dim(1)?, weight.dim(0)?)?;
        // Check before the product, which would otherwise be computed twice.
        let summands = [x, weight, residual].into_iter().chain(bias);
        if residual.shape() != &shape || !norm.fuses_sum(summands) {
            return Ok(None);
        }
        norm.forward_sum(&linear_reference(x, weight, None)?, bias, residual)
    }

    /// The layer's tensors, if another layer can take them over: on a GPU, when they are not trained.
    pub(crate) fn movable(&self) -> Option<(&Tensor, Option<&Tensor>)> {
        match &self.weight {
            Weight::Plain(weight) if !on_cpu(weight) && !weight.track_op() && self.low_rank.is_none() => {
                Some((weight, self.bias.as_ref()))
            }
            _ => None,
        }
    }
}

/// The layout of a weight (out, in).
struct MatrixLayout {
    in_features: usize,
    out_features: usize,
}

impl Pack for MatrixLayout {
    fn size(&self) -> FactorSize {
        FactorSize { taps: 1, depth: self.in_features, columns: self.out_features }
    }

    fn pack<T: Stored>(&self, weight: &[T]) -> Panels<T> {
        let strides = Strides { tap: 0, depth: 1, column: self.in_features };
        Panels::pack(weight, 1, self.in_features, self.out_features, strides)
    }
}

/// The shape of the product, from the shape of its input.
fn out_shape(x: &[usize], in_features: usize, out_features: usize) -> Result<(usize, Shape)> {
    let rows = x.iter().product::<usize>() / in_features.max(1);
    let mut dims = x.to_vec();
    match dims.last_mut() {
        Some(last) if *last == in_features => *last = out_features,
        _ => candle_core::bail!("a linear layer of {in_features} features got an input of shape {x:?}"),
    }
    Ok((rows, Shape::from(dims)))
}

/// A frozen layer: only the input has a gradient.
struct PackedLinearOp {
    weight: Arc<PackedWeight>,
    bias: Option<Arc<[f32]>>,
}

impl CustomOp1 for PackedLinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, shape) = out_shape(layout.dims(), self.weight.depth(), self.weight.columns())?;
        let (x, epilogue) = (slice(x, layout)?, SliceEpilogue::bias(self.bias.as_deref()));
        let y = self.weight.product(x, rows, &Window::Same, &epilogue);
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let weight = self.weight.unpack(); // (in, out)
        let (in_features, out_features) = (self.weight.depth(), self.weight.columns());
        let strides = Strides { tap: 0, depth: 1, column: out_features };
        let panels = Panels::pack(&weight, 1, out_features, in_features, strides);
        with_slice(grad, |grad| gradient(input_gradient(&panels, grad), x))
    }
}

/// The gradient of the input, `grad · weight`.
fn input_gradient(weight: &Panels, grad: &[f32]) -> Vec<f32> {
    let rows = grad.len() / weight.depth;
    gather_product(grad, rows, &Window::Same, weight, &SliceEpilogue::default())
}

/// A trained layer: input, weight and bias have gradients.
struct LinearOp;

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
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
        let (out_features, in_features) = weight_layout.shape().dims2()?;
        let (rows, shape) = out_shape(x_layout.dims(), in_features, out_features)?;
        let weight = MatrixLayout { in_features, out_features }.pack(slice(weight, weight_layout)?);
        let epilogue = SliceEpilogue::bias(Some(slice(bias, bias_layout)?));
        let y = gather_product(slice(x, x_layout)?, rows, &Window::Same, &weight, &epilogue);
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (out_features, in_features) = weight.dims2()?;
        with_slice(grad, |grad| {
            let grad_x = if x.track_op() {
                let strides = Strides { tap: 0, depth: in_features, column: 1 };
                let pack = |weight: &[f32]| Ok(Panels::pack(weight, 1, out_features, in_features, strides));
                gradient(input_gradient(&with_slice(weight, pack)?, grad), x)?
            } else {
                None
            };
            let mut grad_weight = vec![0f32; out_features * in_features];
            // The weight's gradient is gradᵀ · x, so the input is the right factor here.
            with_slice(x, |x| {
                gather_gradient(grad, out_features, 1, &Window::Same, x, in_features, &mut grad_weight);
                Ok(())
            })?;
            let grad_bias = column_sums(grad, out_features);
            Ok((grad_x, gradient(grad_weight, weight)?, gradient(grad_bias, bias)?))
        })
    }
}

/// The product with everything after it, in the same launch or one more pass.
#[cfg(feature = "cuda")]
fn on_cuda(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, epilogue: &Epilogue) -> Result<Tensor> {
    if let Some(y) = crate::cuda::ops::linear(x, weight, bias, epilogue)? {
        return Ok(y);
    }
    let product = linear_reference(x, weight, None)?;
    match crate::cuda::ops::epilogue(&product, bias, epilogue)? {
        Some(y) => Ok(y),
        None => epilogue::apply(epilogue, with_bias(product, bias)?),
    }
}

#[cfg(feature = "cuda")]
fn with_bias(x: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => x.broadcast_add(bias),
        None => Ok(x),
    }
}

/// The definition of [`Linear::forward`], in candle tensors: `x` (…, in), `weight` (out, in), `bias` (out).
///
/// # Errors
/// If the shapes do not fit together.
pub fn linear_reference(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out_features, in_features) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let y = x.reshape(((), in_features))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = dims.last_mut() {
        *last = out_features;
    }
    y.reshape(dims)
}
