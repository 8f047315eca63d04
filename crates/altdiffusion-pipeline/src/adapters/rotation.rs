//! Turns the outputs of layers, in blocks: OFT (Qiu et al. 2023, <https://arxiv.org/abs/2306.07280>), as kohya's scripts
//! and LyCORIS (diag-OFT) compute it.

use candle_core::{DType, Device, Tensor};

use super::change::{Side, along};
use crate::Result;

/// The largest block accepted, since the work grows with the cube; the widest layers of the published models have 10 240
/// outputs, in several blocks.
pub(super) const LARGEST_BLOCK: usize = 1 << 12;

/// A rotation of every block of outputs.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    /// What it adds to the outputs, Rᵀ − I for each block: (blocks, size, size).
    added: Tensor,
    /// Factors of the outputs once they are turned.
    rescale: Option<Tensor>,
}

impl Rotation {
    /// Computes the rotations R = (I + Q)(I − Q)⁻¹ (the Cayley transform) of `blocks` B, (blocks, size, size), where Q is
    /// B − Bᵀ. Above 0, `limit` times the number of outputs is the largest norm of all Q together; longer ones are
    /// shortened to it.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn new(
        blocks: &Tensor,
        limit: f64,
        rescale: Option<Tensor>,
    ) -> std::result::Result<Self, String> {
        let (count, size) = match *blocks.dims() {
            [count, size, other] if count > 0 && size == other && (1..=LARGEST_BLOCK).contains(&size) => {
                (count, size)
            }
            [_, _, _, _] => {
                return Err(
                    "found BOFT, whose blocks are mixed: expected OFT, with blocks of three dimensions"
                        .to_owned(),
                );
            }
            ref found => {
                return Err(format!(
                    "expected OFT's blocks (count, size, size), with a size of at most {LARGEST_BLOCK}, found {found:?}"
                ));
            }
        };
        let values = blocks.flatten_all().and_then(|values| values.to_vec1::<f32>());
        let values = values.map_err(|error| error.to_string())?;
        let area = size * size;
        let mut turned = Vec::with_capacity(values.len());
        for block in values.chunks_exact(area) {
            for (place, value) in block.iter().enumerate() {
                let mirrored = block[place % size * size + place / size];
                turned.push(f64::from(*value) - f64::from(mirrored));
            }
        }
        let limit = limit * (count * size) as f64;
        let norm = turned.iter().map(|value| value * value).sum::<f64>().sqrt();
        if limit > 0.0 && norm > limit {
            turned.iter_mut().for_each(|value| *value *= limit / norm);
        }
        for block in turned.chunks_exact_mut(area) {
            // Both factors of R commute, so that Rᵀ − I = (I − Q)(I + Q)⁻¹ − I = 2 (I + Q)⁻¹ − 2 I.
            block.iter_mut().step_by(size + 1).for_each(|value| *value += 1.0);
            invert(block, size);
            block.iter_mut().for_each(|value| *value *= 2.0);
            block.iter_mut().step_by(size + 1).for_each(|value| *value -= 2.0);
        }
        let added = Tensor::from_vec(turned, (count, size, size), &Device::Cpu);
        let added = added.and_then(|added| added.to_dtype(DType::F32)).map_err(|error| error.to_string())?;
        Ok(Self { added, rescale })
    }

    /// Says why it does not fit a weight of this shape.
    pub(super) fn misfit(&self, shape: &[usize]) -> Option<String> {
        let outputs: usize = self.added.dims().iter().take(2).product();
        let differs = |what: &str, found: usize| {
            format!("it has {found} {what}, where this model has a weight of {shape:?}")
        };
        if shape.len() < 2 || shape.first() != Some(&outputs) {
            return Some(differs("turned outputs", outputs));
        }
        let factors = self.rescale.as_ref().map(Tensor::elem_count)?;
        (factors != outputs).then(|| differs("factors of turned outputs", factors))
    }

    /// Computes what to add to the weight `old`, which fits.
    pub(super) fn delta(&self, old: &Tensor) -> Result<Tensor> {
        let device = old.device();
        let (count, size, _) = self.added.dims3()?;
        let rows = old.reshape((count, size, ()))?.contiguous()?;
        let added = self.added.to_device(device)?.matmul(&rows)?.reshape(old.shape())?;
        let Some(rescale) = &self.rescale else { return Ok(added) };
        let rescale = along(&rescale.to_device(device)?, Side::Output, old.rank())?;
        Ok((added.broadcast_mul(&rescale)? + old.broadcast_mul(&(rescale - 1.0)?)?)?)
    }
}

/// Inverts I + Q in place, with Q antisymmetric. Its pivots are at least 1, since elimination only adds to what is
/// symmetric in it; so none is searched for.
pub(super) fn invert(matrix: &mut [f64], size: usize) {
    for place in 0..size {
        let start = place * size;
        let pivot = std::mem::replace(&mut matrix[start + place], 1.0);
        let row: Vec<f64> = matrix[start..start + size].iter().map(|value| value / pivot).collect();
        matrix[start..start + size].copy_from_slice(&row);
        for (_, other) in matrix.chunks_exact_mut(size).enumerate().filter(|(number, _)| *number != place) {
            let factor = std::mem::replace(&mut other[place], 0.0);
            for (value, of_row) in other.iter_mut().zip(&row) {
                *value -= factor * of_row;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::{TestResult, largest_difference, normal};

    /// However large its numbers, a rotation changes no length.
    #[test]
    fn lengths_are_kept() -> TestResult {
        for (size, scale) in [(1, 1.0), (7, 0.3), (64, 1.0), (64, 100.0)] {
            let rotation = Rotation::new(&(normal(1, &[3, size, size]) * scale)?, 0.0, None)?;
            let weight = normal(2, &[3 * size, 5]);
            let turned = (&weight + rotation.delta(&weight)?)?;
            let products = |weight: &Tensor| weight.t()?.contiguous()?.matmul(weight);
            let error = largest_difference(&products(&turned)?, &products(&weight)?);
            assert!(error < 1e-3, "{size}, {scale}: {error:.1e}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_rotation_is_refused() {
        for (shape, problem) in [
            (&[2usize, 3, 4][..], "expected OFT's blocks (count, size, size)"),
            (&[0, 3, 3], "expected OFT's blocks"),
            (&[4, 4], "expected OFT's blocks"),
            (&[2, 2, 4, 4], "found BOFT"),
        ] {
            let blocks = Tensor::zeros(shape, DType::F32, &Device::Cpu);
            let found = blocks.map(|blocks| Rotation::new(&blocks, 0.0, None).err().unwrap_or_default());
            assert!(found.is_ok_and(|found| found.starts_with(problem)), "{shape:?}");
        }
    }
}
