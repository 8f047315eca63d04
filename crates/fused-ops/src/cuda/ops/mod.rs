//! Connects launches to candle's tensors: a file per operation.

mod attention;
mod conv2d;
mod epilogue;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear;
mod linear_step;
mod packed_attention;
mod rows;
mod run;
mod timestep_embedding;
mod to_bytes;

pub(crate) use attention::attention;
pub(crate) use conv2d::{Conv2dWeights, conv2d, lay_out_weight, phases};
pub(crate) use epilogue::epilogue;
pub(crate) use geglu::geglu;
pub(crate) use group_norm::group_norm;
pub(crate) use layer_norm::{covers_layer_norm, layer_norm};
pub(crate) use linear::linear;
pub(crate) use linear_step::linear_step;
pub(crate) use packed_attention::packed_attention;
pub(crate) use timestep_embedding::timestep_embedding;
pub(crate) use to_bytes::to_bytes;
