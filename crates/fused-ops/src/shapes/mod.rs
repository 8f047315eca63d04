//! Defines plain data that operations share.

mod activation;
mod block_type;
mod conv2d;
mod epilogue;
mod heads;
mod linear_step;
mod sequences;
mod sinusoids;

pub use activation::Activation;
pub use block_type::BlockType;
pub use conv2d::{Conv2dOptions, Padding};
pub use epilogue::Epilogue;
pub(crate) use heads::{Heads, Span};
pub use linear_step::{LinearStep, Stepped};
pub use sequences::Sequences;
pub use sinusoids::Sinusoids;
