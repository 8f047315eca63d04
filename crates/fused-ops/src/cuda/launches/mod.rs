//! Shapes and addresses to launches of kernels: a file for each of `kernels/*.cu`, and what they share in `launch`.

pub mod attention;
pub mod convolution;
pub mod denoise;
pub mod epilogue;
pub mod group_norm;
pub mod launch;
pub mod layer_norm;
