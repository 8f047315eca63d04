//! Chooses the instructions that multiply in int8.

use super::line::Quad;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::cpu::lines::{Kernel, portable};
use crate::settings::{Instructions, Settings};
use std::sync::OnceLock;

pub(super) static PORTABLE: Kernel<Quad> = portable::kernel();

/// The kernels of this architecture, the fastest first. All give the same bits.
#[cfg(target_arch = "x86_64")]
static KERNELS: [&Kernel<Quad>; 4] = [&amx::KERNEL, &avx512::KERNEL, &avx2::KERNEL, &PORTABLE];
#[cfg(not(target_arch = "x86_64"))]
static KERNELS: [&Kernel<Quad>; 1] = [&PORTABLE];

/// The kernel for layers with int8 weights.
pub(crate) fn engine() -> &'static Kernel<Quad> {
    static CHOSEN: OnceLock<&Kernel<Quad>> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let instructions = Settings::current().unwrap_or_default().instructions;
        let may_use = |kernel: &&Kernel<Quad>| match instructions {
            Instructions::Widest => true,
            Instructions::Avx2 => kernel.instructions != Instructions::Widest,
            Instructions::Portable => kernel.instructions == Instructions::Portable,
        };
        supported().find(may_use).unwrap_or(&PORTABLE)
    })
}

/// The kernels that this processor supports, the fastest first.
pub(super) fn supported() -> impl Iterator<Item = &'static Kernel<Quad>> {
    KERNELS.into_iter().filter(|kernel| (kernel.is_supported)())
}
