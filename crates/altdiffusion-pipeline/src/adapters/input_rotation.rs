//! Turns the inputs of layers, in blocks: OFT (Qiu et al. 2023, <https://arxiv.org/abs/2306.07280>) and BOFT (Liu et al.
//! 2023, <https://arxiv.org/abs/2311.06243>), as PEFT computes them.

use candle_core::{DType, Device, Tensor};

use super::change::{Side, along};
use super::peft_config::OftConfig;
use super::rotation::{LARGEST_BLOCK, invert};
use crate::Result;

/// The most butterfly factors accepted: each doubles the inputs that are mixed.
const MOST_FACTORS: usize = 16;

/// Rotations of blocks of a layer's inputs, one after another.
#[derive(Debug, Clone)]
pub(super) struct InputRotation {
    factors: Vec<Factor>,
    /// The number of blocks in each factor, and their size.
    blocks: usize,
    size: usize,
    /// Whether there is one block, which turns every group of inputs.
    is_shared: bool,
    /// Whether it is for linear layers and 1 × 1 convolutions alone.
    is_pointwise: bool,
    /// Factors of the outputs.
    rescale: Option<Tensor>,
}

/// The rotations of all blocks.
#[derive(Debug, Clone)]
struct Factor {
    /// What each adds to its inputs, (R − I)ᵀ: (blocks, size, size).
    added: Tensor,
    /// Which inputs they turn, unless these are as they come.
    order: Option<Order>,
}

/// An order of inputs: the input at each place, and the place of each input.
#[derive(Debug, Clone)]
struct Order {
    inputs: Tensor,
    places: Tensor,
}

