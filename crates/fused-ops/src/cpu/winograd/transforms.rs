//! Transforms tiles for Winograd's F(4×4, 3×3), interpolated at 0, ±1, ±2 and ∞ (Lavin & Gray, arXiv 1509.09308), on
//! vectors of channels.
//!
//! Six neighbours in a doubled image are `a b b c c d`. The value at −1 is then always zero, and those at 2 and −2
//! are both multiples of `c − b`. Five products remain; the third and fourth are the sums of the two at ±2 that the
//! results use.

use super::tile::{IN, OUT, side};
use crate::cpu::microkernel::{PANEL, Stored};
use crate::cpu::pack::FactorPart;
use pulp::Simd;

/// One panel of channels.
pub(super) type Lanes = [f32; PANEL];

/// `Bᵀ d` of six vectors; for a doubled image, of the first four, to the first five.
#[inline(always)]
pub(super) fn input_transform<S: Simd, const DOUBLED: bool>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN] {
    let times = |factor: f32, x, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), x, plus);
    if DOUBLED {
        let [a, b, c, d, none, _] = d;
        let step = simd.sub_f32s(c, b);
        return [
            times(4., a, times(-5., b, c)),
            times(-4., b, c),
            step,
            step,
            times(4., b, times(-5., c, d)),
            none,
        ];
    }
    let [d0, d1, d2, d3, d4, d5] = d;
    let (a, b) = (times(-4., d2, d4), times(-4., d1, d3));
    let (c, e) = (simd.sub_f32s(d4, d2), simd.sub_f32s(d3, d1));
    [
        times(4., d0, times(-5., d2, d4)),
        simd.add_f32s(a, b),
        simd.sub_f32s(a, b),
        times(2., e, c),
        times(-2., e, c),
        times(4., d1, times(-5., d3, d5)),
    ]
}

/// `Aᵀ m` of six vectors; for a doubled image, of the first five.
#[inline(always)]
pub(super) fn output_transform<S: Simd, const DOUBLED: bool>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT] {
    let times = |factor: f32, x, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), x, plus);
    if DOUBLED {
        let [m0, m1, sum, difference, m5, _] = m;
        return [
            simd.add_f32s(m0, simd.add_f32s(m1, sum)),
            times(2., difference, m1),
            times(4., sum, m1),
            simd.add_f32s(m5, times(8., difference, m1)),
        ];
    }
    let [m0, m1, m2, m3, m4, m5] = m;
    let (sum12, difference12) = (simd.add_f32s(m1, m2), simd.sub_f32s(m1, m2));
    let (sum34, difference34) = (simd.add_f32s(m3, m4), simd.sub_f32s(m3, m4));
    [
        simd.add_f32s(m0, simd.add_f32s(sum12, sum34)),
        times(2., difference34, difference12),
        times(4., sum34, sum12),
        simd.add_f32s(m5, times(8., difference34, difference12)),
    ]
}

/// `G g` of three vectors; for a doubled image, to the first five.
#[inline(always)]
fn weight_transform<S: Simd, const DOUBLED: bool>(simd: S, g: [S::f32s; 3]) -> [S::f32s; IN] {
    let [g0, g1, g2] = g;
    let times = |factor: f32, x| simd.mul_f32s(simd.splat_f32s(factor), x);
    let near = simd.add_f32s(g0, g2);
    let far = simd.mul_add_e_f32s(simd.splat_f32s(4.), g2, g0);
    if DOUBLED {
        return [
            times(1. / 4., g0),
            times(-1. / 3., simd.add_f32s(near, g1)),
            times(1. / 12., simd.mul_add_e_f32s(simd.splat_f32s(4.), g1, far)),
            times(1. / 6., simd.add_f32s(far, g1)),
            g2,
            g2,
        ];
    }
    let twice = simd.add_f32s(g1, g1);
    [
        times(1. / 4., g0),
        times(-1. / 6., simd.add_f32s(near, g1)),
        times(-1. / 6., simd.sub_f32s(near, g1)),
        times(1. / 24., simd.add_f32s(far, twice)),
        times(1. / 24., simd.sub_f32s(far, twice)),
        g2,
    ]
}

#[inline(always)]
pub(super) fn read<S: Simd>(lanes: &Lanes, first: usize) -> S::f32s {
    assert!(first + S::F32_LANES <= PANEL);
    // SAFETY: the vector lies within the lanes.
    unsafe { lanes.as_ptr().add(first).cast::<S::f32s>().read_unaligned() }
}

#[inline(always)]
pub(super) fn write<S: Simd>(lanes: &mut Lanes, first: usize, values: S::f32s) {
    assert!(first + S::F32_LANES <= PANEL);
    // SAFETY: the vector lies within the lanes.
    unsafe { lanes.as_mut_ptr().add(first).cast::<S::f32s>().write_unaligned(values) }
}

/// Transforms the kernels of `channels` input channels of one panel of the direct convolution's weights (9 taps):
/// `out` is (places, rows, 16), of which the first `channels` rows are written.
#[inline(always)]
pub(super) fn transform_weights<S: Simd, T: Stored, const DOUBLED: bool>(
    simd: S,
    weights: FactorPart<T>,
    channels: usize,
    rows: usize,
    out: &mut [f32],
) {
    let (taps_of_all, out) = (weights.data.as_chunks::<PANEL>().0, out.as_chunks_mut::<PANEL>().0);
    assert!(channels <= rows);
    for k in 0..channels {
        let mut taps = [[0f32; PANEL]; 9];
        for (tap, lanes) in taps.iter_mut().enumerate() {
            for (lane, value) in lanes.iter_mut().zip(&taps_of_all[tap * weights.rows_per_tap + k]) {
                *lane = value.widen();
            }
        }
        for first in (0..PANEL).step_by(S::F32_LANES) {
            let load = |y: usize, x: usize| read::<S>(&taps[3 * y + x], first);
            let mut store =
                |y: usize, x: usize, v| write::<S>(&mut out[(y * side(DOUBLED) + x) * rows + k], first, v);
            let mut half = [[simd.splat_f32s(0.); IN]; 3];
            for (y, half) in half.iter_mut().enumerate() {
                *half = weight_transform::<S, DOUBLED>(simd, [load(y, 0), load(y, 1), load(y, 2)]);
            }
            for x in 0..side(DOUBLED) {
                let column = weight_transform::<S, DOUBLED>(simd, [half[0][x], half[1][x], half[2][x]]);
                for (y, values) in column.into_iter().enumerate().take(side(DOUBLED)) {
                    store(y, x, values);
                }
            }
        }
    }
}
