//! Determines whether bf16 is faster than f32 on this processor, and with which instructions.

use super::line::{Line, Pair};
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx512};
use crate::cpu::lines::{self, Kernel, Rows, portable};
use crate::cpu::microkernel::{Block, Left, PANEL, Right};
use crate::cpu::simd::arch;
use crate::settings::{Bf16Arithmetic, Instructions, Settings};
use half::bf16;
use pulp::{Simd, WithSimd};
use std::sync::OnceLock;
use std::time::Instant;

pub(super) static PORTABLE: Kernel<Pair> = portable::kernel();

/// The kernels of this architecture that may be faster than f32, the fastest first, with the time of a multiply-add in
/// the time of one in f32.
#[cfg(target_arch = "x86_64")]
static KERNELS: [(&Kernel<Pair>, f32); 2] = [(&amx::KERNEL, 1. / 8.), (&avx512::KERNEL, 1. / 2.)];
#[cfg(target_arch = "aarch64")]
static KERNELS: [(&Kernel<Pair>, f32); 1] = [(&neon::KERNEL, 1. / 3.)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static KERNELS: [(&Kernel<Pair>, f32); 0] = [];

/// The instructions that multiply in bf16, and their speedup over f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine {
    pub(crate) kernel: &'static Kernel<Pair>,
    /// The time of a multiply-add in the time of one in f32, by which layers choose their algorithm. It is a constant of
    /// the instructions, not what was measured, so that every run on a processor gives the same result.
    pub(crate) cost: f32,
    /// The multiply-adds in bf16 per multiply-add in f32, from the L1 cache.
    pub(crate) speedup: f32,
}

/// The engine for layers with bf16 weights, or `None` if f32 is as fast.
pub(crate) fn engine() -> Option<Engine> {
    static CHOSEN: OnceLock<Option<Engine>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let settings = Settings::current().unwrap_or_default();
        match settings.bf16 {
            Bf16Arithmetic::Default if settings.instructions == Instructions::Widest => fastest(),
            Bf16Arithmetic::Default | Bf16Arithmetic::F32 => None,
            Bf16Arithmetic::Portable => Some(Engine { kernel: &PORTABLE, cost: 1., speedup: 1. }),
        }
    })
}

/// Measures the supported kernels, which takes about ten microseconds.
fn fastest() -> Option<Engine> {
    /// Smaller speedups are not worth it.
    const LEAST: f32 = 1.25;
    let measured = supported().map(|(kernel, cost)| Engine { kernel, cost, speedup: speedup(kernel) });
    measured.max_by(|a, b| a.speedup.total_cmp(&b.speedup)).filter(|engine| engine.speedup >= LEAST)
}

/// The kernels that this processor supports beside the portable one, and their cost.
pub(super) fn supported() -> impl Iterator<Item = (&'static Kernel<Pair>, f32)> {
    KERNELS.into_iter().filter(|(kernel, _)| (kernel.is_supported)())
}

/// The speedup of this kernel over the f32 kernel, from the L1 cache.
fn speedup(kernel: &Kernel<Pair>) -> f32 {
    const ROWS: usize = 32;
    const DEPTH: usize = 128;
    const TURNS: usize = 7;

    let left = [[1f32; DEPTH]; ROWS];
    let right = [[1f32; PANEL]; 2 * DEPTH];
    let mut floats = [[0f32; 2 * PANEL]; ROWS];
    let starts = left.each_ref().map(|row| row.as_ptr());

    let line: Line = lines::Line([[bf16::ONE; 2]; PANEL]);
    let lines = [line; ROWS * DEPTH / Line::VALUES];
    let panel = [line; DEPTH / 2];
    let line_starts: [*const Line; ROWS] =
        std::array::from_fn(|row| lines[row * DEPTH / Line::VALUES..].as_ptr());
    let mut products = [[[0f32; PANEL]; 2]; ROWS];
    let rows = Rows { starts: &line_starts, taps: 1, lines: DEPTH / Line::VALUES, groups: DEPTH / 2 };
    // SAFETY: each start is followed by this many lines.
    let prepared = unsafe { kernel.prepare(rows) };

    let (mut in_f32, mut in_bf16) = (f32::INFINITY, f32::INFINITY);
    let arch = arch();
    for _ in 0..TURNS {
        let begin = Instant::now();
        arch.dispatch(FloatTask {
            starts: &starts,
            right: right.as_flattened(),
            out: floats.as_flattened_mut(),
        });
        in_f32 = in_f32.min(begin.elapsed().as_secs_f32());
        std::hint::black_box(&mut floats);
        let begin = Instant::now();
        // SAFETY: the panels have as many lines as the rows, and there is space for 32 rows.
        unsafe { prepared.multiply(&[&panel, &panel], &mut products, 1) };
        in_bf16 = in_bf16.min(begin.elapsed().as_secs_f32());
        std::hint::black_box(&mut products);
    }
    in_f32 / in_bf16
}

/// A product of the f32 kernel: rows of `right.len() / 32` values by two panels.
struct FloatTask<'a> {
    starts: &'a [*const f32],
    right: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for FloatTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let depth = self.right.len() / (2 * PANEL);
        assert!(self.out.len() == self.starts.len() * 2 * PANEL);
        let block = Block {
            left: Left::Rows { starts: self.starts, taps: 1, depth },
            right: Right { data: self.right.as_ptr(), row_stride: PANEL, panel_stride: depth * PANEL },
            rows: self.starts.len(),
            panels: 0..2,
            columns: 2 * PANEL,
            accumulate: false,
            out: self.out.as_mut_ptr(),
            out_stride: 2 * PANEL,
        };
        // SAFETY: the caller provides rows and panels of this depth, and space for the product.
        unsafe { block.run(simd) };
    }
}
