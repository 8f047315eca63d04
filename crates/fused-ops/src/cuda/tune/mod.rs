//! Chooses between kernels for the same operation: the requested one, or the fastest.

mod attention;
mod conv2d;
pub(super) mod dispatch;
pub(super) mod launched;
mod linear;
mod measure;