impl InputRotation {
    /// Computes the rotations of PEFT's OFT from the upper triangles of antisymmetric matrices Q, (blocks, numbers).
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn oft(triangles: &Tensor, config: OftConfig) -> std::result::Result<Self, String> {
        let size_of = |numbers: usize| (2..=LARGEST_BLOCK).find(|size| size * (size - 1) / 2 == numbers);
        let found = match *triangles.dims() {
            [blocks, numbers] if blocks > 0 && (blocks == 1 || !config.shares_block) => {
                size_of(numbers).map(|size| (blocks, numbers, size))
            }
            _ => None,
        };
        let Some((blocks, numbers, size)) = found else {
            return Err(format!(
                "expected the triangles of OFT's blocks, with a size of at most {LARGEST_BLOCK}, found shape {:?}",
                triangles.dims()
            ));
        };
        // Qᵀ, since the weight is multiplied from the right by Rᵀ.
        let mut transposed = vec![0f64; blocks * size * size];
        let values = numbers_of(triangles)?;
        for (block, triangle) in transposed.chunks_exact_mut(size * size).zip(values.chunks_exact(numbers)) {
            let places = (0..size).flat_map(|row| (row + 1..size).map(move |column| (row, column)));
            for ((row, column), value) in places.zip(triangle) {
                block[row * size + column] = -f64::from(*value);
                block[column * size + row] = f64::from(*value);
            }
        }
        if let Some(limit) = config.limit {
            let limit = limit / (blocks as f64).sqrt();
            for block in transposed.chunks_exact_mut(size * size) {
                let norm = block.iter().map(|value| value * value).sum::<f64>().sqrt();
                if norm > limit {
                    block.iter_mut().for_each(|value| *value *= limit / norm);
                }
            }
        }
        if config.terms.is_none() {
            turn(&mut transposed, size);
        }
        let added = Tensor::from_vec(transposed, (blocks, size, size), &Device::Cpu)
            .and_then(|transposed| match config.terms {
                Some(terms) => series(&transposed, terms),
                None => Ok(transposed),
            })
            .and_then(|added| added.to_dtype(DType::F32))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            factors: vec![Factor { added, order: None }],
            blocks,
            size,
            is_shared: config.shares_block,
            is_pointwise: true,
            rescale: None,
        })
    }

    /// Computes the rotations of PEFT's BOFT from `blocks` B, (factors, blocks, size, size), where Q is (B − Bᵀ) / 2, and
    /// `rescale`, one factor for each output.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn boft(blocks: &Tensor, rescale: Tensor) -> std::result::Result<Self, String> {
        let (count, size) = match *blocks.dims() {
            [factors, count, size, other]
                if (1..=MOST_FACTORS).contains(&factors)
                    && count > 0
                    && size == other
                    && (1..=LARGEST_BLOCK).contains(&size)
                    // Halves of blocks are mixed, in groups of blocks.
                    && (factors == 1 || size.is_multiple_of(2) && count.is_multiple_of(1 << (factors - 1))) =>
            {
                (count, size)
            }
            ref found => {
                return Err(format!(
                    "expected BOFT's blocks (factors, count, size, size), with at most {MOST_FACTORS} factors and a size of \
                     at most {LARGEST_BLOCK}, found {found:?}"
                ));
            }
        };
        let area = size * size;
        let values = numbers_of(blocks)?;
        let mut factors = Vec::new();
        for (number, values) in values.chunks_exact(count * area).enumerate() {
            let mut transposed = Vec::with_capacity(values.len());
            for block in values.chunks_exact(area) {
                for (place, value) in block.iter().enumerate() {
                    let mirrored = block[place % size * size + place / size];
                    transposed.push((f64::from(mirrored) - f64::from(*value)) / 2.0);
                }
            }
            turn(&mut transposed, size);
            let added = Tensor::from_vec(transposed, (count, size, size), &Device::Cpu)
                .and_then(|added| added.to_dtype(DType::F32))
                .map_err(|error| error.to_string())?;
            // The first takes inputs as they come.
            let order = (number > 0).then(|| Order::of_butterfly(number, count, size)).transpose()?;
            factors.push(Factor { added, order });
        }
        Ok(Self {
            factors,
            blocks: count,
            size,
            is_shared: false,
            is_pointwise: false,
            rescale: Some(rescale),
        })
    }

    /// Says why it does not fit a weight of this shape.
    pub(super) fn misfit(&self, shape: &[usize]) -> Option<String> {
        let inputs: usize = shape.iter().skip(1).product();
        let turned = self.blocks * self.size;
        let fits = match self.is_shared {
            true => inputs.is_multiple_of(self.size),
            false => inputs == turned,
        };
        if shape.len() < 2 || !fits {
            return Some(format!(
                "it has {turned} turned inputs, where this model has a weight of {shape:?}"
            ));
        }
        if self.is_pointwise && shape.iter().skip(2).any(|side| *side != 1) {
            return Some(format!(
                "it is an OFT of PEFT for a convolution of {shape:?}, which PEFT computes otherwise than it merges it"
            ));
        }
        let factors = self.rescale.as_ref().map(Tensor::elem_count)?;
        (Some(&factors) != shape.first()).then(|| {
            format!("it has {factors} factors of outputs, where this model has a weight of {shape:?}")
        })
    }

    /// Computes what to add to the weight `old`, which fits.
    pub(super) fn delta(&self, old: &Tensor) -> Result<Tensor> {
        let device = old.device();
        let rows = old.flatten_from(1)?;
        let (outputs, inputs) = rows.dims2()?;
        let mut turned = rows.clone();
        for Factor { added, order } in &self.factors {
            let added = added.to_device(device)?;
            let taken = match order {
                Some(order) => turned.contiguous()?.index_select(&order.inputs.to_device(device)?, 1)?,
                None => turned.clone(),
            };
            let change = if self.is_shared {
                taken.reshape(((), self.size))?.matmul(&added.squeeze(0)?)?.reshape((outputs, inputs))?
            } else {
                // (blocks, outputs, size)
                let blocks = taken.reshape((outputs, self.blocks, self.size))?.transpose(0, 1)?;
                let change = blocks.contiguous()?.matmul(&added)?.transpose(0, 1)?;
                change.contiguous()?.reshape((outputs, inputs))?
            };
            let change = match order {
                Some(order) => change.index_select(&order.places.to_device(device)?, 1)?,
                None => change,
            };
            turned = (turned + change)?;
        }
        if let Some(rescale) = &self.rescale {
            let rescale = along(&rescale.to_device(device)?, Side::Output, 2)?;
            turned = turned.broadcast_mul(&rescale)?;
        }
        Ok((turned - rows)?.reshape(old.shape())?)
    }
}

impl Order {
    /// The order of the butterfly factor `number`: in every group of 2^`number` blocks, the inputs of its first half
    /// go to the even halves of blocks, those of its second half to the odd ones.
    fn of_butterfly(number: usize, count: usize, size: usize) -> std::result::Result<Self, String> {
        let (half, group) = (size / 2, size << number);
        let halves = group / half;
        let sorted = (0..halves).step_by(2).chain((1..halves).step_by(2));
        let of_group: Vec<usize> = sorted.flat_map(|place| place * half..(place + 1) * half).collect();
        let mut places = Vec::with_capacity(count * size);
        for start in (0..count * size).step_by(group) {
            places.extend(of_group.iter().map(|place| start + place));
        }
        let mut inputs = vec![0; places.len()];
        for (input, place) in places.iter().enumerate() {
            inputs[*place] = input;
        }
        let tensor = |indices: Vec<usize>| -> std::result::Result<Tensor, String> {
            let indices: Vec<u32> = indices
                .into_iter()
                .map(|index| u32::try_from(index).map_err(|error| error.to_string()))
                .collect::<std::result::Result<_, _>>()?;
            let count = indices.len();
            Tensor::from_vec(indices, count, &Device::Cpu).map_err(|error| error.to_string())
        };
        Ok(Self { inputs: tensor(inputs)?, places: tensor(places)? })
    }
}

