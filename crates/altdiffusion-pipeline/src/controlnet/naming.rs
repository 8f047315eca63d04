//! Names the ways in which files call the tensors of a ControlNet.

/// How a file calls its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    LatentDiffusion,
    Diffusers,
}
