//! Combines several texts and images into what to search for.

use super::problem::at;
use super::{ImageLibrary, cells};
use crate::error::{Error, Result};
use crate::vector::unit_vector;

/// Vectors by which the spread of likeness is estimated.
const SAMPLES: usize = 500;

/// A part of what to search for.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryPart {
    /// The vector of a text or an image, of any length.
    pub vector: Vec<f32>,
    /// How much it counts; negative for what images should not be like.
    pub weight: f32,
}

impl ImageLibrary {
    /// One vector for all parts.
    ///
    /// A part counts by how much its likeness varies over the library: images are more like each other than like any
    /// text, so that without this, an image would outweigh the texts beside it.
    ///
    /// # Errors
    /// If there are no parts, one is of another dimension, zero or not finite, or they cancel out.
    pub fn combined(&self, parts: &[QueryPart]) -> Result<Vec<f32>> {
        let mut combined = vec![0_f32; self.made_with.width];
        let sample = match parts {
            [_] => Vec::new(),
            _ => {
                cells::sample(&self.connection, &self.made_with, SAMPLES, SAMPLES).map_err(at(&self.file))?
            }
        };
        for QueryPart { vector, weight } in parts {
            let unit = self.checked(vector)?;
            let scale = weight / spread(&sample, &unit);
            combined.iter_mut().zip(unit).for_each(|(sum, x)| *sum += scale * x);
        }
        self.checked(&combined)
    }

    /// The unit vector in a direction.
    pub(super) fn checked(&self, vector: &[f32]) -> Result<Vec<f32>> {
        let width = self.made_with.width;
        if vector.len() != width {
            let found = vector.len();
            return Err(Error::Input(format!(
                "{}: vectors of {width} numbers, and those of the model have {found}",
                self.file.display()
            )));
        }
        let unit = unit_vector(vector);
        match unit.iter().all(|x| x.is_finite()) {
            true => Ok(unit),
            false => Err(Error::NotFinite { item: "what is looked for".to_owned() }),
        }
    }
}

/// The standard deviation of the cosines of a vector with the sample, or 1 if that is not known.
fn spread(sample: &[f32], unit: &[f32]) -> f32 {
    let cosines: Vec<f32> = sample
        .chunks_exact(unit.len())
        .map(|vector| vector.iter().zip(unit).map(|(a, b)| a * b).sum())
        .collect();
    let count = cosines.len() as f32;
    let mean = cosines.iter().sum::<f32>() / count;
    let variance = cosines.iter().map(|cosine| (cosine - mean).powi(2)).sum::<f32>() / count;
    if variance > 1e-10 { variance.sqrt() } else { 1. }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_standard_deviation() {
        let sample = [1., 0., 0.6, 0.8, 0.2, 0.9];
        assert!((spread(&sample, &[1., 0.]) - 0.326_599).abs() < 1e-5);
        assert_eq!(spread(&[], &[1., 0.]), 1.);
        assert_eq!(spread(&[1., 0., 1., 0.], &[1., 0.]), 1.);
    }
}