fn numbers_of(tensor: &Tensor) -> std::result::Result<Vec<f32>, String> {
    let values = tensor.flatten_all().and_then(|values| values.to_vec1::<f32>());
    values.map_err(|error| error.to_string())
}

/// Turns every Qᵀ into (R − I)ᵀ, where R is (I − Q)(I + Q)⁻¹ (the Cayley transform): 2 (I + Qᵀ)⁻¹ − 2 I.
fn turn(transposed: &mut [f64], size: usize) {
    for block in transposed.chunks_exact_mut(size * size) {
        block.iter_mut().step_by(size + 1).for_each(|value| *value += 1.0);
        invert(block, size);
        block.iter_mut().for_each(|value| *value *= 2.0);
        block.iter_mut().step_by(size + 1).for_each(|value| *value -= 2.0);
    }
}

/// Computes (R − I)ᵀ from Qᵀ, where R is the Cayley-Neumann series of PEFT since 0.18, with Q's sign opposite to that of
/// the exact transform: I + 2 Q + 2 Q² + … and the last power once.
fn series(transposed: &Tensor, terms: usize) -> candle_core::Result<Tensor> {
    if terms < 2 {
        return transposed.zeros_like();
    }
    let mut sum = (transposed * 2.0)?;
    if terms == 2 {
        return Ok(sum);
    }
    let mut power = transposed.matmul(transposed)?;
    sum = (sum + (&power * 2.0)?)?;
    for _ in 3..terms - 1 {
        power = power.matmul(transposed)?;
        sum = (sum + (&power * 2.0)?)?;
    }
    sum + power.matmul(transposed)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::{TestResult, largest_difference, normal};

    const EXACT: OftConfig = OftConfig { terms: None, limit: None, shares_block: false };

    fn tensor(values: &[f32], shape: &[usize]) -> candle_core::Result<Tensor> {
        Tensor::from_slice(values, shape, &Device::Cpu)
    }

    #[track_caller]
    fn check(rotation: &InputRotation, row: &[f32], expected: &[f32]) -> TestResult {
        let old = tensor(row, &[1, row.len()])?;
        assert_eq!(rotation.misfit(old.dims()), None);
        let turned = (&old + rotation.delta(&old)?)?;
        let error = largest_difference(&turned, &tensor(expected, &[1, expected.len()])?);
        assert!(error < 1e-6, "{turned}");
        Ok(())
    }

    /// Of Q with 0.5 above the diagonal, the exact transform has the cosine 0.6 and the sine 0.8.
    #[test]
    fn small_rotations_are_those_computed_by_hand() -> TestResult {
        let half = tensor(&[0.5, 0.0], &[2, 1])?;
        check(&InputRotation::oft(&half, EXACT)?, &[1.0, 0.0, 1.0, 2.0], &[0.6, 0.8, 1.0, 2.0])?;
        // I + 2 Q + 2 Q² + 2 Q³ + Q⁴, and fewer terms.
        for (terms, expected) in
            [(1, [1.0, 0.0]), (2, [1.0, -1.0]), (3, [0.5, -0.875]), (4, [0.5, -0.875]), (5, [0.5625, -0.75])]
        {
            let config = OftConfig { terms: Some(terms), ..EXACT };
            check(&InputRotation::oft(&tensor(&[0.5], &[1, 1])?, config)?, &[1.0, 0.0], &expected)?;
        }
        // One block for all inputs.
        let shared = OftConfig { shares_block: true, ..EXACT };
        let shared = InputRotation::oft(&tensor(&[0.5], &[1, 1])?, shared)?;
        check(&shared, &[1.0, 0.0, 0.0, 1.0], &[0.6, 0.8, -0.8, 0.6])?;
        // Shortened from a norm of 0.5 √2 to a quarter of that.
        let limited = OftConfig { limit: Some(0.5 * 0.5f64.sqrt()), ..EXACT };
        let quarter = 0.125f32;
        let cosine = (1.0 - quarter * quarter) / (1.0 + quarter * quarter);
        let sine = 2.0 * quarter / (1.0 + quarter * quarter);
        let four = tensor(&[0.5, 0.0, 0.0, 0.0], &[4, 1])?;
        let row = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0];
        check(&InputRotation::oft(&four, limited)?, &row, &[cosine, sine, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0])?;

        let blocks = tensor(&[0.0, 1.0, 0.0, 0.0], &[1, 1, 2, 2])?;
        check(&InputRotation::boft(&blocks, tensor(&[2.0], &[1, 1])?)?, &[1.0, 0.0], &[1.2, 1.6])?;
        // The second butterfly factor mixes the halves of two blocks: inputs 0 and 2, 1 and 3.
        let mut two = [0f32; 16];
        two[9] = 1.0;
        let two = InputRotation::boft(&tensor(&two, &[2, 2, 2, 2])?, tensor(&[1.0], &[1, 1])?)?;
        check(&two, &[1.0, 0.0, 0.0, 5.0], &[0.6, 0.0, 0.8, 5.0])?;
        // The third mixes inputs 0 and 4: with the order turned round, it would be 0 and 2.
        let mut three = [0f32; 48];
        three[33] = 1.0;
        let three = InputRotation::boft(&tensor(&three, &[3, 4, 2, 2])?, tensor(&[1.0], &[1, 1])?)?;
        check(&three, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0], &[0.6, 0.0, 0.0, 0.0, 0.8, 0.0, 0.0, 5.0])
    }

    #[test]
    fn no_rotation_changes_nothing() -> TestResult {
        let old = normal(1, &[3, 8, 1, 1]);
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let series = OftConfig { terms: Some(5), ..EXACT };
        let ones = Tensor::ones((1, 3), DType::F32, &Device::Cpu)?;
        for rotation in [
            InputRotation::oft(&zeros(&[2, 6])?, EXACT)?,
            InputRotation::oft(&zeros(&[2, 6])?, series)?,
            InputRotation::boft(&zeros(&[2, 4, 2, 2])?, ones)?,
        ] {
            assert_eq!(largest_difference(&(&old + rotation.delta(&old)?)?, &old), 0.0);
        }
        Ok(())
    }

    /// However large its numbers, a rotation changes no lengths and no angles.
    #[test]
    fn lengths_are_kept() -> TestResult {
        let old = normal(1, &[5, 16]);
        let ones = Tensor::ones((5, 1), DType::F32, &Device::Cpu)?;
        for rotation in [
            InputRotation::oft(&normal(2, &[4, 6]), EXACT)?,
            InputRotation::boft(&normal(3, &[3, 4, 4, 4]), ones)?,
        ] {
            let turned = (&old + rotation.delta(&old)?)?;
            let products = |rows: &Tensor| rows.matmul(&rows.t()?.contiguous()?);
            assert!(largest_difference(&products(&turned)?, &products(&old)?) < 1e-4);
        }
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_said() -> TestResult {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let shared = OftConfig { shares_block: true, ..EXACT };
        for (shape, config) in [(&[2usize, 4][..], EXACT), (&[0, 1], EXACT), (&[3], EXACT), (&[2, 1], shared)]
        {
            let error = InputRotation::oft(&zeros(shape)?, config).err().unwrap_or_default();
            assert!(error.starts_with("expected the triangles of OFT's blocks"), "{shape:?}: {error}");
        }
        for shape in [&[1usize, 2, 3, 4][..], &[4, 4], &[2, 3, 2, 2], &[2, 2, 3, 3], &[0, 2, 2, 2]] {
            let error = InputRotation::boft(&zeros(shape)?, zeros(&[1])?).err().unwrap_or_default();
            assert!(error.starts_with("expected BOFT's blocks"), "{shape:?}: {error}");
        }
        let oft = InputRotation::oft(&zeros(&[4, 1])?, EXACT)?;
        for (shape, problem) in [
            (&[8usize][..], "8 turned inputs"),
            (&[8, 4], "8 turned inputs"),
            (&[3, 2, 2, 2], "PEFT computes"),
        ] {
            assert!(oft.misfit(shape).is_some_and(|misfit| misfit.contains(problem)), "{shape:?}");
        }
        let boft = InputRotation::boft(&zeros(&[1, 4, 2, 2])?, zeros(&[3, 1])?)?;
        assert_eq!(boft.misfit(&[3, 2, 2, 2]), None);
        assert!(boft.misfit(&[4, 8]).is_some_and(|misfit| misfit.contains("3 factors of outputs")));
        Ok(())
    }
}
