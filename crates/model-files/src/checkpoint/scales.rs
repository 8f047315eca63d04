//! Applies the scales stored beside 8-bit weights.
//!
//! They have several names. ComfyUI's first format has `layer.scale_weight` beside `layer.weight`, and a marker
//! tensor `scaled_fp8`; its later one, compressed-tensors and ModelOpt have `layer.weight_scale`; since DeepSeek-V3,
//! block-wise scales are `layer.weight_scale_inv`, and multiply despite their name; torchao has `layer._weight_qdata`
//! and `layer._weight_scale`. There are also scales of inputs, which are only needed for 8-bit products.
//!
//! ModelOpt's `layer.pre_quant_scale` has a factor for each channel of the input, by which the weight's columns have
//! been divided, as in SmoothQuant and AWQ.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;

use super::convert::{self, Unreadable};
use super::element::{ElementType, element_count};
use super::stored::StoredTensor;
use super::tables::{Scale, Tables};

/// Suffixes of a weight's name in that of its scale.
const SUFFIXES: [&str; 2] = ["_scale", "_scale_inv"];
/// The prefix of a weight's name, after its layer's, in that of its scale.
const PREFIX: &str = "scale_";
/// The name, beside `weight`, of the factors of its input's channels.
pub(super) const SMOOTHING: &str = "pre_quant_scale";
/// Other tensors beside a scaled weight that are not needed to read it.
const BESIDE: [&str; 3] = ["scale_input", "input_scale", "comfy_quant"];
/// Tensors beside a weight that needs more than a scale.
const MORE: [&str; 2] = ["_zero_point", "_scale_2"];
/// The suffix of a weight flattened by torchao.
const FLATTENED: &str = "_qdata";
/// The tensor that marks a file with 8-bit weights.
const MARKER: &str = "scaled_fp8";
/// The side of scaled blocks, if the shapes do not determine it.
const BLOCK: usize = 128;

/// Removes scales from the tensors, and attaches them to their weights.
pub(super) fn attach(tables: &mut Tables) {
    join_flattened(tables);
    let scales: Vec<_> =
        tables.tensors.keys().filter_map(|name| Some((name.clone(), scaled_name(name)?))).collect();
    for (name, weight) in scales {
        let Some(of_weight) = tables.tensors.get(&weight) else { continue };
        let by_suffix = name.strip_prefix(weight.as_str()).is_some();
        let ElementType::Plain(dtype) = of_weight.tensor.dtype else { continue };
        // In ComfyUI `scale_weight` counts for any type. The other names are too common to mean a scale beside plain
        // numbers.
        if dtype.bitsize() > 8 && by_suffix {
            continue;
        }
        let Some(scale) = tables.tensors.remove(&name) else { continue };
        let more = MORE.iter().find(|more| tables.tensors.contains_key(&format!("{weight}{more}")));
        let problem = match (dtype, more) {
            (_, Some(more)) => Some(format!("it has {weight}{more} beside it")),
            (Dtype::U8 | Dtype::BOOL | Dtype::F4, None) => Some(format!("it is {dtype} with a scale")),
            _ => None,
        };
        if let Some(problem) = problem {
            tables.tensors.remove(&weight);
            let problem =
                format!("{problem}, which is a packing that is not read, expected float8 with a scale");
            tables.unreadable.insert(weight, problem);
            continue;
        }
        if let Some(weight) = tables.tensors.get_mut(&weight) {
            weight.scale = Some(Arc::new(Scale { file: scale.file, name, tensor: scale.tensor }));
        }
        if let Some((layer, own)) = weight.rsplit_once('.') {
            let smoothing = format!("{layer}.{SMOOTHING}");
            if own == "weight"
                && let Some(found) = tables.tensors.remove(&smoothing)
                && let Some(weight) = tables.tensors.get_mut(&weight)
            {
                let scale = Scale { file: found.file, name: smoothing, tensor: found.tensor };
                weight.smoothing = Some(Arc::new(scale));
            }
            for beside in BESIDE {
                tables.tensors.remove(&format!("{layer}.{beside}"));
            }
        }
    }
    tables.tensors.retain(|name, _| name.rsplit('.').next() != Some(MARKER));
}

/// Renames the weights that torchao flattened: `layer._weight_qdata` becomes `layer.weight`, and tensors beside it
/// follow, such as `layer._weight_scale` to `layer.weight_scale`.
fn join_flattened(tables: &mut Tables) {
    let weights = tables.tensors.keys().filter_map(|name| name.strip_suffix(FLATTENED));
    let weights: Vec<_> = weights.map(str::to_owned).collect();
    for flattened in weights {
        let Some((layer, weight)) = flattened.rsplit_once("._") else { continue };
        let own = format!("{layer}.{weight}");
        let renamed = [FLATTENED, SUFFIXES[0], MORE[0]].map(|part| {
            let name = if part == FLATTENED { own.clone() } else { format!("{own}{part}") };
            (format!("{flattened}{part}"), name)
        });
        if renamed.iter().any(|(_, name)| tables.tensors.contains_key(name)) {
            continue;
        }
        for (name, renamed) in renamed {
            if let Some(tensor) = tables.tensors.remove(&name) {
                tables.tensors.insert(renamed, tensor);
            }
        }
    }
}

