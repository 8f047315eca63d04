//! Checks the inputs of a forward pass.

use candle_core::Tensor;

use super::CrossAttentionContext;
use crate::{Error, Result};

/// Checks latents (batch, `channels`, height, width), a timestep and a prompt for each.
///
/// # Errors
/// Names the input that does not fit.
pub(crate) fn check_inputs(
    channels: usize,
    sample: &Tensor,
    timesteps: &Tensor,
    context: &CrossAttentionContext,
) -> Result<()> {
    let batch = match sample.dims() {
        &[batch, c, height, width] if c == channels && height > 0 && width > 0 => batch,
        found => {
            return Err(Error::Shape {
                tensor: "sample",
                expected: format!("(batch, {channels}, height, width)"),
                found: format!("{found:?}"),
            });
        }
    };
    if timesteps.dims() != [batch] {
        return Err(Error::Shape {
            tensor: "timesteps",
            expected: format!("({batch}), one per sample"),
            found: format!("{:?}", timesteps.dims()),
        });
    }
    if context.batch() != batch {
        return Err(Error::Shape {
            tensor: "hidden_states",
            expected: format!("({batch}, tokens, width), one prompt per sample"),
            found: format!("a batch of {}", context.batch()),
        });
    }
    Ok(())
}
