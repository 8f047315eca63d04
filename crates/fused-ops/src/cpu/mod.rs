//! The fused CPU kernels: plain slices in, plain slices out, no candle tensors.
//!
//! `unsafe` lives here, and in `cuda/device.rs`. Every loop is written once and compiled for each instruction set that [`pulp`] knows;
//! the widest one that the machine has is picked at run time.

pub(crate) mod attention;
pub(crate) mod attention_gradient;
pub(crate) mod blocks;
pub(crate) mod convolution;
pub(crate) mod elementwise;
pub(crate) mod epilogue;
pub(crate) mod kernel;
pub(crate) mod normalization;
pub(crate) mod pack;
pub(crate) mod product;
pub(crate) mod window;
pub(crate) mod winograd;

use pulp::Arch;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

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

    arch().dispatch(Body(body));
}

/// The widest instruction set that this machine has and pulp knows. `FUSED_OPS_INSTRUCTIONS` can ask for a narrower one,
/// `portable` or `avx2`, to test it and to tell how much a wider one gives.
pub(crate) fn arch() -> Arch {
    static CHOSEN: OnceLock<Arch> = OnceLock::new();
    *CHOSEN.get_or_init(|| match std::env::var("FUSED_OPS_INSTRUCTIONS").as_deref() {
        Ok("portable") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        _ => Arch::new(),
    })
}

/// A vector of `len` values that `write` fills, and that is not cleared first: the results of a layer take longer to clear
/// than many a layer takes to compute.
///
/// # Safety
/// `write` must write every value.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Box::new_uninit_slice(len);
    write(&mut out);
    // SAFETY: the caller vouches that they are written.
    unsafe { out.assume_init() }.into_vec()
}

/// A place that several threads write, each its own part of it.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub *mut f32);

// SAFETY: a bare address; whoever writes through it vouches that no other thread touches the same part.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(out: &mut [MaybeUninit<f32>]) -> Self {
        Self(out.as_mut_ptr().cast())
    }

    pub fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}
