//! Computes what an adapter adds to one weight or bias of a model.

use candle_core::{DType, Tensor};

use super::input_rotation::InputRotation;
use super::product::Product;
use super::rotation::Rotation;
use crate::Result;

/// A change to one weight or bias.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Adds a product of smaller matrices.
    Product(ScaledProduct),
    /// (IA)³ (Liu et al. 2022, <https://arxiv.org/abs/2205.05638>): multiplies each input or output by a factor.
    Factors {
        /// One per input or output.
        factors: Tensor,
        of: Side,
    },
    /// OFT: turns the outputs.
    Rotation(Rotation),
    /// PEFT's OFT or BOFT: turns the inputs.
    InputRotation(InputRotation),
    /// Adds numbers of the same shape, times a scale.
    Difference { values: Tensor, scale: f64 },
    /// Replaces the weight by one of the same shape.
    Replacement(Tensor),
}

/// A product with its scale (the file's alpha divided by the rank) and DoRA's magnitudes.
#[derive(Debug, Clone)]
pub(super) struct ScaledProduct {
    pub product: Product,
    pub scale: f64,
    pub magnitude: Option<Magnitude>,
}

/// A side of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Output,
    Input,
}

/// DoRA (Liu et al. 2024, <https://arxiv.org/abs/2402.09353>): the norms to give the rows or columns of the changed
/// weight.
#[derive(Debug, Clone)]
pub(super) struct Magnitude {
    pub values: Tensor,
    pub of: Side,
    pub strength: StrengthOf,
}

/// What a strength other than 1 scales. The programs that write DoRA differ here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StrengthOf {
    /// The product, before the norms are taken, as in PEFT.
    Product,
    /// The whole change, as in stable-diffusion-webui and ComfyUI.
    Change,
}

impl Change {
    /// Computes what to add to `old` (f32, same shape) at a strength, where 1 is the trained one.
    ///
    /// # Errors
    /// What was expected and what was found, if the change does not fit `old`.
    pub(super) fn delta(&self, old: &Tensor, strength: f64) -> Result<std::result::Result<Tensor, String>> {
        if let Some(problem) = self.misfit(old.dims()) {
            return Ok(Err(problem));
        }
        let device = old.device();
        Ok(Ok(match self {
            Self::Product(product) => product.delta(old, strength)?,
            Self::Factors { factors, of } => {
                let factors = ((factors.to_device(device)? - 1.0)? * strength)?;
                old.broadcast_mul(&along(&factors, *of, old.rank())?)?
            }
            Self::Rotation(rotation) => (rotation.delta(old)? * strength)?,
            Self::InputRotation(rotation) => (rotation.delta(old)? * strength)?,
            Self::Difference { values, scale } => {
                (values.to_device(device)?.reshape(old.shape())? * (scale * strength))?
            }
            Self::Replacement(values) => {
                ((values.to_device(device)?.reshape(old.shape())? - old)? * strength)?
            }
        }))
    }

    /// Says why the change does not fit a tensor of this shape. Call it before computing anything: sizes in a file
    /// cannot be trusted.
    fn misfit(&self, shape: &[usize]) -> Option<String> {
        let out = shape.first().copied().unwrap_or(1);
        let inputs = shape.get(1).copied();
        let differs = |found: String| {
            format!("it changes a weight of {found} values, where this model has one of {shape:?}")
        };
        match self {
            Self::Product(ScaledProduct { product, magnitude, .. }) => {
                let (rows, columns) = product.shape();
                let expected = shape.get(1..).map_or(1, |rest| rest.iter().product::<usize>());
                if (rows, columns) != (out, expected) || !product.fits(shape) {
                    return Some(differs(format!("{rows} × {columns}")));
                }
                let magnitude = magnitude.as_ref()?;
                let (count, of) = match magnitude.of {
                    Side::Output => (Some(out), "outputs"),
                    Side::Input => (inputs, "inputs"),
                };
                let found = magnitude.values.elem_count();
                (Some(found) != count).then(|| {
                    format!("it has {found} magnitudes of {of}, where this model has a weight of {shape:?}")
                })
            }
            Self::Factors { factors, of } => {
                let expected = match of {
                    Side::Output => Some(out),
                    Side::Input => inputs,
                };
                let found = factors.elem_count();
                (Some(found) != expected)
                    .then(|| format!("it has {found} factors, where this model has a weight of {shape:?}"))
            }
            Self::Rotation(rotation) => rotation.misfit(shape),
            Self::InputRotation(rotation) => rotation.misfit(shape),
            Self::Difference { values, .. } | Self::Replacement(values) => {
                // A 1 × 1 convolution may be stored as a matrix.
                let fits = values.elem_count() == shape.iter().product::<usize>()
                    && values.dims().first().copied().unwrap_or(1) == out;
                (!fits).then(|| differs(format!("{:?}", values.dims())))
            }
        }
    }
}

