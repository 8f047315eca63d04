//! Quantizes values to blocks, and dequantizes them.

use crate::cpu::quantized::to_floats;
use crate::shapes::BlockType;
use candle_core::quantized::QTensor;
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// Values per task: many blocks of any type.
const VALUES_PER_TASK: usize = 64 * 1024;

impl BlockType {
    /// Dequantizes blocks; `bytes` may be unaligned.
    ///
    /// # Errors
    /// If `bytes` do not hold `values.len()` values.
    pub fn dequantize(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        /// Blocks copied at a time for alignment.
        const BLOCKS: usize = 16;
        if self.bytes_of(values.len()) != Some(bytes.len()) {
            candle_core::bail!("{} bytes of {} are not {} numbers", bytes.len(), self.name(), values.len());
        }
        let mut words = Vec::with_capacity(BLOCKS * self.block_bytes() / 2);
        let values = values.chunks_mut(BLOCKS * self.block_values());
        for (values, bytes) in values.zip(bytes.chunks(BLOCKS * self.block_bytes())) {
            words.clear();
            words.extend(bytes.as_chunks().0.iter().map(|word| u16::from_ne_bytes(*word)));
            to_floats(self, &words, values);
        }
        Ok(())
    }

    /// Quantizes values to consecutive blocks.
    ///
    /// # Errors
    /// If the number of values is not a multiple of the block size, one is not finite, or one is too large for the
    /// block's f16 scale.
    pub fn quantize(self, values: &[f32]) -> Result<Vec<u8>> {
        if self.bytes_of(values.len()).is_none() {
            candle_core::bail!("{} numbers do not divide into blocks of {}", values.len(), self.name());
        }
        let parts = values.par_chunks(VALUES_PER_TASK.next_multiple_of(self.block_values()));
        let parts = parts.map(|part| self.quantize_part(part)).collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    }

    fn quantize_part(self, values: &[f32]) -> Result<Vec<u8>> {
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            candle_core::bail!("{value} has no place in a block");
        }
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        let bytes = QTensor::quantize(&tensor, self.ggml())?.data()?.into_owned();
        let mut back = vec![0f32; values.len()];
        self.dequantize(&bytes, &mut back)?;
        match values.iter().zip(&back).find(|(_, back)| !back.is_finite()) {
            Some((value, _)) => candle_core::bail!("{value} is too large for a block of {}", self.name()),
            None => Ok(bytes),
        }
    }
}
