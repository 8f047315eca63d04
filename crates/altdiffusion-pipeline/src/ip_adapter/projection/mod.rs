//! Projects the image encoder's outputs to tokens for the UNet, for each published kind of adapter.

mod full;
mod layer_norm;
mod linear;
mod resampler;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use model_files::checkpoint::Checkpoint;

use crate::config::LARGEST_SIZE;
use crate::{Error, Result};
use full::FullProjection;
use linear::LinearProjection;
use resampler::Resampler;

/// The prefix of the projection's weights.
pub(super) const PREFIX: &str = "image_proj";

/// Which of the encoder's outputs an adapter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFeatures {
    /// One vector in the joint space of images and texts.
    Embedding,
    /// One vector per patch and one for the whole image, before the last layer.
    HiddenStates,
}

/// The sizes of a projection, inferred from the shapes of its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProjectionConfig {
    /// `ip-adapter`
    Linear {
        image_width: usize,
        /// For all tokens together.
        rows: usize,
        width: usize,
    },
    /// `ip-adapter-full-face`
    Full { image_width: usize, inner: usize, width: usize },
    /// `ip-adapter-plus` and `ip-adapter-plus-face`
    Resampler { image_width: usize, queries: usize, hidden: usize, inner: usize, layers: usize, width: usize },
}

/// The projection.
#[derive(Debug, Clone)]
pub(super) enum ImageProjection {
    Linear(LinearProjection),
    Full(FullProjection),
    Resampler(Resampler),
}

impl ProjectionConfig {
    /// Infers the projection of the adapter in a checkpoint.
    ///
    /// # Errors
    /// If it is not an adapter, or of a kind that is not supported.
    pub(super) fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let error = |problem: &str| Error::content(checkpoint.file_name(), problem);
        let config = Self::from_shapes(checkpoint).ok_or_else(|| {
            let is_there = |name: &str| checkpoint.contains(&format!("{PREFIX}.{name}"));
            error(match is_there("perceiver_resampler.proj_in.weight") || is_there("proj.2.weight") {
                true => {
                    "this is an IP-Adapter FaceID, which needs a model that recognises faces; expected one for CLIP's \
                     image encoder, such as ip-adapter_sd15 or ip-adapter-plus_sd15"
                }
                false => {
                    "expected an IP-Adapter, found no tensor image_proj.proj.weight, image_proj.proj.0.weight or \
                     image_proj.latents"
                }
            })
        })?;
        let fits = match config {
            // A whole number of tokens.
            Self::Linear { rows, width, .. } => rows.is_multiple_of(width.max(1)),
            Self::Full { .. } => true,
            Self::Resampler { inner, .. } => inner.is_multiple_of(resampler::HEAD_DIM),
        };
        // So that arithmetic on the sizes cannot overflow.
        if !fits || !config.sizes().iter().all(|size| (1..=LARGEST_SIZE).contains(size)) {
            return Err(error(
                "the shapes of image_proj.* cannot be those of an IP-Adapter: expected whole tokens and heads of 64",
            ));
        }
        Ok(config)
    }

    /// Infers the sizes from the shapes; `None` if they match no kind.
    fn from_shapes(checkpoint: &Checkpoint) -> Option<Self> {
        let shape = |name: &str| checkpoint.shape(&format!("{PREFIX}.{name}"));
        if let (Some(&[rows, image_width]), Some(&[width])) = (shape("proj.weight"), shape("norm.weight")) {
            return Some(Self::Linear { image_width, rows, width });
        }
        if let (Some(&[inner, image_width]), Some(&[width])) =
            (shape("proj.0.weight"), shape("proj.3.weight"))
        {
            return Some(Self::Full { image_width, inner, width });
        }
        let &[1, queries, hidden] = shape("latents")? else { return None };
        let &[_, image_width] = shape("proj_in.weight")? else { return None };
        let &[width, _] = shape("proj_out.weight")? else { return None };
        let &[inner, _] = shape("layers.0.0.to_q.weight")? else { return None };
        let is_there = |layer: &usize| shape(&format!("layers.{layer}.0.to_q.weight")).is_some();
        let layers = (0..).take_while(is_there).count();
        Some(Self::Resampler { image_width, queries, hidden, inner, layers, width })
    }

    fn sizes(&self) -> Vec<usize> {
        match *self {
            Self::Linear { image_width, rows, width } => vec![image_width, rows, width],
            Self::Full { image_width, inner, width } => vec![image_width, inner, width],
            Self::Resampler { image_width, queries, hidden, inner, layers, width } => {
                vec![image_width, queries, hidden, inner, layers, width]
            }
        }
    }

    /// Width of the encoder's vectors.
    pub(super) fn image_width(&self) -> usize {
        match *self {
            Self::Linear { image_width, .. }
            | Self::Full { image_width, .. }
            | Self::Resampler { image_width, .. } => image_width,
        }
    }

    /// Width of the tokens.
    pub(super) fn width(&self) -> usize {
        match *self {
            Self::Linear { width, .. } | Self::Full { width, .. } | Self::Resampler { width, .. } => width,
        }
    }

    pub(super) fn features(&self) -> ImageFeatures {
        match self {
            Self::Linear { .. } => ImageFeatures::Embedding,
            Self::Full { .. } | Self::Resampler { .. } => ImageFeatures::HiddenStates,
        }
    }
}

impl ImageProjection {
    pub(super) fn new(config: &ProjectionConfig, vb: VarBuilder) -> Result<Self> {
        Ok(match *config {
            ProjectionConfig::Linear { image_width, rows, width } => {
                Self::Linear(LinearProjection::new(image_width, rows, width, vb)?)
            }
            ProjectionConfig::Full { image_width, inner, width } => {
                Self::Full(FullProjection::new(image_width, inner, width, vb)?)
            }
            ProjectionConfig::Resampler { image_width, queries, hidden, inner, layers, width } => {
                let sizes = resampler::Sizes { image_width, queries, hidden, inner, layers, width };
                Self::Resampler(Resampler::new(sizes, vb)?)
            }
        })
    }

    /// (images, image_width) or (images, rows, image_width) → (images, tokens, width)
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Linear(projection) => projection.forward(features)?,
            Self::Full(projection) => projection.forward(features)?,
            Self::Resampler(projection) => projection.forward(features)?,
        })
    }
}
