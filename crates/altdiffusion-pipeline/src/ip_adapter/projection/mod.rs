//! From what an image encoder sees to tokens that the UNet attends to. Each published kind of adapter has a way of its own.

mod full;
mod linear;
mod resampler;

use altclip_encoder::checkpoint::Checkpoint;
use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::{Error, Result};
use full::FullProjection;
use linear::LinearProjection;
use resampler::Resampler;

/// Where the projection's weights are.
pub(super) const PREFIX: &str = "image_proj";

/// What layer norms add to the variance.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Which of the encoder's outputs an adapter was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFeatures {
    /// One vector of the joint space of pictures and texts.
    Embedding,
    /// A vector for each patch and one for the whole, before the last layer.
    HiddenStates,
}

/// The sizes of a projection, which only the shapes of its weights tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProjectionConfig {
    /// `ip-adapter`
    Linear { image_width: usize, tokens: usize, width: usize },
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
    /// Of the adapter in a checkpoint.
    ///
    /// # Errors
    /// When it is none, or of a kind that is not supported.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let shape = |name: &str| checkpoint.shape(&format!("{PREFIX}.{name}"));
        let error = |problem: &str| Error::content(checkpoint.file_name(), problem);
        if shape("perceiver_resampler.proj_in.weight").is_some()
            || shape("norm.weight").is_some() && shape("proj.2.weight").is_some()
        {
            return Err(error(
                "this is an IP-Adapter FaceID, which needs a model that recognises faces; expected one for CLIP's image \
                 encoder, such as ip-adapter_sd15 or ip-adapter-plus_sd15",
            ));
        }
        if let (Some(&[out, image_width]), Some(&[width])) = (shape("proj.weight"), shape("norm.weight")) {
            if width == 0 || !out.is_multiple_of(width) {
                return Err(error(
                    "image_proj.proj.weight: expected as many rows for each token as image_proj.norm.weight",
                ));
            }
            return Ok(Self::Linear { image_width, tokens: out / width, width });
        }
        if let (Some(&[inner, image_width]), Some(&[width])) =
            (shape("proj.0.weight"), shape("proj.3.weight"))
        {
            return Ok(Self::Full { image_width, inner, width });
        }
        if let (Some(&[1, queries, hidden]), Some(&[_, image_width]), Some(&[width, _]), Some(&[inner, _])) = (
            shape("latents"),
            shape("proj_in.weight"),
            shape("proj_out.weight"),
            shape("layers.0.0.to_q.weight"),
        ) {
            if inner == 0 || !inner.is_multiple_of(resampler::HEAD_DIM) {
                return Err(error("image_proj.layers.0.0.to_q.weight: expected heads of 64 rows"));
            }
            let is_there = |layer: &usize| shape(&format!("layers.{layer}.0.to_q.weight")).is_some();
            let layers = (0..).take_while(is_there).count();
            return Ok(Self::Resampler { image_width, queries, hidden, inner, layers, width });
        }
        Err(error(
            "expected an IP-Adapter, found no tensor image_proj.proj.weight, image_proj.proj.0.weight or image_proj.latents",
        ))
    }

    /// Width of the encoder's vectors.
    pub fn image_width(&self) -> usize {
        match *self {
            Self::Linear { image_width, .. }
            | Self::Full { image_width, .. }
            | Self::Resampler { image_width, .. } => image_width,
        }
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        match *self {
            Self::Linear { width, .. } | Self::Full { width, .. } | Self::Resampler { width, .. } => width,
        }
    }

    pub fn features(&self) -> ImageFeatures {
        match self {
            Self::Linear { .. } => ImageFeatures::Embedding,
            Self::Full { .. } | Self::Resampler { .. } => ImageFeatures::HiddenStates,
        }
    }
}

impl ImageProjection {
    pub fn new(config: &ProjectionConfig, vb: VarBuilder) -> Result<Self> {
        Ok(match *config {
            ProjectionConfig::Linear { image_width, tokens, width } => {
                Self::Linear(LinearProjection::new(image_width, tokens, width, vb)?)
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

    /// (pictures, image_width) or (pictures, rows, image_width) → (pictures, tokens, width)
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Linear(projection) => projection.forward(features)?,
            Self::Full(projection) => projection.forward(features)?,
            Self::Resampler(projection) => projection.forward(features)?,
        })
    }
}
