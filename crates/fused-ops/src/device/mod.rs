//! Opens devices, records what they do, and reads numbers back.

pub(crate) mod cuda_device;
pub(crate) mod readbacks;
pub(crate) mod recording;
