//! Turns shapes and addresses into kernel launches: a file per operation, with shared code in `description`.
//!
//! Nothing here depends on a device, so that tests can run the same launches without one.

pub(crate) mod attention;
pub(crate) mod conv2d;
pub(crate) mod description;
pub(crate) mod epilogue;
pub(crate) mod geglu;
pub(crate) mod group_norm;
pub(crate) mod layer_norm;
pub(crate) mod linear_step;
pub(crate) mod timestep_embedding;
pub(crate) mod to_bytes;
