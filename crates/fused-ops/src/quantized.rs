//! Weights in blocks, as ggml has them and GGUF files hold them: 32 or 256 neighbouring numbers of a row as integers of 2 to
//! 8 bits, with scales of their own.
//!
//! Only weights are ever in blocks. A layer turns as many of them into f32 as it is about to multiply by, and all
//! arithmetic is in f32, so that a layer of blocks computes what the layer of their numbers does.

use crate::cpu::blocks::{Blocks, to_floats};
use crate::cpu::pack::FactorSize;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;
use std::str::FromStr;

/// Numbers of a task's own: many blocks of any type.
const VALUES_PER_TASK: usize = 64 * 1024;

/// A type of blocks. The number is that of the bits of each integer; `_0` has one scale for a block, `_1` also a least value,
/// and `K` scales of parts of a block, which themselves are small integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockType {
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name that ggml has for it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Candle's name for it.
    fn ggml(self) -> GgmlDType {
        match self {
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }

    /// Numbers of a block.
    pub fn block_values(self) -> usize {
        self.ggml().block_size()
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.ggml().type_size()
    }

    /// The bytes of so many numbers, or `None` where they are no whole number of blocks or the bytes too many to count.
    pub fn bytes_of(self, values: usize) -> Option<usize> {
        if !values.is_multiple_of(self.block_values()) {
            return None;
        }
        (values / self.block_values()).checked_mul(self.block_bytes())
    }

    /// The name under which a checkpoint gives the bytes of a weight's blocks, beside the name for its numbers: a U8 tensor
    /// (rows, bytes of a row), whose rows are those of the weight flattened to (out, everything else).
    pub fn blocks_name(self, weight: &str) -> String {
        format!("{weight}.{}", self.name())
    }

    /// The numbers of blocks, wherever their bytes lie.
    ///
    /// # Errors
    /// If `bytes` are not those of `values.len()` numbers.
    pub fn dequantize(self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        /// Blocks that are copied at a time, to where they are aligned.
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

    /// Numbers as blocks, one after the other.
    ///
    /// # Errors
    /// If `values` are no whole number of blocks, one is not finite, or so large that a block's scale, which is f16, cannot
    /// tell.
    pub fn quantize(self, values: &[f32]) -> Result<Vec<u8>> {
        if self.bytes_of(values.len()).is_none() {
            candle_core::bail!("{} numbers are no whole number of blocks of {}", values.len(), self.name());
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

impl FromStr for BlockType {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|this| this.name() == name) {
            Some(this) => Ok(this),
            None => candle_core::bail!("expected a type of blocks such as q8_0, found {name}"),
        }
    }
}

/// The blocks of the weight called `name`, where the checkpoint has such and the CPU kernels can use them. On other devices
/// a layer reads its numbers, of the type that it computes in: there memory is for the whole model, and kernels take f16.
pub(crate) fn read_blocks(vb: &VarBuilder, name: &str, size: FactorSize) -> Result<Option<Blocks>> {
    let row = size.taps * size.depth;
    let in_blocks = |kind: &BlockType| vb.contains_tensor(&kind.blocks_name(name));
    let Some(kind) = BlockType::ALL.into_iter().find(in_blocks).filter(|_| vb.device().is_cpu()) else {
        return Ok(None);
    };
    let Some(row_bytes) = kind.bytes_of(row) else {
        candle_core::bail!("{name}: rows of {row} numbers are no whole number of blocks of {}", kind.name())
    };
    let shape = (size.columns, row_bytes);
    let bytes = vb.get_with_hints_dtype(shape, &kind.blocks_name(name), Init::Const(0.), DType::U8)?;
    Blocks::new(kind, &bytes.flatten_all()?.to_vec1::<u8>()?, size).map(Some)
}
