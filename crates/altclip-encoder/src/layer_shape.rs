//! Checks the fields of a tower's configuration that concern transformer layers.

use crate::activation::HiddenAct;

/// The fields of a `config.json` that every layer shares, in the spelling of BERT, XLM-R and CLIP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerShape {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_attention_heads: usize,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
}

/// Standard deviation of newly initialised embeddings (transformers' `initializer_range`).
pub(crate) const INITIALIZER_RANGE: f64 = 0.02;

/// Far more layers than any model has. Configurations are untrusted, and a number must not decide how much memory is
/// allocated before any weight is found.
pub(crate) const MOST_LAYERS: usize = 1 << 10;
/// Wider than any model, so that arithmetic on widths cannot overflow.
pub(crate) const LARGEST_WIDTH: usize = 1 << 20;
/// Larger than any vocabulary.
pub(crate) const MOST_TOKENS: usize = 1 << 24;

/// Checks fields, each given by name, value and limit.
///
/// # Errors
/// Names the first that exceeds its limit.
pub(crate) fn check_limits<const FIELDS: usize>(
    fields: [(&str, usize, usize); FIELDS],
) -> Result<(), String> {
    match fields.iter().find(|(_, value, largest)| value > largest) {
        Some((name, value, largest)) => Err(format!("{name} is {value}, expected at most {largest}")),
        None => Ok(()),
    }
}

/// Checks that fields, each given by name and value, are at least 1.
///
/// # Errors
/// Names the first that is 0.
pub(crate) fn check_positive<const FIELDS: usize>(fields: [(&str, usize); FIELDS]) -> Result<(), String> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(format!("{name} is 0, expected at least 1")),
        None => Ok(()),
    }
}

impl LayerShape {
    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Names the first invalid field, with what was expected.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_limits([
            ("hidden_size", self.hidden_size, LARGEST_WIDTH),
            ("intermediate_size", self.intermediate_size, LARGEST_WIDTH),
        ])?;
        if self.num_attention_heads == 0
            || self.hidden_size == 0
            || !self.hidden_size.is_multiple_of(self.num_attention_heads)
        {
            return Err(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        check_positive([("intermediate_size", self.intermediate_size)])?;
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.) {
            return Err(format!(
                "layer_norm_eps is {}, expected a small positive number",
                self.layer_norm_eps
            ));
        }
        Ok(())
    }
}