/// The weight that a tensor scales, if it has the name of a scale.
fn scaled_name(name: &str) -> Option<String> {
    if let Some(weight) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)) {
        return Some(weight.to_owned());
    }
    let (layer, own) = name.rsplit_once('.')?;
    Some(format!("{layer}.{}", own.strip_prefix(PREFIX)?))
}

/// Scales, and how they map to a weight's elements.
pub(super) struct Scales {
    values: Vec<f32>,
    /// The shape of the weight.
    shape: Vec<usize>,
    /// Elements along each dimension that share a scale.
    block: Vec<usize>,
    /// The distance between the scales of neighbouring blocks.
    strides: Vec<usize>,
    /// A factor for each column, if there are any.
    smoothing: Option<Vec<f32>>,
}

impl Scales {
    /// Reads scales from their file: one number, one per row, or one per block of a weight of this `shape`. An error
    /// says what is wrong.
    pub(super) fn read(file: &[u8], scale: &Scale, shape: &[usize]) -> Result<Self, String> {
        let Scale { name, tensor, .. } = scale;
        let misfit =
            || format!("its scale {name} has shape {:?}, which does not fit {shape:?}", tensor.shape);
        let count = element_count(&tensor.shape).ok_or_else(misfit)?;
        let mut sides = match tensor.shape.as_slice() {
            _ if count == 1 => vec![1; shape.len()],
            [rows] if shape.first() == Some(rows) => vec![*rows],
            sides => sides.to_vec(),
        };
        sides.resize(shape.len().max(sides.len()), 1);
        if sides.len() != shape.len() {
            return Err(misfit());
        }
        let block_side = |(&side, &scales): (&usize, &usize)| match scales {
            0 => None,
            1 => Some(side.max(1)),
            _ if scales == side => Some(1),
            _ if side.div_ceil(BLOCK) == scales => Some(BLOCK),
            _ => side.is_multiple_of(scales).then(|| side / scales),
        };
        let block: Option<Vec<_>> = shape.iter().zip(&sides).map(block_side).collect();
        let block = block.ok_or_else(misfit)?;
        let mut strides = vec![1; sides.len()];
        for dimension in (1..sides.len()).rev() {
            strides[dimension - 1] = strides[dimension] * sides[dimension];
        }
        let read = convert::read_tensor(file, tensor, DType::F32, &Device::Cpu);
        let values = read.map_err(|error| format!("its scale {name}: {error}"))?;
        let values =
            values.flatten_all().and_then(|values| values.to_vec1()).map_err(|error| error.to_string())?;
        Ok(Self { values, shape: shape.to_vec(), block, strides, smoothing: None })
    }

    /// The same scales, and a factor for each of the weight's columns.
    pub(super) fn with_smoothing(self, smoothing: Option<Vec<f32>>) -> Self {
        Self { smoothing, ..self }
    }

    /// The scales in order.
    pub(super) fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Scales the weight's elements from `first` on.
    pub(super) fn apply(&self, mut first: usize, mut elements: &mut [f32]) {
        if let Some(smoothing) = &self.smoothing {
            let columns = smoothing.iter().cycle().skip(first % smoothing.len().max(1));
            elements.iter_mut().zip(columns).for_each(|(element, factor)| *element *= factor);
        }
        if let [scale] = self.values[..] {
            elements.iter_mut().for_each(|element| *element *= scale);
            return;
        }
        let width = self.shape.last().copied().unwrap_or(1).max(1);
        let block = self.block.last().copied().unwrap_or(1).max(1);
        while !elements.is_empty() {
            let column = first % width;
            let same = (block - column % block).min(width - column).min(elements.len());
            let (run, rest) = elements.split_at_mut(same);
            let scale = self.values.get(self.index(first)).copied().unwrap_or(f32::NAN);
            run.iter_mut().for_each(|element| *element *= scale);
            (first, elements) = (first + same, rest);
        }
    }

    /// The index of an element's scale.
    fn index(&self, mut element: usize) -> usize {
        let mut index = 0;
        for ((side, block), stride) in self.shape.iter().zip(&self.block).zip(&self.strides).rev() {
            index += element % side.max(&1) / block * stride;
            element /= side.max(&1);
        }
        index
    }

