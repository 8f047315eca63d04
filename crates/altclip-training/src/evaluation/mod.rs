//! How well dual encoders find pictures by texts and texts by pictures, and tell what pictures show.

mod captions;
mod labels;
mod retrieval;
mod zero_shot;

pub use captions::{CaptionedPictures, LabelledPictures};
pub use labels::{Classes, ready_classes, ready_templates};
pub use retrieval::{RECALLS, Retrieval, retrieval};
pub use zero_shot::{ZeroShot, zero_shot};
