//! Describes a tensor in its file, and the list of tensors in a file.

use std::borrow::Cow;
use std::ops::Range;

use safetensors::Dtype;

use super::element::{ElementType, element_count};

/// The tensors in a file.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub tensors: Vec<(String, StoredTensor)>,
    /// Tensors that cannot be read, and why. This is an error only for those who ask for them.
    pub unreadable: Vec<(String, String)>,
}

/// A tensor, already checked against the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredTensor {
    pub dtype: ElementType,
    pub shape: Vec<usize>,
    /// Strides in elements; `None` if contiguous in row-major order.
    pub strides: Option<Vec<usize>>,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
    pub encoding: Encoding,
}

/// How bytes are encoded, unless plain little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Whether numbers are big-endian.
    pub big_endian: bool,
    /// Whether bytes are UTF-8 text, one character each, as in early pickle protocols.
    pub as_text: bool,
}

impl StoredTensor {
    /// A contiguous tensor.
    pub(super) fn plain(dtype: ElementType, shape: Vec<usize>, bytes: Range<usize>) -> Self {
        Self { dtype, shape, strides: None, bytes, encoding: Encoding::default() }
    }

    /// One of `count` equal groups of rows; `None` if the rows are no multiple, or their places are unknown.
    pub(super) fn rows(&self, group: usize, count: usize) -> Option<Self> {
        let [rows, row @ ..] = self.shape.as_slice() else { return None };
        if self.encoding.as_text || group >= count || !rows.is_multiple_of(count) {
            return None;
        }
        let rows = rows / count;
        let shape: Vec<usize> = [rows].into_iter().chain(row.iter().copied()).collect();
        let elements = match &self.strides {
            None => element_count(&shape)?,
            Some(strides) => rows.checked_mul(*strides.first()?)?,
        };
        let length = self.dtype.bytes_of(elements)?;
        let start = self.bytes.start.checked_add(length.checked_mul(group)?)?;
        let end = match &self.strides {
            None => start.checked_add(length)?,
            Some(_) => self.bytes.end,
        };
        (start <= end && end <= self.bytes.end).then(|| Self { shape, bytes: start..end, ..self.clone() })
    }

    /// Whether its bytes in the file are those of its elements, in order.
    pub(super) fn is_plain(&self) -> bool {
        self.strides.is_none() && self.encoding == Encoding::default()
    }

    /// The little-endian bytes of its elements, in order.
    pub(super) fn element_bytes<'f>(&self, file: &'f [u8]) -> Cow<'f, [u8]> {
        let mut bytes = Cow::Borrowed(file.get(self.bytes.clone()).unwrap_or_default());
        let ElementType::Plain(dtype) = self.dtype else { return bytes };
        let width = dtype.bitsize() / 8;
        if self.encoding.as_text {
            // Validated as such text when the tensor was found.
            let text = str::from_utf8(&bytes).unwrap_or_default();
            bytes = Cow::Owned(text.chars().map(|char| u8::try_from(char).unwrap_or_default()).collect());
        }
        if let Some(strides) = &self.strides {
            bytes = Cow::Owned(gather(&bytes, &self.shape, strides, width));
        } else if self.encoding.as_text {
            let length = element_count(&self.shape).and_then(|count| count.checked_mul(width));
            bytes.to_mut().truncate(length.unwrap_or(usize::MAX));
        }
        // A complex number is two of half its width.
        let width = if dtype == Dtype::C64 { width / 2 } else { width };
        if self.encoding.big_endian && width > 1 {
            bytes.to_mut().chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        bytes
    }
}

/// Copies elements of `width` bytes, `strides` elements apart in `bytes`, into row-major order.
fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], width: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(count * width);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let position: usize = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
        gathered.extend_from_slice(bytes.get(position * width..(position + 1) * width).unwrap_or_default());
        for (index, size) in index.iter_mut().zip(shape).rev() {
            *index += 1;
            if *index < *size {
                break;
            }
            *index = 0;
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(dtype: Dtype, shape: &[usize], strides: Option<&[usize]>, encoding: Encoding) -> StoredTensor {
        let dtype = ElementType::Plain(dtype);
        StoredTensor {
            dtype,
            shape: shape.to_vec(),
            strides: strides.map(<[_]>::to_vec),
            bytes: 0..6,
            encoding,
        }
    }

    #[test]
    fn strided_elements_are_gathered() {
        // The transpose of [[0, 1, 2], [3, 4, 5]].
        let bytes = [0u8, 1, 2, 3, 4, 5];
        assert_eq!(gather(&bytes, &[3, 2], &[1, 3], 1), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gather(&bytes, &[2, 3], &[0, 2], 1), [0, 2, 4, 0, 2, 4]);
    }

    #[test]
    fn rows_are_taken_in_groups() {
        let bytes = [0u8, 1, 2, 3, 4, 5];
        let plain = stored(Dtype::U8, &[3, 2], None, Encoding::default());
        assert_eq!(*plain.rows(1, 3).unwrap().element_bytes(&bytes), [2, 3]);
        assert_eq!(plain.rows(1, 3).unwrap().shape, [1, 2]);
        assert_eq!((plain.rows(0, 2), plain.rows(3, 3)), (None, None));
        // The transpose of [[0, 1, 2], [3, 4, 5]].
        let strided = stored(Dtype::U8, &[3, 2], Some(&[1, 3]), Encoding::default());
        assert_eq!(*strided.rows(2, 3).unwrap().element_bytes(&bytes), [2, 5]);
        let scalar = stored(Dtype::U8, &[], None, Encoding::default());
        assert_eq!(scalar.rows(0, 1), None);
    }

    #[test]
    fn numbers_are_put_into_the_order_of_this_machine() {
        let big_endian = Encoding { big_endian: true, as_text: false };
        let bytes = [0u8, 1, 2, 3, 4, 5];
        let rows = stored(Dtype::U16, &[3], None, big_endian);
        assert_eq!(*rows.element_bytes(&bytes), [1, 0, 3, 2, 5, 4]);
        let repeated = stored(Dtype::I16, &[2], Some(&[2]), big_endian);
        assert_eq!(*repeated.element_bytes(&bytes), [1, 0, 5, 4]);
    }

    #[test]
    fn a_text_is_its_bytes() {
        let text = "a\u{80}\u{ff}b".as_bytes();
        let as_text = Encoding { big_endian: false, as_text: true };
        assert_eq!(*stored(Dtype::U8, &[3], None, as_text).element_bytes(text), [b'a', 0x80, 0xff]);
        let big_endian = Encoding { big_endian: true, as_text: true };
        assert_eq!(*stored(Dtype::U16, &[2], None, big_endian).element_bytes(text), [0x80, b'a', b'b', 0xff]);
    }
}
