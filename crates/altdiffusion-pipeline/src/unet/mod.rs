//! Predicts the noise in a latent: the UNet of Stable Diffusion 1.x and 2.x (Rombach et al., 2022, arXiv:2112.10752),
//! as in diffusers' `UNet2DConditionModel`.

mod config;
mod context;
mod down_block;
mod embeddings;
mod inputs;
mod mid_block;
mod model;
mod plan;
mod prepared;
mod recorder;
mod residuals;
#[cfg(test)]
mod tiny;
mod transformer;
mod up_block;

pub use config::UNet2DConditionConfig;
pub(crate) use config::{CROSS_ATTENTION_DOWN, CROSS_ATTENTION_UP, UP};
pub(crate) use context::ContextProjector;
pub use context::{CrossAttentionContext, ImageContext};
pub(crate) use down_block::DownBlock2D;
pub(crate) use embeddings::TimestepEmbedding;
pub(crate) use inputs::check_inputs;
pub(crate) use mid_block::UNetMidBlock2DCrossAttn;
pub use model::UNet2DConditionModel;
pub(crate) use plan::{CrossAttentions, UNetPlan};
pub(crate) use prepared::PreparedUNet;
pub use residuals::AdditionalResiduals;
#[cfg(test)]
pub(crate) use tiny::{WIDTH, tiny_unet};
