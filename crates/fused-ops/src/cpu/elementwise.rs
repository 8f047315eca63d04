//! Maps branch-free scalar functions over slices, which the compiler vectorizes.

use super::output::written;
use super::simd::vectorized;
use pulp::Simd;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Values per task.
pub(super) const CHUNK: usize = 16 * 1024;

/// `eˣ` to within 2 units in the last place, 0 below −87.3 and `e⁸⁸·³` above 88.3.
///
/// Range reduction to `2ⁿ · eʳ` with `|r| ≤ ln 2 / 2`, and the polynomial of Cephes' `expf` for `eʳ`.
#[inline(always)]
#[allow(clippy::excessive_precision)] // the constants as Cephes prints them
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.; // 1.5 · 2²³: adding and subtracting it rounds to an integer
    let clamped = x.clamp(-87.3, 88.3);
    let n = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    let r = clamped - n * 0.693_359_375 + n * 2.121_944_4e-4;
    let p = 1.987_569_15e-4;
    let p = p * r + 1.398_199_950_7e-3;
    let p = p * r + 8.333_451_907_3e-3;
    let p = p * r + 4.166_579_589_4e-2;
    let p = p * r + 1.666_666_545_9e-1;
    let p = p * r + 5.000_000_120_1e-1;
    let value = (p * r * r + r + 1.) * f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x < -87.3 { 0. } else { value }
}

/// `2ˣ` to within 2 units in the last place for x ≤ 127, and 0 below −126: the polynomial of Cephes' `exp2f`. The
/// caller must be compiled for `S`, so that it can use fused multiply-add.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn exp2<S: Simd>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.; // 1.5 · 2²³: adding it rounds to an integer, held in the lowest bits
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let p = 1.535_336_188_319_500e-4;
    let p = mul_add::<S>(p, r, 1.339_887_440_266_574e-3);
    let p = mul_add::<S>(p, r, 9.618_437_357_674_640e-3);
    let p = mul_add::<S>(p, r, 5.550_332_471_162_809e-2);
    let p = mul_add::<S>(p, r, 2.402_264_791_363_012e-1);
    let p = mul_add::<S>(p, r, 6.931_472_028_550_421e-1);
    let p = mul_add::<S>(p, r, 1.);
    let value = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -126. { 0. } else { value }
}

/// `a · b + c`, rounded once where the instruction set has FMA and twice otherwise, where [`f32::mul_add`] would call
/// a slow function.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1. / (1. + exp(-x))
}

/// The error function to within 3e-7: the rational minimax approximation of Eigen and XLA.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4., 4.);
    let s = x * x;
    let p = -2.726_142_258_013_06e-10;
    let p = p * s + 2.770_681_424_959_02e-8;
    let p = p * s - 2.101_024_020_825_08e-6;
    let p = p * s - 5.692_506_394_623_46e-5;
    let p = p * s - 7.349_906_303_268_55e-4;
    let p = p * s - 2.954_599_808_540_25e-3;
    let p = p * s - 1.609_603_332_624_15e-2;
    let q = -1.456_607_184_649_96e-5;
    let q = q * s - 2.133_740_552_789_05e-4;
    let q = q * s - 1.682_826_974_382_03e-3;
    let q = q * s - 7.373_329_167_204_68e-3;
    let q = q * s - 1.426_473_905_141_89e-2;
    x * p / q
}

#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1. + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `d gelu(x) / dx = Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn gelu_derivative(x: f32) -> f32 {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    0.5 * (1. + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * INV_SQRT_TAU * exp(-0.5 * x * x)
}

/// `2 √(2/π)`: ½ (1 + tanh(u)) is the sigmoid of 2 u.
const TANH_SCALE: f32 = 1.595_769;
const TANH_CUBIC: f32 = 0.044_715;

#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(TANH_SCALE * (x + TANH_CUBIC * x * x * x))
}

#[inline(always)]
pub(crate) fn gelu_tanh_derivative(x: f32) -> f32 {
    let s = sigmoid(TANH_SCALE * (x + TANH_CUBIC * x * x * x));
    s + x * s * (1. - s) * TANH_SCALE * (1. + 3. * TANH_CUBIC * x * x)
}

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
pub(crate) fn silu_derivative(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1. + x * (1. - s))
}

#[inline(always)]
pub(crate) fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

#[inline(always)]
pub(crate) fn quick_gelu_derivative(x: f32) -> f32 {
    let s = sigmoid(1.702 * x);
    s * (1. + 1.702 * x * (1. - s))
}

/// Maps `f` over values.
#[inline(always)]
pub(crate) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let write = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
            vectorized(
                #[inline(always)]
                || out.iter_mut().zip(x).for_each(|(out, &x)| _ = out.write(f(x))),
            );
        });
    };
    // SAFETY: both are chunked alike, so that every place is written.
    unsafe { written(x.len(), write) }
}

/// Maps `f` over pairs of values.
#[inline(always)]
pub(crate) fn map2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    let write = |out: &mut [MaybeUninit<f32>]| {
        let pairs = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
        out.par_chunks_mut(CHUNK).zip(pairs).for_each(|(out, (a, b))| {
            vectorized(
                #[inline(always)]
                || out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| _ = out.write(f(a, b))),
            );
        });
    };
    // SAFETY: all three are chunked alike, so that every place is written.
    unsafe { written(a.len(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-20_000..=20_000).map(|i| i as f32 * 5e-3)
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for x in grid().filter(|x| x.abs() < 87.) {
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) / expected - 1.).abs() < 2.4e-7, "exp({x}) = {}", exp(x));
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.);
        assert_eq!(exp(0.), 1.);
        assert!(exp(1000.).is_finite());
    }

    #[test]
    fn exp2_is_within_two_units_in_the_last_place() {
        let plain = exp2::<pulp::Scalar>;
        for x in
            grid().chain((-1_000..=1_000).map(|i| i as f32 * 0.125)).filter(|x| (-126. ..=127.).contains(x))
        {
            let expected = f64::from(x).exp2();
            assert!((f64::from(plain(x)) / expected - 1.).abs() < 2.4e-7, "exp2({x}) = {}", plain(x));
        }
        assert_eq!(plain(f32::NEG_INFINITY), 0.);
        assert_eq!(plain(-1e30), 0.);
        assert_eq!(plain(0.), 1.);
    }

    #[test]
    fn derivatives_match_differences() {
        for x in grid().filter(|x| x.abs() < 6.) {
            let h = 1e-2f32;
            for (name, f, d) in [
                ("gelu", gelu as fn(f32) -> f32, gelu_derivative as fn(f32) -> f32),
                ("silu", silu, silu_derivative),
                ("quick_gelu", quick_gelu, quick_gelu_derivative),
            ] {
                // The difference quotient's own error is h² f‴ / 6 ≤ 4e-5 plus rounding of f by 2⁻²³ · 6 / h.
                let difference = (f(x + h) - f(x - h)) / (2. * h);
                assert!((difference - d(x)).abs() < 2e-4, "{name} at {x}: {difference} against {}", d(x));
            }
        }
    }
}
