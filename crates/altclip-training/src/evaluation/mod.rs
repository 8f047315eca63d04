//! How well dual encoders find images by texts and texts by images, and tell what images show.

mod captions;
mod labels;
mod retrieval;
mod zero_shot;

pub use captions::{CaptionedImages, LabelledImages};
pub use labels::{Classes, ready_classes, ready_templates};
pub use retrieval::{RECALLS, Retrieval, retrieval};
pub use zero_shot::{ZeroShot, zero_shot};
