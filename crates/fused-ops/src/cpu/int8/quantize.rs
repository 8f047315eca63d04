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
    inverse: f32,
}

impl RowScale {
    /// The scale of a row. It is not a number if one of its values is not finite, and so are then all results of that row.
    #[inline(always)]
    pub(super) fn of(values: &[f32]) -> Self {
        let (mut largest, mut poison) = ([0f32; LANES], [0f32; LANES]);
        let mut add = |values: &[f32; LANES]| {
            for lane in 0..LANES {
                let value = values[lane].abs();
                largest[lane] = if value > largest[lane] { value } else { largest[lane] };
                // Infinity times zero is not a number.
                poison[lane] += value * 0.;
            }
        };
        let (whole, rest) = values.as_chunks::<LANES>();
        whole.iter().for_each(&mut add);
        let mut last = [0f32; LANES];
        last[..rest.len()].copy_from_slice(rest);
        add(&last);
        let largest = largest.into_iter().fold(0f32, f32::max);
        if poison.into_iter().sum::<f32>().is_nan() {
            return Self { scale: f32::NAN, inverse: 0. };
        }
        if largest < SMALLEST {
            return Self { scale: 0., inverse: 0. };
        }
        Self { scale: largest / LARGEST, inverse: LARGEST / largest }
    }

    /// The integers nearest to the values, ties to even, in two's complement, with `shift` added.
    #[inline(always)]
    pub(super) fn round(self, values: &[f32], shift: u8, out: &mut [u8]) {
        let (whole, rest) = values.as_chunks::<LANES>();
        let (out, out_rest) = out.as_chunks_mut::<LANES>();
        for (out, values) in out.iter_mut().zip(whole) {
            for lane in 0..LANES {
                out[lane] = self.nearest(values[lane]).wrapping_add(shift);
            }
        }
        let to = out.as_flattened_mut().iter_mut().skip(whole.len() * LANES).chain(out_rest);
        to.zip(rest).for_each(|(to, value)| *to = self.nearest(*value).wrapping_add(shift));
    }

    /// Branch-free, so that it is vectorized.
    #[inline(always)]
    fn nearest(self, value: f32) -> u8 {
        /// 1.5 · 2²³: adding it leaves the integer in the lowest bits.
        const TO_INTEGER: f32 = 12_582_912.;
        (value * self.inverse + TO_INTEGER).to_bits() as u8
    }
}

/// Quantizes a row, and returns its scale, which is not a number if a value is not finite.
pub(crate) fn quantize_row(values: &[f32], out: &mut [u8]) -> f32 {
    let scale = RowScale::of(values);
    scale.round(values, 0, out);
    scale.scale
}
