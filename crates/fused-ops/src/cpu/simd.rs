//! Compiles loops for every instruction set, and runs the widest available.

use crate::settings::{Instructions, Settings};
use pulp::Arch;
use std::sync::OnceLock;

/// Runs a loop compiled for this machine's widest instruction set. The closure must be `#[inline(always)]` and mutate
/// something it borrows: only then does the compiler inline its body instead of calling a shim.
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

/// The instruction set that the [settings](crate::Settings) select.
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

/// The name of the instruction set in use.
pub(crate) fn name() -> &'static str {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "NEON",
        _ => "portable",
    }
}
