//! Reports what the kernels use on this machine.

use crate::cpu::bf16::engine;

/// The instructions with which layers with bf16 weights compute on the CPU.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bf16Support {
    /// Their name, such as `AVX-512 bf16`.
    pub instructions: &'static str,
    /// The multiply-adds per multiply-add in f32, from the L1 cache, measured once per process.
    pub speedup: f32,
}

/// The bf16 instructions used on this CPU, or `None` if layers with bf16 weights compute in f32, because it is as
/// fast or because of the [settings](crate::Settings).
pub fn bf16_support() -> Option<Bf16Support> {
    engine().map(|engine| Bf16Support { instructions: engine.name(), speedup: engine.speedup() })
}
