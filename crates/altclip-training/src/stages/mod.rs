//! Defines what each training stage of AltCLIP and AltDiffusion minimises.

mod by_length;
pub mod contrastive;
pub mod coupling;
pub mod denoising;
mod functions;
pub mod realign;
pub mod sheet;
pub mod teacher;

pub use by_length::{TextGroup, by_length};
pub use functions::ObjectiveFunctions;
