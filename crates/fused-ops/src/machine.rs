//! Reports what the CPU kernels use on this machine.

use crate::cpu::bf16::engine;
use crate::cpu::{int8, peak, simd};

/// The instructions with which layers with bf16 weights compute on the CPU.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bf16Support {
    /// Their name, such as `AVX-512 bf16`.
    pub instructions: &'static str,
    /// The multiply-adds per multiply-add in f32, from the L1 cache, measured once per process.
    pub speedup: f32,
}

/// The bf16 instructions used on this CPU. `None` means f32, because it is as fast, or because the
/// [settings](crate::Settings) ask for it.
pub fn bf16_support() -> Option<Bf16Support> {
    engine().map(|engine| Bf16Support { instructions: engine.kernel.name, speedup: engine.speedup })
}

/// The instructions with which layers with [int8](crate::INT8) weights compute on this CPU, such as `AVX-512 VNNI`.
pub fn int8_instructions() -> &'static str {
    int8::engine().name
}

/// The machine that the CPU kernels run on.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// The number of compute threads: `RAYON_NUM_THREADS`, or one per processor.
    pub threads: usize,
    /// The instruction set of the f32 kernels.
    pub instructions: &'static str,
    /// The floating-point operations per second in f32 of all threads, on registers: an upper limit for every kernel.
    pub f32_operations: f64,
    /// The same for bf16, if layers compute in it.
    pub bf16_operations: Option<f64>,
    /// The operations per second in int8, if the processor has instructions for its dot products.
    pub int8_operations: Option<f64>,
}

impl Machine {
    /// Measures this machine's limits. This takes a tenth of a second on all threads.
    pub fn measure() -> Self {
        Self {
            threads: rayon::current_num_threads(),
            instructions: simd::name(),
            f32_operations: peak::f32_operations(),
            bf16_operations: engine().and_then(|engine| engine.kernel.peak_operations()),
            int8_operations: int8::engine().peak_operations(),
        }
    }
}
