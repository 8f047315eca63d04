//! Limits the predicted clean sample.

use candle_core::{DType, Tensor};

use crate::Result;

/// How the predicted clean sample is kept in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    None,
    /// Clips to −range … range.
    Clip {
        range: f64,
    },
    /// Dynamic thresholding, for pixel models (Saharia et al. 2022, section 2.3, <https://arxiv.org/abs/2205.11487>):
    /// with s the quantile `ratio` of an image's absolute values, clamped to 1 … `max`, clips to −s … s and divides
    /// by s.
    Threshold {
        ratio: f64,
        max: f64,
    },
}

impl Limit {
    /// Limits `sample` (batch, …).
    pub(super) fn apply(self, sample: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(sample.clone()),
            Self::Clip { range } => Ok(sample.clamp(-range, range)?),
            Self::Threshold { ratio, max } => {
                let images = sample
                    .chunk(sample.dim(0)?, 0)?
                    .iter()
                    .map(|image| {
                        let limit = f64::from(absolute_quantile(image, ratio)?).max(1.0).min(max);
                        Ok((image.clamp(-limit, limit)? / limit)?)
                    })
                    .collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&images, 0)?)
            }
        }
    }
}

/// The quantile of the absolute values, interpolated between the two nearest ranks.
fn absolute_quantile(values: &Tensor, ratio: f64) -> Result<f32> {
    let mut values = values.abs()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    values.sort_by(f32::total_cmp);
    let rank = ratio * values.len().saturating_sub(1) as f64;
    let low = values.get(rank.floor() as usize).copied().unwrap_or(0.0);
    let high = values.get(rank.ceil() as usize).copied().unwrap_or(low);
    Ok(low + (high - low) * rank.fract() as f32)
}
