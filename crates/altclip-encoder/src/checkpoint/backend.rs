//! A checkpoint as the backend of candle's `VarBuilder`.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::Contents;

pub(super) struct CheckpointBackend(pub(super) Arc<Contents>);

impl SimpleBackend for CheckpointBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        // The shape is compared before anything is read, so that no file can ask for more memory than the model does.
        let located = self.0.get_shaped(name, shape.dims())?;
        Ok(self.0.load(located, name, dtype, device)?)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(self.0.load(self.0.get(name)?, name, dtype, device)?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.find(name).is_some()
    }
}
