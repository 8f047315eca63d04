//! Names the types of quantized weights, as ggml has them and GGUF files hold them: blocks of 32 or 256 neighbouring numbers
//! of a row as integers of 2 to 8 bits, with scales of their own.
//!
//! Only weights are ever quantized. A layer turns as many of them into f32 as it is about to multiply by, and all arithmetic
//! is in f32, so that a quantized layer computes what the layer of its numbers does.

use candle_core::Result;
use candle_core::quantized::GgmlDType;
use std::str::FromStr;

/// A type of quantized weights. The number is that of the bits of each integer; `_0` has one scale for a block, `_1` also a least value,
/// and `K` scales of parts of a block, which themselves are small integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockType {
    /// 4 bits; 32 numbers in 18 bytes.
    Q4_0,
    /// 4 bits and a least value; 32 numbers in 20 bytes.
    Q4_1,
    /// 5 bits; 32 numbers in 22 bytes.
    Q5_0,
    /// 5 bits and a least value; 32 numbers in 24 bytes.
    Q5_1,
    /// 8 bits; 32 numbers in 34 bytes.
    Q8_0,
    /// 2 bits; 256 numbers in 84 bytes.
    Q2K,
    /// 3 bits; 256 numbers in 110 bytes.
    Q3K,
    /// 4 bits; 256 numbers in 144 bytes.
    Q4K,
    /// 5 bits; 256 numbers in 176 bytes.
    Q5K,
    /// 6 bits; 256 numbers in 210 bytes.
    Q6K,
}

impl BlockType {
    /// All of them, from few bits to many within each family.
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
