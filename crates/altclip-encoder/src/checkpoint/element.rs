//! What the elements of a tensor are in a file.

use std::fmt;

use fused_ops::BlockType;
use safetensors::Dtype;

/// Numbers one by one, or in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    Plain(Dtype),
    Blocks(BlockType),
}

impl ElementType {
    /// The bytes that so many elements take, or `None` if they are no whole number or too many to count.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        match self {
            Self::Plain(dtype) => {
                let bits = elements.checked_mul(dtype.bitsize())?;
                bits.is_multiple_of(8).then_some(bits / 8)
            }
            Self::Blocks(kind) => kind.bytes_of(elements),
        }
    }

    pub fn is_float(self) -> bool {
        match self {
            Self::Plain(dtype) => matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16),
            Self::Blocks(_) => true,
        }
    }
}

/// The number of elements of a shape, or `None` if they are too many to count.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Blocks(kind) => f.write_str(kind.name()),
        }
    }
}
