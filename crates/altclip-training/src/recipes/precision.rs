//! Chooses the dtype for training.

use crate::error::{Error, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

/// The dtype that a model computes in during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, on any device.
    #[default]
    F32,
    /// Half the memory and several times the speed on a GPU; the optimizer keeps weights in f32.
    Bf16,
}

impl Precision {
    /// The dtype of the weights.
    ///
    /// # Errors
    /// For bf16 on a CPU, which always computes in f32.
    pub fn dtype(self, device: &Device) -> Result<DType> {
        match self {
            Self::F32 => Ok(DType::F32),
            Self::Bf16 if device.is_cpu() => {
                Err(Error::Setting("precision: bf16 needs a GPU, expected f32 on a CPU".to_owned()))
            }
            Self::Bf16 => Ok(DType::BF16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_needs_a_gpu() {
        let error =
            Precision::Bf16.dtype(&Device::Cpu).map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(error, "precision: bf16 needs a GPU, expected f32 on a CPU");
    }
}
