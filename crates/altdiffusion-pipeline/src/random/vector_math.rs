//! Computes logarithm, sine and cosine like PyTorch's vectorized normal numbers.
//!
//! PyTorch takes them from avx_mathfun, a vectorized Cephes (Moshier, <https://www.netlib.org/cephes/>), compiled for
//! processors with fused multiply-add, so the compiler contracts products and sums. The results are off in their last
//! bits. These are the same operations with the same roundings, for one value. Do not tidy them: `a * b + c` and
//! `a.mul_add(b, c)` are different numbers.

/// ln x for a positive, normal x.
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    // x = mantissa · 2^exponent with a mantissa in [√½, √2)
    let mut exponent = ((bits >> 23) as i32 - 0x7f) as f32 + 1.0;
    let mut mantissa = f32::from_bits((bits & !0x7f80_0000) | 0.5f32.to_bits());
    if mantissa < SQRT_HALF {
        exponent -= 1.0;
        mantissa = (mantissa - 1.0) + mantissa;
    } else {
        mantissa -= 1.0;
    }
    let square = mantissa * mantissa;
    let polynomial = LN.into_iter().fold(0.0, |sum: f32, factor| sum.mul_add(mantissa, factor));
    let mut result = (polynomial * mantissa).mul_add(square, exponent * LN_2_LOW);
    result = (-square).mul_add(0.5, result);
    exponent.mul_add(LN_2_HIGH, mantissa + result)
}

/// sin x and cos x for an x ≥ 0 that is not large.
pub(super) fn sin_cos(x: f32) -> (f32, f32) {
    // The octant, rounded up to even: x − octant · π/4 is in [−π/4, π/4].
    let octant = ((x * FOUR_OVER_PI) as i32 + 1) & !1;
    let turns = octant as f32;
    let x = PI_OVER_4.into_iter().fold(x, |x, part| turns.mul_add(-part, x));
    let square = x * x;

    let cosine = COS.into_iter().fold(0.0, |sum: f32, factor| sum.mul_add(square, factor)) * square;
    let cosine = cosine.mul_add(square, -(square * 0.5)) + 1.0;
    let sine = SIN.into_iter().fold(0.0, |sum: f32, factor| sum.mul_add(square, factor)) * square;
    let sine = sine.mul_add(x, x);

    let (sine, cosine) = if octant & 2 == 0 { (sine, cosine) } else { (cosine, sine) };
    let sine = if octant & 4 == 0 { sine } else { -sine };
    let cosine = if (octant - 2) & 4 == 0 { -cosine } else { cosine };
    (sine, cosine)
}

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
const FOUR_OVER_PI: f32 = 4.0 * std::f32::consts::FRAC_1_PI;
/// ln 2 in two parts. The first is short, so that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// π/4 in three parts, for the same reason.
const PI_OVER_4: [f32; 3] = [0.785_156_25, 2.418_756_5e-4, 3.774_895e-8];
/// The polynomials, from the highest power down.
const LN: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_84e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_7e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];
const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_exact_functions() {
        for step in 1..=4096 {
            let x = step as f32 / 4096.0;
            assert!((ln(x) - x.ln()).abs() <= 2e-7 * x.ln().abs().max(0.1), "{x}");
            let angle = x * std::f32::consts::TAU;
            let (sine, cosine) = sin_cos(angle);
            assert!((sine - angle.sin()).abs() < 2e-7 && (cosine - angle.cos()).abs() < 2e-7, "{angle}");
        }
        assert_eq!((ln(1.0), sin_cos(0.0)), (0.0, (0.0, 1.0)));
    }
}
