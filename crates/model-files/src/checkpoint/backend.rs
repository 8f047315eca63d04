//! Gives the tensors of a checkpoint to candle's `VarBuilder`.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use fused_ops::BlockType;

use super::contents::Contents;
use super::stored::StoredTensor;
use super::tables::Located;
use crate::error::Error;

pub(super) struct CheckpointBackend(pub(super) Arc<Contents>);

impl CheckpointBackend {
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
        let file = self.0.file(located);
        let StoredTensor { shape: found, bytes, .. } = &located.tensor;
        if found.first() != Some(&rows) || rows.checked_mul(row_bytes) != Some(bytes.len()) {
            let expected = vec![rows, row_bytes / kind.block_bytes() * kind.block_values()];
            let name = self.0.name_in_file(name).map_or_else(|| name.to_owned(), |name| name.into_owned());
            let (file, found) = (file.name().to_owned(), found.clone());
            return Err(Error::ShapeMismatch { name, file, found, expected }.into());
        }
        let blocks = Tensor::from_slice(file.get(bytes.clone()).unwrap_or_default(), shape, device);
        file.release(bytes);
        blocks
    }
}

impl SimpleBackend for CheckpointBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        if dtype == DType::U8
            && let Some((kind, weight, located)) = self.0.find_blocks(name)
        {
            return self.blocks(kind, located, weight, &shape, device);
        }
        // Compare the shape before reading anything, so that no file can ask for more memory than the model does.
        let located = self.0.get_shaped(name, shape.dims())?;
        Ok(self.0.load(located, name, dtype, device)?)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(self.0.load(self.0.get(name)?, name, dtype, device)?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name) || self.0.find_blocks(name).is_some()
    }
}
