//! Compiles loops for every instruction set, and runs the widest that the machine has.

use crate::settings::{Instructions, Settings};
use pulp::Arch;
use std::sync::OnceLock;

/// Runs a loop compiled for the widest instruction set of this machine. The closure must be `#[inline(always)]`, and it
/// must change something it borrows: only then does the compiler call its body itself, which it can inline, and not a
/// shim around it, which it does not.
#[inline(always)]
pub(super) fn vectorized(body: impl FnMut()) {
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

/// What the [settings](crate::Settings) ask for.
pub(super) fn arch() -> Arch {
    static CHOSEN: OnceLock<Arch> = OnceLock::new();
    *CHOSEN.get_or_init(|| match Settings::current().unwrap_or_default().instructions {
        Instructions::Widest => Arch::new(),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Avx2 => Arch::Scalar,
        Instructions::Portable => Arch::Scalar,
    })
}
