//! Multiplies a vector with many rows, which may be stored as f16.

use super::simd::vectorized;

/// Independent sums, which hide the latency of additions.
const LANES: usize = 32;
/// Moves the exponent of f16 to that of f32.
const EXPONENT_SHIFT: f32 = f32::from_bits((127 + 127 - 15) << 23);

/// The product of `query` with each row of little-endian f32.
pub(crate) fn of_singles(query: &[f32], rows: &[u8], products: &mut [f32]) {
    with_rows(query, rows, products, f32::from_le_bytes);
}

/// The product of `query` with each row of little-endian f16, all finite.
pub(crate) fn of_halves(query: &[f32], rows: &[u8], products: &mut [f32]) {
    with_rows(
        query,
        rows,
        products,
        #[inline(always)]
        |bytes: [u8; 2]| {
            // Integer arithmetic, because not every instruction set converts f16; subnormal numbers come out right too.
            let bits = u32::from(u16::from_le_bytes(bytes));
            let magnitude = f32::from_bits((bits & 0x7fff) << 13) * EXPONENT_SHIFT;
            f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
        },
    );
}

#[inline(always)]
fn with_rows<const BYTES: usize>(
    query: &[f32],
    rows: &[u8],
    products: &mut [f32],
    number: impl Fn([u8; BYTES]) -> f32,
) {
    vectorized(
        #[inline(always)]
        || {
            for (row, product) in rows.chunks_exact(query.len() * BYTES).zip(&mut *products) {
                let (numbers, _) = row.as_chunks::<BYTES>();
                let (blocks, rest) = numbers.as_chunks::<LANES>();
                let (query_blocks, query_rest) = query.as_chunks::<LANES>();
                let mut sums = [0_f32; LANES];
                for (block, query) in blocks.iter().zip(query_blocks) {
                    for lane in 0..LANES {
                        sums[lane] += query[lane] * number(block[lane]);
                    }
                }
                let rest: f32 = rest.iter().zip(query_rest).map(|(bytes, x)| x * number(*bytes)).sum();
                *product = sums.iter().sum::<f32>() + rest;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn products_are_those_of_exact_arithmetic() {
        for width in [1, 7, 31, 32, 33, 128, 770] {
            let query: Vec<f32> = (0..width).map(|i| (i as f32 * 0.37).sin()).collect();
            let numbers: Vec<f32> = (0..3 * width).map(|i| (i as f32 * 0.11).cos() * 0.05).collect();
            let halves: Vec<f16> = numbers.iter().map(|x| f16::from_f32(*x)).collect();
            let single_bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            let half_bytes: Vec<u8> = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
            let exact = |row: usize, x: &dyn Fn(usize) -> f64| -> f64 {
                (0..width).map(|i| f64::from(query[i]) * x(row * width + i)).sum()
            };
            let (mut singles, mut of_half) = ([0.; 3], [0.; 3]);
            of_singles(&query, &single_bytes, &mut singles);
            of_halves(&query, &half_bytes, &mut of_half);
            for row in 0..3 {
                let single = exact(row, &|i| numbers[i].into());
                let half = exact(row, &|i| halves[i].into());
                assert!((f64::from(singles[row]) - single).abs() < 1e-5, "{width}");
                assert!((f64::from(of_half[row]) - half).abs() < 1e-5, "{width}");
            }
        }
    }

    #[test]
    fn every_finite_half_is_read() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                let mut product = [0.];
                of_halves(&[1.], &half.to_le_bytes(), &mut product);
                assert_eq!(product[0], half.to_f32());
            }
        }
    }
}
