//! Measures the maximum number of multiply-adds per second: loops of instructions on registers, on all threads.

use super::simd::arch;
use pulp::{Simd, WithSimd};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long each thread computes.
const TIME: Duration = Duration::from_millis(30);
/// Independent sums, enough to hide the latency of an instruction.
const SUMS: usize = 12;

/// Floating-point operations per second in f32, on all threads together.
pub(crate) fn f32_operations() -> f64 {
    on_all_threads(|| {
        let mut operations = 0;
        arch().dispatch(F32Loop { operations: &mut operations });
        operations
    })
}

/// Operations per second of `work`, which does a fixed number and returns it. The fastest round of each thread
/// counts, so that other load hardly matters.
pub(super) fn on_all_threads(work: impl Fn() -> u64 + Sync) -> f64 {
    let rates = rayon::broadcast(|_| {
        let (begin, mut fastest) = (Instant::now(), 0f64);
        while begin.elapsed() < TIME {
            let round = Instant::now();
            let operations = work();
            fastest = fastest.max(operations as f64 / round.elapsed().as_secs_f64());
        }
        fastest
    });
    rates.into_iter().sum()
}

struct F32Loop<'a> {
    operations: &'a mut u64,
}

impl WithSimd for F32Loop<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const ROUNDS: usize = 20_000;
        let factor = simd.splat_f32s(black_box(0.999));
        let mut sums = [simd.splat_f32s(black_box(1.)); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, factor);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        *self.operations = (2 * ROUNDS * SUMS * S::F32_LANES) as u64;
    }
}
