//! Lists the types of quantized weights, as in ggml and GGUF files: blocks of 32 or 256 neighbouring values of a row,
//! stored as integers of 2 to 8 bits with their own scales.
//!
//! Only weights are quantized. A layer unpacks to f32 as many of them as it is about to multiply by, and all
//! arithmetic is in f32, so a quantized layer computes exactly what the unpacked one would.

use candle_core::Result;
use candle_core::quantized::GgmlDType;
use std::str::FromStr;

/// A type of quantized weights. The number is the bits per integer; `_0` has one scale per block, `_1` also a
/// minimum, and `K` has scales for parts of a block, which are small integers themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockType {
    /// 4 bits; 32 values in 18 bytes.
    Q4_0,
    /// 4 bits and a minimum; 32 values in 20 bytes.
    Q4_1,
    /// 5 bits; 32 values in 22 bytes.
    Q5_0,
    /// 5 bits and a minimum; 32 values in 24 bytes.
    Q5_1,
    /// 8 bits; 32 values in 34 bytes.
    Q8_0,
    /// 2 bits; 256 values in 84 bytes.
    Q2K,
    /// 3 bits; 256 values in 110 bytes.
    Q3K,
    /// 4 bits; 256 values in 144 bytes.
    Q4K,
    /// 5 bits; 256 values in 176 bytes.
    Q5K,
    /// 6 bits; 256 values in 210 bytes.
    Q6K,
}

impl BlockType {
    /// All types, with increasing bits within each family.
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

    /// ggml's name, in lower case.
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

    /// candle's name.
    pub(crate) fn ggml(self) -> GgmlDType {
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

    /// Values per block.
    pub fn block_values(self) -> usize {
        self.ggml().block_size()
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.ggml().type_size()
    }

    /// The bytes for this many values, or `None` if they are not a multiple of the block size, or too many.
    pub fn bytes_of(self, values: usize) -> Option<usize> {
        if !values.is_multiple_of(self.block_values()) {
            return None;
        }
        (values / self.block_values()).checked_mul(self.block_bytes())
    }

    /// The name under which a checkpoint provides a weight's quantized bytes, beside the name for its values: a U8
    /// tensor (rows, bytes per row), with the weight flattened to (out, everything else).
    pub fn blocks_name(self, weight: &str) -> String {
        format!("{weight}.{}", self.name())
    }
}

impl FromStr for BlockType {
    type Err = candle_core::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|this| this.name() == name) {
            Some(this) => Ok(this),
            None => candle_core::bail!("expected a quantized type such as q8_0, found {name}"),
        }
    }
}
