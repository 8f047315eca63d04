//! Normalises vectors and computes cosines.

/// The unit vector in the same direction. For zero, or if values are not finite, it contains NaN.
pub fn unit_vector(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|&x| (f64::from(x) / length) as f32).collect()
}

/// The cosine of a unit vector and one of any length, given as little-endian f32; 0 for zero.
pub(crate) fn cosine(unit: &[f32], bytes: &[u8]) -> f32 {
    const LANES: usize = 16;
    let (numbers, _) = bytes.as_chunks::<4>();
    let (mut dot, mut square) = ([0_f32; LANES], [0_f32; LANES]);
    // Independent sums, which the compiler vectorizes.
    for (unit, numbers) in unit.chunks(LANES).zip(numbers.chunks(LANES)) {
        let sums = dot.iter_mut().zip(&mut square);
        for ((unit, number), (dot, square)) in unit.iter().zip(numbers).zip(sums) {
            let number = f32::from_le_bytes(*number);
            *dot += unit * number;
            *square += number * number;
        }
    }
    let sum = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
    let (dot, square) = (sum(dot), sum(square));
    if square == 0.0 { 0.0 } else { (dot / square.sqrt()) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_of_all_widths() {
        for width in 1..70 {
            let numbers: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin() + 0.1).collect();
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| (3. * number).to_le_bytes()).collect();
            let unit = unit_vector(&numbers);
            assert!((cosine(&unit, &bytes) - 1.).abs() < 1e-6, "{width}");
        }
    }
}
