//! Stores vectors of length 1 as bytes.

use std::fmt;
use std::str::FromStr;

use fused_ops::RowNumbers;
use half::f16;

use crate::vector::unit_vector;

/// The numbers that vectors are stored as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// Half the size; cosines are off by about 0.0001 at most.
    #[default]
    F16,
    /// Single precision.
    F32,
}

impl Precision {
    /// How kernels call them.
    pub(super) fn numbers(self) -> RowNumbers {
        match self {
            Self::F16 => RowNumbers::F16,
            Self::F32 => RowNumbers::F32,
        }
    }

    /// The bytes of a vector in the direction of this one, or `None` if it has none: it is zero or not finite.
    pub(super) fn bytes_of(self, vector: &[f32]) -> Option<Vec<u8>> {
        let unit = unit_vector(vector);
        let is_finite = unit.iter().all(|number| number.is_finite());
        is_finite.then(|| match self {
            Self::F16 => unit.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Self::F32 => unit.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
    }

    /// The numbers of a stored vector.
    pub(super) fn numbers_of(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => bytes.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).to_f32()).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            _ => Err("expected f16 or f32".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_as_unit_vectors() {
        for precision in [Precision::F16, Precision::F32] {
            let bytes = precision.bytes_of(&[3., 0., -4.]).unwrap_or_default();
            assert_eq!(bytes.len(), 3 * precision.numbers().bytes());
            for (found, expected) in precision.numbers_of(&bytes).iter().zip([0.6, 0., -0.8]) {
                assert!((found - expected).abs() < 5e-4);
            }
            assert_eq!(precision.bytes_of(&[0., 0.]), None);
            assert_eq!(precision.bytes_of(&[f32::NAN, 1.]), None);
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
    }
}
