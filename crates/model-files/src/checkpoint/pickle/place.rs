//! Locates a tensor in the file, given where its storage is, trusting none of the input.

use std::ops::Range;

use super::objects::{Data, Storage, TensorView};
use super::reader::Result;
use crate::checkpoint::element::{ElementType, element_count};
use crate::checkpoint::stored::{Encoding, StoredTensor};

/// The most elements of a tensor that repeats those of its storage. `expand` does so with stride 0, which lets a few
/// bytes ask for any amount of memory.
const MOST_REPEATED: usize = 1 << 26;

/// Locates a tensor in `file`. `big_endian` is the byte order of its storages, `locate` finds one.
pub(super) fn place<'a>(
    file: &[u8],
    view: &TensorView<'a>,
    big_endian: bool,
    locate: impl Fn(&Storage<'a>) -> Result<Range<usize>>,
) -> Result<StoredTensor> {
    let TensorView { data, dtype, offset, shape, strides } = view;
    let width = dtype.bitsize() / 8;
    let count =
        element_count(shape).ok_or_else(|| format!("shape {shape:?} has too many elements to count"))?;
    let stored = StoredTensor::plain(ElementType::Plain(*dtype), shape.clone(), 0..0);
    if count == 0 {
        return Ok(stored);
    }
    let (area, elements, encoding) = match data {
        Data::Storage(storage) => {
            let area = storage_bytes(storage, locate(storage)?)?;
            let elements = area.len() / width;
            (area, elements, Encoding { big_endian, as_text: false })
        }
        Data::Inline { bytes, big_endian } => {
            let elements = inline_length(bytes.bytes, bytes.as_text)? / width;
            let encoding = Encoding { big_endian: *big_endian, as_text: bytes.as_text };
            (position(file, bytes.bytes)?, elements, encoding)
        }
    };
    let out_of_range = || {
        format!(
            "shape {shape:?} with strides {strides:?} from element {offset} goes beyond its storage of {elements} elements"
        )
    };
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |position, (size, stride)| position.checked_add((size - 1).checked_mul(*stride)?))
        .filter(|last| *last < elements)
        .ok_or_else(out_of_range)?;
    if count > elements.max(MOST_REPEATED) {
        return Err(format!("shape {shape:?} repeats the {elements} elements of its storage too often"));
    }
    let strides = (!is_row_major(shape, strides)).then(|| strides.clone());
    let bytes = match encoding.as_text {
        true => area,
        // In range because the elements up to `elements` are.
        false => area.start + offset * width..area.start + (last + 1) * width,
    };
    Ok(StoredTensor { strides, bytes, encoding, ..stored })
}

/// The bytes of a storage, or of a view, within the whole at `whole`.
fn storage_bytes(storage: &Storage, whole: Range<usize>) -> Result<Range<usize>> {
    let width = storage.element.width();
    let start = storage.start.checked_mul(width);
    let length = storage.elements.checked_mul(width);
    let part = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
    match part.filter(|part| part.end <= whole.len()) {
        Some(part) => Ok(whole.start + part.start..whole.start + part.end),
        None => Err(format!(
            "its storage holds {} elements of {width} bytes, but has {} bytes",
            storage.elements,
            whole.len()
        )),
    }
}

/// The number of bytes stored in the pickle, which may be a text of as many characters.
fn inline_length(bytes: &[u8], as_text: bool) -> Result<usize> {
    if !as_text {
        return Ok(bytes.len());
    }
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    match text.chars().find(|&char| char > '\u{ff}') {
        Some(char) => Err(format!("its bytes are written as a text with the character {char:?}")),
        None => Ok(text.chars().count()),
    }
}

/// Where `part` is in `file`.
fn position(file: &[u8], part: &[u8]) -> Result<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(file.as_ptr().addr());
    let range = start.and_then(|start| Some(start..start.checked_add(part.len())?));
    let range = range.filter(|range| range.end <= file.len());
    range.ok_or_else(|| "its bytes are not in the file".to_owned())
}

/// Whether elements are contiguous. The stride of a dimension of size 1 is never used, and may be anything.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().filter(|(size, _)| **size != 1).all(|(size, stride)| {
        let fits = *stride == expected;
        expected *= size;
        fits
    })
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::super::objects::Element;
    use super::*;

    fn storage(element: Element<'static>, elements: usize) -> Storage<'static> {
        Storage { key: "0", element, start: 0, elements }
    }

    fn place_in_ten(offset: usize, shape: &[usize], strides: &[usize]) -> Result<StoredTensor> {
        let data = Data::Storage(storage(Element::Number(Dtype::F32), 10));
        let view =
            TensorView { data, dtype: Dtype::F32, offset, shape: shape.into(), strides: strides.into() };
        place(&[], &view, false, |_| Ok(100..140))
    }

    #[test]
    fn tensors_lie_inside_their_storage() {
        let whole = place_in_ten(0, &[2, 5], &[5, 1]).unwrap();
        assert_eq!((whole.bytes, whole.strides), (100..140, None));
        let transposed = place_in_ten(2, &[4, 2], &[1, 4]).unwrap();
        assert_eq!((transposed.bytes, transposed.strides), (108..140, Some(vec![1, 4])));
        let column = place_in_ten(9, &[1, 1], &[7, 9]).unwrap();
        assert_eq!((column.bytes, column.strides), (136..140, None));
        assert_eq!(place_in_ten(3, &[0, 5], &[5, 1]).unwrap().bytes, 0..0);
        assert_eq!(place_in_ten(3, &[], &[]).unwrap().bytes, 112..116);
        let repeated = place_in_ten(1, &[100, 2], &[0, 1]).unwrap();
        assert_eq!((repeated.bytes, repeated.strides), (104..112, Some(vec![0, 1])));
    }

    #[test]
    fn tensors_outside_their_storage_are_refused() {
        let huge = usize::MAX;
        for (offset, shape, strides) in [
            (1, vec![10], vec![1]),
            (10, vec![1], vec![1]),
            (huge, vec![1], vec![1]),
            (0, vec![2], vec![10]),
            (0, vec![2], vec![huge]),
            (0, vec![3, 2], vec![huge / 2, huge / 2]),
            (0, vec![huge, huge], vec![1, 1]),
            // The same element repeatedly.
            (0, vec![1 << 40], vec![0]),
        ] {
            assert!(place_in_ten(offset, &shape, &strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn storages_have_the_bytes_that_they_claim() {
        let claims = |element, elements, dtype| {
            let data = Data::Storage(storage(element, elements));
            let view = TensorView { data, dtype, offset: 0, shape: vec![1], strides: vec![1] };
            place(&[], &view, false, |_| Ok(100..140)).is_ok()
        };
        assert!(claims(Element::Number(Dtype::F32), 10, Dtype::F32));
        assert!(!claims(Element::Number(Dtype::F32), 11, Dtype::F32));
        assert!(!claims(Element::Number(Dtype::F32), usize::MAX, Dtype::F32));
        // For bytes, the tensor gives the type.
        assert!(claims(Element::Untyped, 40, Dtype::F16));
        assert!(!claims(Element::Untyped, 41, Dtype::F16));
        assert!(!claims(Element::Untyped, 1, Dtype::F16));
    }

    #[test]
    fn parts_of_storages_begin_where_they_say() {
        let part = Storage { start: 2, elements: 3, ..storage(Element::Number(Dtype::F32), 10) };
        assert_eq!(storage_bytes(&part, 100..140).unwrap(), 108..120);
        let beyond = Storage { start: 8, ..part };
        assert!(storage_bytes(&beyond, 100..140).is_err());
    }
}
