//! Reports what the CPU kernels found on this machine.

use crate::cpu::bf16::engine;
use crate::cpu::{peak, simd};

/// The instructions that layers with bf16 weights compute with on the CPU.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bf16Support {
    /// Their name, such as `AVX-512 bf16`.
    pub instructions: &'static str,
    /// Multiply-adds in the time of one in f32, from the first cache, measured once per process.
    pub speedup: f32,
}

/// What layers with bf16 weights compute with on this CPU. `None` means f32: because that is as fast here, or because the
/// [settings](crate::Settings) ask for it.
pub fn bf16_support() -> Option<Bf16Support> {
    engine().map(|engine| Bf16Support { instructions: engine.name(), speedup: engine.speedup() })
}

/// What the CPU kernels run on.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// Threads that compute: `RAYON_NUM_THREADS`, or one per processor.
    pub threads: usize,
    /// The instruction set of the f32 kernels.
    pub instructions: &'static str,
    /// Floating-point operations per second in f32 that all threads reach on registers: the limit of every kernel.
    pub f32_operations: f64,
    /// The same for bf16, where layers compute in it.
    pub bf16_operations: Option<f64>,
}

impl Machine {
    /// Measures the limits of this machine, which takes a tenth of a second and all threads.
    pub fn measure() -> Self {
        Self {
            threads: rayon::current_num_threads(),
            instructions: simd::name(),
            f32_operations: peak::f32_operations(),
            bf16_operations: engine().and_then(|engine| engine.peak_operations()),
        }
    }
}
