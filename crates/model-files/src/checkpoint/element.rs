//! Describes the elements of a tensor in a file.

use std::fmt;

use fused_ops::BlockType;
use safetensors::Dtype;

/// Plain or quantized elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    Plain(Dtype),
    Quantized(BlockType),
}

impl ElementType {
    /// The bytes of this many elements, or `None` if that is not an integer or too large.
    pub(super) fn bytes_of(self, elements: usize) -> Option<usize> {
        match self {
            Self::Plain(dtype) => {
                let bits = elements.checked_mul(dtype.bitsize())?;
                bits.is_multiple_of(8).then_some(bits / 8)
            }
            Self::Quantized(kind) => kind.bytes_of(elements),
        }
    }

    /// Whether it is an 8-bit floating-point type.
    pub(super) fn is_float8(self) -> bool {
        matches!(
            self,
            Self::Plain(
                Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ | Dtype::F8_E8M0
            )
        )
    }

    pub(super) fn is_float(self) -> bool {
        match self {
            Self::Plain(dtype) => {
                matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) || self.is_float8()
            }
            Self::Quantized(_) => true,
        }
    }
}

/// The number of elements of a shape, or `None` if it overflows. Even in an empty tensor the other sides must not,
/// because strides are their products.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1usize, |product, size| product.checked_mul((*size).max(1)))?;
    let is_empty = shape.contains(&0);
    isize::try_from(product).ok().map(|_| if is_empty { 0 } else { product })
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Quantized(kind) => f.write_str(kind.name()),
        }
    }
}