impl ScaledProduct {
    fn delta(&self, old: &Tensor, strength: f64) -> Result<Tensor> {
        let product = self.product.of(old)?.reshape(old.shape())?;
        let Some(Magnitude { values, of, strength: of_strength }) = &self.magnitude else {
            return Ok((product * (self.scale * strength))?);
        };
        let (within, whole) = match of_strength {
            StrengthOf::Product => (strength, 1.0),
            StrengthOf::Change => (1.0, strength),
        };
        let changed = (old + (product * (self.scale * within))?)?;
        let rows = match of {
            Side::Output => changed.flatten_from(1)?,
            Side::Input => changed.transpose(0, 1)?.flatten_from(1)?,
        };
        let norms = (rows.sqr()?.sum(1)?.sqrt()? + f64::from(f32::EPSILON))?;
        let factors = values.to_device(old.device())?.flatten_all()?.to_dtype(DType::F32)?.div(&norms)?;
        let decomposed = changed.broadcast_mul(&along(&factors, *of, old.rank())?)?;
        Ok(((decomposed - old)? * whole)?)
    }
}

/// Reshapes factors, one per input or output, so that they broadcast over a weight.
pub(super) fn along(factors: &Tensor, of: Side, rank: usize) -> Result<Tensor> {
    let mut shape = vec![1; rank];
    let side = match of {
        Side::Output => 0,
        Side::Input => 1,
    };
    if let Some(side) = shape.get_mut(side) {
        *side = factors.elem_count();
    }
    Ok(factors.reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::product::LowRank;
    use super::*;
    use test_support::{TestResult, largest_difference};

    /// kohya's DoRA scales the whole change by the strength; PEFT scales the product, and then sets the norms.
    #[test]
    fn dora_at_half_strength_is_as_in_the_program_that_wrote_it() -> TestResult {
        let matrix = |values: &[f32], shape| Tensor::from_slice(values, shape, &Device::Cpu);
        let old = matrix(&[1.0, -2.0, 0.5, 3.0, 1.5, -1.0], (2, 3))?;
        let change = |strength, scale| -> std::result::Result<Change, Box<dyn std::error::Error>> {
            let low_rank =
                LowRank::new(matrix(&[0.5, 1.0, -1.0], (1, 3))?, None, matrix(&[2.0, -1.0], (2, 1))?)?;
            let magnitude =
                Magnitude { values: Tensor::new(&[2f32, 5.0], &Device::Cpu)?, of: Side::Output, strength };
            let product = Product::LowRank(low_rank);
            Ok(Change::Product(ScaledProduct { product, scale, magnitude: Some(magnitude) }))
        };
        let whole = change(StrengthOf::Change, 1.0)?.delta(&old, 1.0)??;
        let half = change(StrengthOf::Change, 1.0)?.delta(&old, 0.5)??;
        assert!(largest_difference(&half, &(whole * 0.5)?) < 1e-6);
        let half = change(StrengthOf::Product, 1.0)?.delta(&old, 0.5)??;
        let of_half = change(StrengthOf::Product, 0.5)?.delta(&old, 1.0)??;
        assert!(largest_difference(&half, &of_half) < 1e-6);
        let norms = (old + half)?.sqr()?.sum(1)?.sqrt()?;
        assert!(largest_difference(&norms, &Tensor::new(&[2f32, 5.0], &Device::Cpu)?) < 1e-5);
        Ok(())
    }
}
