//! Measures dual encoders: retrieval of images by texts and texts by images, and zero-shot classification.

mod captions;
mod labels;
mod retrieval;
mod zero_shot;

pub use captions::{CaptionedImages, LabelledImages};
pub use labels::{Classes, built_in_classes, built_in_templates};
pub use retrieval::{RECALLS, RetrievalScores, reranked_retrieval, retrieval, retrieval_by_scores};
pub use zero_shot::{ZeroShotScores, zero_shot, zero_shot_by_scores};