    /// Reads the weight, scaled in f32.
    pub(super) fn read_tensor(
        &self,
        file: &[u8],
        weight: &StoredTensor,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, Unreadable> {
        let numbers = convert::read_tensor(file, weight, DType::F32, &Device::Cpu)?;
        let mut numbers = numbers.flatten_all()?.to_vec1::<f32>()?;
        self.apply(0, &mut numbers);
        Ok(Tensor::from_vec(numbers, weight.shape.as_slice(), device)?.to_dtype(dtype)?)
    }
}

/// Reads the factors of a weight's `columns` from their file. An error says what is wrong.
pub(super) fn read_smoothing(
    file: &[u8],
    stored: &Scale,
    columns: Option<usize>,
) -> Result<Vec<f32>, String> {
    let Scale { name, tensor, .. } = stored;
    if tensor.shape.iter().filter(|side| **side != 1).count() > 1 || element_count(&tensor.shape) != columns {
        let found = &tensor.shape;
        let expected = columns.unwrap_or_default();
        return Err(format!(
            "its factors {name} have shape {found:?}, expected one for each of {expected} columns"
        ));
    }
    let values = convert::read_tensor(file, tensor, DType::F32, &Device::Cpu);
    let values = values.map_err(|error| format!("its factors {name}: {error}"))?;
    let values: Vec<f32> =
        values.flatten_all().and_then(|values| values.to_vec1()).map_err(|error| error.to_string())?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("its factors {name}: expected finite numbers, found {value}")),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(shape: &[usize], of_weight: &[usize]) -> Result<Scales, String> {
        let count = shape.iter().product::<usize>();
        let file: Vec<u8> = (1..=count).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let dtype = ElementType::Plain(Dtype::F32);
        let tensor = StoredTensor::plain(dtype, shape.to_vec(), 0..file.len());
        Scales::read(&file, &Scale { file: 0, name: "w_scale".into(), tensor }, of_weight)
    }

    /// The factor of each element of a weight of this shape.
    fn spread(shape: &[usize], of_weight: &[usize]) -> Vec<f32> {
        let mut ones = vec![1.; of_weight.iter().product()];
        scales(shape, of_weight).unwrap().apply(0, &mut ones);
        ones
    }

    #[test]
    fn a_scale_is_of_all_of_a_row_or_of_a_block() {
        assert_eq!(spread(&[], &[2, 2]), [1.; 4]);
        assert_eq!(spread(&[1], &[2, 2]), [1.; 4]);
        assert_eq!(spread(&[1, 1], &[3]), [1.; 3]);
        assert_eq!(spread(&[2], &[2, 3]), [1., 1., 1., 2., 2., 2.]);
        assert_eq!(spread(&[2, 1], &[2, 3]), [1., 1., 1., 2., 2., 2.]);
        assert_eq!(spread(&[2, 1, 1, 1], &[2, 1, 1, 2]), [1., 1., 2., 2.]);
        assert_eq!(spread(&[1, 2], &[2, 4]), [1., 1., 2., 2., 1., 1., 2., 2.]);
        assert_eq!(spread(&[2], &[2, 0]), [0.; 0]);
        let blocks = spread(&[2, 2], &[130, 200]);
        let at = |row: usize, column: usize| blocks[row * 200 + column];
        assert_eq!([at(0, 0), at(127, 127), at(127, 128), at(128, 127), at(129, 199)], [1., 1., 2., 3., 4.]);
    }

    #[test]
    fn a_weight_can_be_scaled_in_parts() {
        let scales = scales(&[2, 2], &[4, 6]).unwrap();
        let mut whole = vec![1.; 24];
        scales.apply(0, &mut whole);
        for size in 1..24 {
            let mut parts = vec![1.; 24];
            for (part, elements) in parts.chunks_mut(size).enumerate() {
                scales.apply(part * size, elements);
            }
            assert_eq!(parts, whole, "{size}");
        }
    }

    #[test]
    fn scales_that_do_not_fit_are_errors() {
        for (shape, of_weight) in
            [(&[3][..], &[2, 2][..]), (&[2, 2, 2], &[2, 2]), (&[0], &[2, 2]), (&[3, 1], &[4, 4])]
        {
            assert!(scales(shape, of_weight).err().unwrap().contains("w_scale"), "{shape:?}");
        }
    }

    #[test]
    fn scales_are_known_by_their_names() {
        for name in ["a.b.scale_weight", "a.b.weight_scale", "a.b.weight_scale_inv"] {
            assert_eq!(scaled_name(name).as_deref(), Some("a.b.weight"));
        }
        for name in ["a.weight", "logit_scale", "scale_weight", "a.scale"] {
            assert_ne!(scaled_name(name).as_deref(), Some("a.weight"), "{name}");
        }
    }
}
