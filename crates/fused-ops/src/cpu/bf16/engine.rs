//! Determines whether bf16 is faster than f32 on this processor, and with which instructions.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::line::Line;
use super::portable;
use super::rows::{Products, Rows};
#[cfg(target_arch = "x86_64")]
use crate::cpu::amx::{self, TileLine, Tiles};
use crate::cpu::microkernel::{Block, Left, PANEL, Right};
use crate::cpu::peak::on_all_threads;
use crate::cpu::simd::arch;
use crate::settings::{Bf16Arithmetic, Instructions, Settings};
use half::bf16;
use pulp::{Simd, WithSimd};
use std::sync::OnceLock;
use std::time::Instant;

/// The instructions that multiply in bf16, and their speedup over f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Engine {
    kernel: Kernel,
    speedup: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// Rows in the form that the engine's kernel needs.
pub(super) enum Prepared<'a> {
    Rows(Rows<'a>),
    #[cfg(target_arch = "x86_64")]
    Tiles(Tiles<Line>),
}

impl Kernel {
    /// The kernels that this processor supports, the fastest first.
    pub(super) fn supported() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(amx::is_supported::<Line>().then_some(Self::Amx));
            kernels.extend(avx512::is_supported().then_some(Self::Avx512));
        }
        kernels.push(Self::Portable);
        kernels
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512 bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "AMX bf16",
        }
    }
}

/// The engine for layers with bf16 weights, or `None` if f32 is as fast.
pub(crate) fn engine() -> Option<Engine> {
    static CHOSEN: OnceLock<Option<Engine>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let settings = Settings::current().unwrap_or_default();
        match settings.bf16 {
            Bf16Arithmetic::Default if settings.instructions == Instructions::Widest => Engine::fastest(),
            Bf16Arithmetic::Default | Bf16Arithmetic::F32 => None,
            Bf16Arithmetic::Portable => Some(Engine::new(Kernel::Portable)),
        }
    })
}

impl Engine {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self { kernel, speedup: 1. }
    }

    /// Measures the supported kernels, which takes about ten microseconds.
    fn fastest() -> Option<Self> {
        /// Smaller speedups are not worth it.
        const LEAST: f32 = 1.25;
        let kernels = Kernel::supported().into_iter().filter(|kernel| *kernel != Kernel::Portable);
        let measured = kernels.map(|kernel| Self { kernel, speedup: speedup(kernel) });
        measured.max_by(|a, b| a.speedup.total_cmp(&b.speedup)).filter(|engine| engine.speedup >= LEAST)
    }

    /// The time of a multiply-add in the time of one in f32, by which layers choose their algorithm. It is a constant of
    /// the instructions, not what was measured, so that every run on a processor gives the same result.
    pub(crate) fn cost(self) -> f32 {
        match self.kernel {
            Kernel::Portable => 1.,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => 1. / 2.,
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx => 1. / 8.,
        }
    }

    /// The instructions' name.
    pub(crate) fn name(self) -> &'static str {
        self.kernel.name()
    }

    /// The multiply-adds in bf16 per multiply-add in f32, from the L1 cache.
    pub(crate) fn speedup(self) -> f32 {
        self.speedup
    }

    /// The maximum operations per second of the instructions on all threads; `None` for the portable ones.
    pub(crate) fn peak_operations(self) -> Option<f64> {
        match self.kernel {
            Kernel::Portable => None,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: engines only exist for available instructions.
            Kernel::Avx512 => Some(on_all_threads(|| unsafe { avx512::operations() })),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kernel::Amx => Some(on_all_threads(|| unsafe { Line::operations() })),
        }
    }

    /// Prepares rows for [`multiply`](Self::multiply).
    ///
    /// # Safety
    /// The rows must be as [`Rows`] requires while the result lives.
    pub(super) unsafe fn prepare<'a>(self, rows: Rows<'a>) -> Prepared<'a> {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller guarantees the rows.
            Kernel::Amx => Prepared::Tiles(unsafe { Tiles::new(rows.starts, rows.taps, rows.lines) }),
            _ => Prepared::Rows(rows),
        }
    }

    /// Writes the products of all rows with one or two panels, those of a row to `out[row · stride]`.
    ///
    /// # Safety
    /// The rows must be [prepared](Self::prepare) by this engine, the panels must have their taps and lines, and
    /// `out` must have space for as many rows, rounded up to a multiple of 32.
    pub(super) unsafe fn multiply(
        self,
        left: &Prepared,
        right: &[&[Line]],
        out: &mut [Products],
        stride: usize,
    ) {
        // SAFETY: the caller guarantees rows and panels, and engines only exist for available instructions.
        unsafe {
            match (left, self.kernel) {
                #[cfg(target_arch = "x86_64")]
                (Prepared::Tiles(tiles), _) => amx::multiply(tiles, right, out, stride),
                #[cfg(target_arch = "x86_64")]
                (Prepared::Rows(rows), Kernel::Avx512) => avx512::multiply(rows, right, out, stride),
                (Prepared::Rows(rows), _) => portable::multiply(rows, right, out, stride),
            }
        }
    }
}

/// The speedup of this kernel over the f32 kernel, from the L1 cache.
fn speedup(kernel: Kernel) -> f32 {
    const ROWS: usize = 32;
    const DEPTH: usize = 128;
    const TURNS: usize = 7;

    let left = [[1f32; DEPTH]; ROWS];
    let right = [[1f32; PANEL]; 2 * DEPTH];
    let mut floats = [[0f32; 2 * PANEL]; ROWS];
    let starts = left.each_ref().map(|row| row.as_ptr());

    let line = Line([bf16::ONE; 32]);
    let lines = [line; ROWS * DEPTH / 32];
    let panel = [line; DEPTH / 2];
    let line_starts: [*const Line; ROWS] = std::array::from_fn(|row| lines[row * DEPTH / 32..].as_ptr());
    let mut products = [[[0f32; PANEL]; 2]; ROWS];
    let engine = Engine::new(kernel);
    let rows = Rows { starts: &line_starts, taps: 1, lines: DEPTH / 32, pairs: DEPTH / 2 };
    // SAFETY: each start is followed by this many lines.
    let prepared = unsafe { engine.prepare(rows) };

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
        unsafe { engine.multiply(&prepared, &[&panel, &panel], &mut products, 1) };
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
