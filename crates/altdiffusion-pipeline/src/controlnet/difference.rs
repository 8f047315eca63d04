//! Adds a UNet's weights to a ControlNet stored as differences from them (kohya-ss/ControlNet-diff-modules).

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

/// Differences from a base model. Tensors that the base does not have are complete.
pub(super) struct Differences {
    differences: VarBuilder<'static>,
    base: VarBuilder<'static>,
}

impl Differences {
    pub(super) fn from_base(
        base: VarBuilder<'static>,
        differences: VarBuilder<'static>,
    ) -> VarBuilder<'static> {
        let (dtype, device) = (differences.dtype(), differences.device().clone());
        VarBuilder::from_backend(Box::new(Self { differences, base }), dtype, device)
    }

    /// Sums are in f32, whatever dtype the weights are stored in.
    fn sum(
        &self,
        name: &str,
        get: impl Fn(&VarBuilder, DType) -> Result<Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        if !self.base.contains_tensor(name) {
            return get(&self.differences, dtype);
        }
        (get(&self.differences, DType::F32)? + get(&self.base, DType::F32)?)?.to_dtype(dtype)
    }
}

impl SimpleBackend for Differences {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, _: &Device) -> Result<Tensor> {
        self.sum(name, |weights, dtype| weights.get_with_hints_dtype(shape.clone(), name, init, dtype), dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> Result<Tensor> {
        self.sum(name, |weights, dtype| weights.get_unchecked_dtype(name, dtype), dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.differences.contains_tensor(name)
    }
}
