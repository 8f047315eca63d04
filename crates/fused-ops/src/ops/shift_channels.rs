//! Adds a per-image shift to every channel: the way a timestep enters the UNet's residual blocks.

use crate::cpu::matmul_gradient::column_sums;
use crate::cpu::shift_channels as kernel;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};

/// `(batch, …, channels)` plus `(batch, channels)`, the same at every pixel of an image.
///
/// # Errors
/// If the batches or the channels differ.
pub fn shift_channels(x: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    if shift.dims() != [batch, channels] {
        candle_core::bail!("a shift of shape {:?} does not fit {:?}", shift.dims(), x.dims());
    }
    if !on_cpu(x) {
        let mut dims = vec![1; x.rank()];
        (dims[0], dims[x.rank() - 1]) = (batch, channels);
        return x.broadcast_add(&shift.reshape(dims)?);
    }
    as_f32(x)?.apply_op2(&as_f32(shift)?, ShiftOp { batch, channels })?.to_dtype(x.dtype())
}

struct ShiftOp {
    batch: usize,
    channels: usize,
}

impl CustomOp2 for ShiftOp {
    fn name(&self) -> &'static str {
        "shift_channels"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, shift) = (slice(x, x_layout)?, slice(shift, shift_layout)?);
        Ok((CpuStorage::F32(kernel::shift_channels(x, shift, self.channels)), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let image = grad.elem_count() / self.batch.max(1);
        let sums = with_slice(grad, |grad| {
            Ok(grad.chunks_exact(image.max(1)).flat_map(|image| column_sums(image, self.channels)).collect())
        })?;
        Ok((Some(grad.clone()), gradient(sums, shift)?))
    }
}
