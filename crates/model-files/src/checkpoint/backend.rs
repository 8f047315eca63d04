//! Gives the tensors of a checkpoint to candle's `VarBuilder`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use fused_ops::BlockType;

use super::contents::{Contents, Int8Tensor};
use super::stored::StoredTensor;
use super::tables::Located;
use crate::error::Error;

pub(super) struct CheckpointBackend {
    contents: Arc<Contents>,
    /// The scales of weights whose integers were asked for, which are needed next.
    int8_scales: Mutex<BTreeMap<String, Vec<f32>>>,
}

impl CheckpointBackend {
    pub(super) fn new(contents: Arc<Contents>) -> Self {
        Self { contents, int8_scales: Mutex::default() }
    }

    /// A tensor of the weight `name` in int8: `shape` is (rows, columns), (rows) or, for smoothing, (columns).
    fn int8(
        &self,
        which: Int8Tensor,
        located: &Located,
        name: &str,
        shape: &Shape,
        device: &Device,
    ) -> Result<Tensor> {
        let found = located.tensor.shape.as_slice();
        let expected = match which {
            Int8Tensor::Integers => found.get(..2),
            Int8Tensor::Scales => found.get(..1),
            Int8Tensor::Smoothing => found.get(1..2),
        };
        if expected != Some(shape.dims()) {
            return Err(self.misfit(located, name, shape.dims().to_vec()));
        }
        let scales = || self.int8_scales.lock().unwrap_or_else(PoisonError::into_inner);
        match which {
            Int8Tensor::Smoothing => {
                let factors = self.contents.smoothing(located, name)?.unwrap_or_default();
                Tensor::from_vec(factors, shape, device)
            }
            Int8Tensor::Scales => {
                let known = scales().remove(name);
                let scales = match known {
                    Some(scales) => scales,
                    None => self.contents.int8_rows(located, name)?.scales,
                };
                Tensor::from_vec(scales, shape, device)
            }
            Int8Tensor::Integers => {
                let rows = self.contents.int8_rows(located, name)?;
                scales().insert(name.to_owned(), rows.scales);
                let bytes: Vec<u8> = rows.values.into_iter().map(i8::cast_unsigned).collect();
                Tensor::from_vec(bytes, shape, device)
            }
        }
    }

    /// The error about a weight whose shape is not the `expected` one.
    fn misfit(&self, located: &Located, name: &str, expected: Vec<usize>) -> candle_core::Error {
        let name = self.contents.name_in_file(name).map_or_else(|| name.to_owned(), |name| name.into_owned());
        let (file, found) = (self.contents.file(located).name().to_owned(), located.tensor.shape.clone());
        Error::ShapeMismatch { name, file, found, expected }.into()
    }

    /// The quantized bytes of the weight `name`: `shape` is (rows, bytes per row).
    fn blocks(
        &self,
        kind: BlockType,
        located: &Located,
        name: &str,
        shape: &Shape,
        device: &Device,
    ) -> Result<Tensor> {
        let (rows, row_bytes) = shape.dims2()?;
        let file = self.contents.file(located);
        let StoredTensor { shape: found, bytes, .. } = &located.tensor;
        if found.first() != Some(&rows) || rows.checked_mul(row_bytes) != Some(bytes.len()) {
            let expected = vec![rows, row_bytes / kind.block_bytes() * kind.block_values()];
            return Err(self.misfit(located, name, expected));
        }
        let blocks = Tensor::from_slice(file.get(bytes.clone()).unwrap_or_default(), shape, device);
        file.release(bytes);
        blocks
    }
}

impl SimpleBackend for CheckpointBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        if dtype == DType::U8
            && let Some((kind, weight, located)) = self.contents.find_blocks(name)
        {
            return self.blocks(kind, located, weight, &shape, device);
        }
        if let Some((which, weight, located)) = self.contents.find_int8(name) {
            return self.int8(which, located, weight, &shape, device);
        }
        // Compare the shape before reading anything, so that no file can ask for more memory than the model does.
        let located = self.contents.get_shaped(name, shape.dims())?;
        Ok(self.contents.load(located, name, dtype, device)?)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(self.contents.load(self.contents.get(name)?, name, dtype, device)?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.contents.contains(name)
            || self.contents.find_blocks(name).is_some()
            || self.contents.find_int8(name).is_some()
    }
}
