//! Encodes texts and images with SigLIP's towers.
//!
//! Sigmoid Loss for Language Image Pre-Training, <https://arxiv.org/abs/2303.15343>, and SigLIP 2,
//! <https://arxiv.org/abs/2502.14786>; transformers' `SiglipModel`. The layers are CLIP's, with a GELU by tanh. Texts
//! attend to all their tokens and to their padding, so that every text has all positions; images are read by attention
//! with one learned query.

mod pooling;
mod text;
mod vision;

pub(crate) use self::pooling::{pooling_name, pooling_parts};
pub use self::text::SiglipTextModel;
pub use self::vision::SiglipVisionModel;
