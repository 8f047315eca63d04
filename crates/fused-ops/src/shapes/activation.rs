//! Names the activations that layers end with.

/// The activations that an [`Epilogue`](crate::Epilogue) can end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// [`gelu`](crate::gelu)
    Gelu,
    /// [`quick_gelu`](crate::quick_gelu)
    QuickGelu,
    /// [`silu`](crate::silu)
    Silu,
}
