//! Lists the naming schemes of a ControlNet's tensors.

/// A naming scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    LatentDiffusion,
    Diffusers,
}
