//! Reads what a LoRA adds to a layer whose weight stays as it is: `up(down(x))` (Hu et al. 2021, arXiv:2106.09685).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The names, beside a layer's `weight`, of what leads from its input to the rank, (rank, in) or (rank, in, kernel, kernel), and
/// from there to its output, (out, rank). Whoever gives a layer these scales them.
pub const LORA_DOWN: &str = "lora_down.weight";
/// See [`LORA_DOWN`].
pub const LORA_UP: &str = "lora_up.weight";

/// Both matrices of a layer with `inputs`, (in) or (in, kernel, kernel), and `out` outputs, where `vb` has them: (rank, …inputs)
/// and (out, rank).
///
/// # Errors
/// If they do not fit the layer.
pub(crate) fn read(vb: &VarBuilder, inputs: &[usize], out: usize) -> Result<Option<(Tensor, Tensor)>> {
    if !vb.contains_tensor(LORA_DOWN) {
        return Ok(None);
    }
    let (down, up) = (vb.get_unchecked(LORA_DOWN)?, vb.get_unchecked(LORA_UP)?);
    let rank = down.dims().first().copied().unwrap_or(0);
    // A map of each pixel's channels may be stored as a matrix or as a convolution.
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
