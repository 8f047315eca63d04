//! Reads a LoRA that is computed beside a layer's weight: `up(down(x))` (Hu et al. 2021, arXiv:2106.09685).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The name, beside a layer's `weight`, of a LoRA's matrix from the input to the rank, (rank, in) or (rank, in,
/// kernel, kernel). [`LORA_UP`] leads from there to the output, (out, rank). Scales must be included.
pub const LORA_DOWN: &str = "lora_down.weight";
/// See [`LORA_DOWN`].
pub const LORA_UP: &str = "lora_up.weight";

/// Reads both matrices of a layer with `inputs`, (in) or (in, kernel, kernel), and `out` outputs, if `vb` has them:
/// (rank, …inputs) and (out, rank).
///
/// # Errors
/// If they do not fit the layer.
pub(crate) fn read(vb: &VarBuilder, inputs: &[usize], out: usize) -> Result<Option<(Tensor, Tensor)>> {
    if !vb.contains_tensor(LORA_DOWN) {
        return Ok(None);
    }
    let (down, up) = (vb.get_unchecked(LORA_DOWN)?, vb.get_unchecked(LORA_UP)?);
    let rank = down.dims().first().copied().unwrap_or(0);
    // A 1 × 1 convolution may be stored as a matrix.
    let shape = [&[rank], inputs].concat();
    if down.elem_count() != shape.iter().product::<usize>() || up.elem_count() != out * rank {
        candle_core::bail!(
            "the LoRA is for another architecture: its matrices are {:?} and {:?}, where this model has a layer of {inputs:?} \
             to {out}",
            down.dims(),
            up.dims()
        );
    }
    Ok(Some((down.reshape(shape)?, up.reshape((out, rank))?)))
}
