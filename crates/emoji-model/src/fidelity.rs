//! Measures the fidelity of reconstructions, for the eye as well as in dB.

use crate::pixels::mean_psnr;
use candle_core::{DType, Result, Tensor};
use std::fmt;

/// White pixels this far from any other colour are background, beyond the blur of edges.
const BACKGROUND_MARGIN: usize = 2;

/// How reconstructions differ from their originals; displayed as one line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fidelity {
    /// Mean peak signal-to-noise ratio, in dB.
    pub psnr: f64,
    /// The energy of differences between neighbouring pixels, relative to the originals: below 1, edges are blurred;
    /// above, there is spurious texture.
    pub edges: f64,
    /// Mean absolute error of the white background, in levels of 255; 0 if there is none.
    pub white_error: f64,
}

impl Fidelity {
    /// Compares channels-last images (n, height, width, channels) from −1 to 1.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn of(originals: &Tensor, reconstructions: &Tensor) -> Result<Self> {
        let found = reconstructions.clamp(-1., 1.)?;
        let edges = edge_energy(&found)? / edge_energy(originals)?.max(f64::MIN_POSITIVE);
        let background = background(originals)?;
        let error = ((found - 1.)?.abs()? * 127.5)?.mean(3)?;
        let white_error = sum(&error.mul(&background)?)? / sum(&background)?.max(1.);
        Ok(Self { psnr: mean_psnr(originals, reconstructions)?, edges, white_error })
    }
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { psnr, edges, white_error } = self;
        write!(f, "{psnr:.2} dB, edges {:.0} %, white off by {white_error:.2} of 255", 100. * edges)
    }
}

/// The sum of squared differences between neighbours, along both axes.
pub(crate) fn edge_energy(images: &Tensor) -> Result<f64> {
    let mut energy = 0.;
    for dimension in [1, 2] {
        let steps = images.dim(dimension)?.saturating_sub(1);
        let difference = (images.narrow(dimension, 1, steps)? - images.narrow(dimension, 0, steps)?)?;
        energy += sum(&difference.sqr()?)?;
    }
    Ok(energy)
}

/// 1 for every pixel surrounded by white, otherwise 0: (n, height, width).
fn background(images: &Tensor) -> Result<Tensor> {
    let mut white = images.ge(0.999)?.to_dtype(DType::F32)?.min(3)?;
    for dimension in [1, 2] {
        let size = white.dim(dimension)?;
        // Nothing beyond the border can blur into the image.
        let padded = white.pad_with_same(dimension, BACKGROUND_MARGIN, BACKGROUND_MARGIN)?;
        for offset in 0..=2 * BACKGROUND_MARGIN {
            white = white.minimum(&padded.narrow(dimension, offset, size)?)?;
        }
    }
    Ok(white)
}

fn sum(values: &Tensor) -> Result<f64> {
    Ok(f64::from(values.sum_all()?.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// One grey image of 8 × 8 pixels, row by row.
    fn image(value: impl Fn(usize, usize) -> f32) -> Tensor {
        let values: Vec<f32> = (0..64).map(|i| value(i / 8, i % 8)).collect();
        Tensor::from_vec(values, (1, 8, 8, 1), &Device::Cpu).unwrap()
    }

    #[test]
    fn an_image_is_true_to_itself() {
        let original = image(|row, column| if row + column < 5 { -1. } else { 1. });
        let fidelity = Fidelity::of(&original, &original).unwrap();
        assert!(fidelity.psnr > 100., "{fidelity}");
        assert_eq!((fidelity.edges, fidelity.white_error), (1., 0.));
    }

    #[test]
    fn an_edge_over_two_pixels_has_half_the_energy() {
        let sharp = image(|_, column| if column < 4 { -1. } else { 1. });
        let blurred = image(|_, column| match column {
            0..4 => -1.,
            4 => 0.,
            _ => 1.,
        });
        let fidelity = Fidelity::of(&sharp, &blurred).unwrap();
        assert!((fidelity.edges - 0.5).abs() < 1e-6, "{fidelity}");
        // White starts at column 4, and the blur ends within the margin.
        assert_eq!(fidelity.white_error, 0.);
    }

    #[test]
    fn white_is_measured_where_no_edge_is_near() {
        let original = image(|_, column| if column == 0 { -1. } else { 1. });
        let grey = image(|_, column| if column < 3 { -1. } else { 1. - 2. / 127.5 });
        let fidelity = Fidelity::of(&original, &grey).unwrap();
        assert!((fidelity.white_error - 2.).abs() < 1e-3, "{fidelity}");
        let black = image(|_, _| -1.);
        assert_eq!(Fidelity::of(&black, &original).unwrap().white_error, 0.);
    }
}
