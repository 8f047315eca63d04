//! Tells what the kernels found on this machine.

use crate::cpu::bf16::engine;

/// The instructions by which layers with bf16 weights compute on the CPU.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bf16Support {
    /// Their name, such as `AVX-512 bf16`.
    pub instructions: &'static str,
    /// Multiply-adds in the time of one in f32, from the first cache, measured once in this process.
    pub speedup: f32,
}

/// What layers with bf16 weights compute with on this CPU; `None` if in f32, because that is as fast here, or because the
/// [settings](crate::Settings) say so.
pub fn bf16_support() -> Option<Bf16Support> {
    engine().map(|engine| Bf16Support { instructions: engine.name(), speedup: engine.speedup() })
}
