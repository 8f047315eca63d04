//! Decides which of several kernels for the same computes: what was asked for, or what takes the least time.

mod attention;
mod conv2d;
pub(super) mod dispatch;
pub(super) mod launched;
mod linear;
mod measure;
