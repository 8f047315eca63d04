//! The fused CPU kernels: plain slices in, plain slices out, no candle tensors.
//!
//! `unsafe` lives here alone. Every loop is written once and compiled for each instruction set that [`pulp`] knows;
//! the widest one that the machine has is picked at run time.

pub(crate) mod attention;
pub(crate) mod attention_gradient;
pub(crate) mod convolution;
pub(crate) mod elementwise;
pub(crate) mod epilogue;
pub(crate) mod kernel;
pub(crate) mod normalization;
pub(crate) mod pack;
pub(crate) mod product;
pub(crate) mod window;
pub(crate) mod winograd;

/// Runs a loop compiled for the widest instruction set of this machine. The closure must be `#[inline(always)]`, and it
/// must change something it borrows: only then does the compiler call its body itself, which it can inline, and not a
/// shim around it, which it does not.
#[inline(always)]
pub(crate) fn vectorized(body: impl FnMut()) {
    struct Body<F>(F);

    impl<F: FnMut()> pulp::WithSimd for Body<F> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(mut self, _: S) {
            (self.0)();
        }
    }

    pulp::Arch::new().dispatch(Body(body));
}

/// A place that several threads write, each its own part of it.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub *mut f32);

// SAFETY: a bare address; whoever writes through it vouches that no other thread touches the same part.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    pub fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}
