//! Defines the operations: a file each, with its public function or layer, its reference and its backward pass.

pub(crate) mod activation;
pub(crate) mod adam_step;
pub(crate) mod attention;
pub(crate) mod attention_heads;
pub(crate) mod blend;
pub(crate) mod conv2d;
pub(crate) mod dot_products;
pub(crate) mod embedding;
mod epilogue;
pub(crate) mod geglu;
pub(crate) mod group_norm;
pub(crate) mod input_record;
pub(crate) mod int8;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod linear_group;
pub(crate) mod linear_step;
pub(crate) mod low_rank;
pub(crate) mod packed_attention;
mod quantize;
pub(crate) mod shift_channels;
pub(crate) mod timestep_embedding;
pub(crate) mod to_bytes;
mod weight;
