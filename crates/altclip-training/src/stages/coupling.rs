//! Couples noise to images, so that the noise decides between several images that are right for one caption.
//!
//! Without a coupling, the best first prediction for a caption with two right images is their mean, and sampling in a
//! few steps draws a blend. If each image is only ever seen with its own half of the noise, that half has one answer
//! (compare the couplings of Pooladian et al., arXiv 2304.14772). Which half a sample lies in is a coin toss, so the
//! noise of a caption with as many images on either side stays Gaussian, and sampling does not change.

use candle_core::Tensor;

/// A half of all noise: the mean of the first channel is positive or negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The mean is positive, or zero.
    Positive,
    /// The mean is negative.
    Negative,
}

/// Negates the noise of each image that is on the other side; without a side, noise remains as it is.
///
/// * `noise` (n, channels, height, width)
/// * `sides`: of each image, or empty
///
/// # Errors
/// If there are fewer sides than images.
pub fn on_sides(noise: Tensor, sides: &[Option<Side>]) -> candle_core::Result<Tensor> {
    if sides.iter().all(Option::is_none) {
        return Ok(noise);
    }
    let means = noise.narrow(1, 0, 1)?.flatten_from(1)?.mean(1)?.to_vec1::<f32>()?;
    let sign = |(mean, side): (f32, &Option<Side>)| match side {
        Some(Side::Positive) if mean < 0. => -1f32,
        Some(Side::Negative) if mean >= 0. => -1.,
        _ => 1.,
    };
    let signs: Vec<f32> = means.into_iter().zip(sides).map(sign).collect();
    noise.broadcast_mul(&Tensor::from_vec(signs, (noise.dim(0)?, 1, 1, 1), noise.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn noise_is_negated_where_it_is_on_the_other_side() -> candle_core::Result<()> {
        // Four images of two channels of two pixels; the first channels have the means 1, −1, 1 and −1.
        let values = [3f32, -1., 7., 7., -3., 1., 7., 7., 3., -1., 7., 7., -3., 1., 7., 7.];
        let noise = Tensor::new(&values, &Device::Cpu)?.reshape((4, 2, 1, 2))?;
        let sides = [Some(Side::Positive), Some(Side::Positive), Some(Side::Negative), None];
        let coupled = on_sides(noise.clone(), &sides)?.flatten_all()?.to_vec1::<f32>()?;
        let expected = [3f32, -1., 7., 7., 3., -1., -7., -7., -3., 1., -7., -7., -3., 1., 7., 7.];
        assert_eq!(coupled, expected);
        assert_eq!(on_sides(noise.clone(), &[])?.flatten_all()?.to_vec1::<f32>()?, values);
        assert!(on_sides(noise, &[Some(Side::Negative)]).is_err());
        Ok(())
    }
}
