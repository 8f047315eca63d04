//! Between candle tensors and the CPU kernels, which know only slices.

use crate::cpu::kernel::Stored;
use crate::cpu::pack::{FactorSize, PackedWeight, Panels};
use crate::quantized::read_blocks;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Tensor};
use candle_nn::{VarBuilder, init};
use std::sync::Arc;

/// Whether the CPU kernels, which compute in f32, can run on this tensor.
pub(crate) fn on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// The tensor as the kernels want it: f32 and contiguous. Costs nothing where it already is.
pub(crate) fn as_f32(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.contiguous()
}

/// The values of a contiguous f32 storage.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("the CPU kernels need contiguous tensors"),
    }
}

/// Runs `f` on the values of a CPU tensor, as f32.
pub(crate) fn with_slice<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let x = as_f32(x)?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => f(slice(storage, layout)?),
        _ => candle_core::bail!("the CPU kernels need tensors on the CPU"),
    }
}

/// Runs `f` on the values of several CPU tensors, as f32.
pub(crate) fn with_slices<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> R,
) -> Result<R> {
    let tensors = tensors.into_iter().map(as_f32).collect::<Result<Vec<_>>>()?;
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (values, (storage, layout)) in slices.iter_mut().zip(&storages) {
        *values = match &**storage {
            candle_core::Storage::Cpu(storage) => slice(storage, layout)?,
            _ => candle_core::bail!("the CPU kernels need tensors on the CPU"),
        };
    }
    Ok(f(slices))
}

/// A gradient of the shape of `like`.
pub(crate) fn gradient(values: Vec<f32>, like: &Tensor) -> Result<Option<Tensor>> {
    Ok(Some(Tensor::from_vec(values, like.shape(), like.device())?))
}

/// The type that a model of weights of `dtype` computes in: f32 on the CPU, where half types save memory and not time.
pub fn compute_dtype(dtype: DType, device: &Device) -> DType {
    if device.is_cpu() && matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

/// Rows of a table, or a small tensor such as a bias, in the type that their model computes in.
///
/// # Errors
/// If a tensor operation fails.
pub fn for_computing(x: Tensor) -> Result<Tensor> {
    x.to_dtype(compute_dtype(x.dtype(), x.device()))
}

/// The weight of a linear layer or a convolution.
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    /// As the checkpoint has it: on a GPU, or while it is trained.
    Plain(Tensor),
    /// Laid out once for the CPU kernel.
    Packed(Arc<PackedWeight>),
}

/// Lays out a weight of any type.
pub(crate) trait Pack {
    fn size(&self) -> FactorSize;

    fn pack<T: Stored>(&self, weight: &[T]) -> Panels<T>;
}

impl Weight {
    /// Reads `weight` of this shape from `vb`: its blocks, where it is in such and the CPU kernel will use it.
    pub fn read(vb: &VarBuilder, shape: impl Into<Shape>, how: &impl Pack) -> Result<Self> {
        const NAME: &str = "weight";
        if let Some(blocks) = read_blocks(vb, NAME, how.size())? {
            return Ok(Self::Packed(Arc::new(PackedWeight::Blocks(blocks))));
        }
        Self::new(vb.get_with_hints(shape, NAME, init::DEFAULT_KAIMING_UNIFORM)?, how)
    }

    /// Packs the weight where the CPU kernel will use it and nobody trains it.
    pub fn new(weight: Tensor, how: &impl Pack) -> Result<Self> {
        if !on_cpu(&weight) || weight.track_op() {
            return Ok(Self::Plain(weight));
        }
        let weight = weight.contiguous()?;
        let (storage, layout) = weight.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("the CPU kernels need tensors on the CPU")
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("the CPU kernels need contiguous tensors")
        };
        let packed = match storage {
            CpuStorage::F16(values) if values[start..end].iter().all(|value| value.is_finite()) => {
                PackedWeight::F16(how.pack(&values[start..end]))
            }
            CpuStorage::BF16(values) => PackedWeight::Bf16(how.pack(&values[start..end])),
            _ => PackedWeight::F32(with_slice(&weight, |weight| Ok(how.pack(weight)))?),
        };
        Ok(Self::Packed(Arc::new(packed)))
    }
}

/// The bias of a layer whose weight is packed.
pub(crate) fn packed_bias(bias: Option<&Tensor>) -> Result<Option<Arc<[f32]>>> {
    bias.map(|bias| with_slice(bias, |bias| Ok(bias.into()))).transpose()
}
