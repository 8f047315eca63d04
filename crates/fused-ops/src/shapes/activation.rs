//! Lists the activations at the end of a layer.

/// The activations that an [`Epilogue`](crate::Epilogue) can end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// [`gelu`](crate::gelu)
    Gelu,
    /// [`gelu_tanh`](crate::gelu_tanh)
    GeluTanh,
    /// [`quick_gelu`](crate::quick_gelu)
    QuickGelu,
    /// [`silu`](crate::silu)
    Silu,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 4] = [Self::Gelu, Self::GeluTanh, Self::QuickGelu, Self::Silu];
}
