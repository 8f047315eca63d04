//! Rounds numbers to integers of −127 to 127 with a scale.

/// The largest integer.
const LARGEST: f32 = 127.;
/// Rows whose numbers are all smaller are zeros: their scale would be subnormal.
const SMALLEST: f32 = 1e-30;
/// Independent maxima, which vectorize.
const LANES: usize = 16;

/// What a row's integers are multiplied by, and its numbers to become integers.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowScale {
    pub(super) scale: f32,
    pub(super) inverse: f32,
}

impl RowScale {
    /// The scale of a row, from its values in pieces. It is not a number if one of them is not finite, and so are then all
    /// results of that row.
    #[inline(always)]
    pub(super) fn of(pieces: impl Iterator<Item = [f32; LANES]>) -> Self {
        let (mut largest, mut poison) = ([0f32; LANES], [0f32; LANES]);
        for piece in pieces {
            for lane in 0..LANES {
                let value = piece[lane].abs();
                largest[lane] = if value > largest[lane] { value } else { largest[lane] };
                // Infinity times zero is not a number.
                poison[lane] += value * 0.;
            }
        }
        let largest = largest.into_iter().fold(0f32, f32::max);
        if poison.into_iter().sum::<f32>().is_nan() {
            return Self { scale: f32::NAN, inverse: 0. };
        }
        if largest < SMALLEST {
            return Self { scale: 0., inverse: 0. };
        }
        Self { scale: largest / LARGEST, inverse: LARGEST / largest }
    }

    /// The integer nearest to a value, ties to even, in two's complement. Branch-free, so that it is vectorized.
    #[inline(always)]
    pub(super) fn round(self, value: f32) -> u8 {
        /// 1.5 · 2²³: adding it leaves the integer in the lowest bits.
        const TO_INTEGER: f32 = 12_582_912.;
        (value * self.inverse + TO_INTEGER).to_bits() as u8
    }
}

/// A row in pieces of 16 values, the last one filled with zeros, with each value multiplied by its factor.
#[inline(always)]
pub(super) fn pieces<'a>(
    values: &'a [f32],
    factors: Option<&'a [f32]>,
) -> impl Iterator<Item = [f32; LANES]> + 'a {
    (0..values.len().div_ceil(LANES)).map(
        #[inline(always)]
        move |piece| {
            let first = piece * LANES;
            let mut out = [0f32; LANES];
            let values = &values[first..];
            match values.first_chunk() {
                Some(whole) => out = *whole,
                None => out[..values.len()].copy_from_slice(values),
            }
            if let Some(factors) = factors {
                out.iter_mut().zip(&factors[first..]).for_each(|(out, factor)| *out *= factor);
            }
            out
        },
    )
}

/// Quantizes a row, and returns its scale, which is not a number if a value is not finite.
pub(crate) fn quantize_row(values: &[f32], factors: Option<&[f32]>, out: &mut [i8]) -> f32 {
    let scale = RowScale::of(pieces(values, factors));
    for (out, piece) in out.chunks_mut(LANES).zip(pieces(values, factors)) {
        out.iter_mut().zip(piece).for_each(|(out, value)| *out = scale.round(value).cast_signed());
    }
    scale.scale
}
