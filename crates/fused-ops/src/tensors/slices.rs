//! Gives the CPU kernels access to the values of candle tensors.

use crate::settings::Settings;
use candle_core::{CpuStorage, DType, Layout, Result, Tensor};

/// Whether the CPU kernels, which compute in f32, can run on this tensor.
pub(crate) fn on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// The tensor as f32 and contiguous. Free if it already is.
pub(crate) fn as_f32(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.contiguous()
}

/// The values of a contiguous f32 storage. Every CPU operation calls this before computing, so invalid
/// [settings](crate::Settings) become its error.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    Settings::current()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("the CPU kernels need contiguous tensors"),
    }
}

/// The mutable values of a contiguous f32 storage.
pub(crate) fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("an optimiser updates contiguous f32 tensors only"),
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
