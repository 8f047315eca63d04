//! From the objects that a pickle describes to tensors in the file, by name.

use std::collections::BTreeMap;
use std::ops::Range;

use super::machine::{Node, NodeId, Objects, Storage, TensorView};
use super::{Result, StoredTensor};
use crate::checkpoint::element::ElementType;

/// The key under which training frameworks keep the weights, beside the optimiser's state and their own.
const STATE_DICT: &str = "state_dict";
/// How deep dictionaries may nest, and how many entries they may have: a dictionary can hold itself.
const DEEPEST: usize = 8;
const MOST_ENTRIES: usize = 1 << 20;

/// The tensors in the saved dictionary. `locate` tells where in the file a storage lies.
pub(super) fn tensors<'a>(
    objects: &Objects<'a>,
    locate: impl Fn(&Storage<'a>) -> Result<Range<usize>>,
) -> Result<Vec<(String, StoredTensor)>> {
    let Node::Dict(top) = objects.root() else {
        return Err("expected a dictionary of tensors, found something else".to_owned());
    };
    let weights = top.iter().find_map(|(key, value)| match (objects.node(*key), objects.node(*value)) {
        (Node::Text(STATE_DICT), Node::Dict(entries)) => Some(entries),
        _ => None,
    });
    let mut found = BTreeMap::new();
    let mut budget = MOST_ENTRIES;
    flatten(objects, weights.unwrap_or(top), "", DEEPEST, &mut budget, &mut found)?;
    if found.is_empty() {
        return Err("expected a dictionary of tensors, found no tensor in it".to_owned());
    }
    found
        .into_iter()
        .map(|(name, view)| match locate(&view.storage).and_then(|storage| place(view, storage)) {
            Ok(tensor) => Ok((name, tensor)),
            Err(problem) => Err(format!("tensor {name}: {problem}")),
        })
        .collect()
}

fn flatten<'o, 'a>(
    objects: &'o Objects<'a>,
    entries: &[(NodeId, NodeId)],
    prefix: &str,
    depth: usize,
    budget: &mut usize,
    found: &mut BTreeMap<String, &'o TensorView<'a>>,
) -> Result<()> {
    for (key, value) in entries {
        *budget = budget
            .checked_sub(1)
            .ok_or_else(|| format!("more than {MOST_ENTRIES} entries in dictionaries"))?;
        let Node::Text(key) = objects.node(*key) else {
            // An optimiser numbers its parameters; weights have names.
            continue;
        };
        match objects.node(*value) {
            Node::Tensor(view) => {
                let replaced = found.insert(format!("{prefix}{key}"), view);
                if replaced.is_some() {
                    return Err(format!("tensor {prefix}{key} comes twice"));
                }
            }
            Node::Dict(entries) if depth > 0 => {
                flatten(objects, entries, &format!("{prefix}{key}."), depth - 1, budget, found)?;
            }
            Node::Dict(_) => return Err(format!("{prefix}{key}: dictionaries nest deeper than {DEEPEST}")),
            _ => {}
        }
    }
    Ok(())
}

/// Where a tensor lies in the file, given where its storage does. Everything about it was written by somebody else.
fn place(view: &TensorView, storage: Range<usize>) -> Result<StoredTensor> {
    let TensorView { storage: Storage { dtype, elements, .. }, offset, shape, strides } = view;
    let out_of_range = || {
        format!(
            "shape {shape:?} with strides {strides:?} from element {offset} goes beyond its storage of {elements} elements"
        )
    };

    let (width, stored) = (dtype.bitsize() / 8, ElementType::Plain(*dtype));
    if elements.checked_mul(width).is_none_or(|bytes| bytes > storage.len()) {
        return Err(format!(
            "its storage holds {elements} elements of {dtype}, but has {} bytes",
            storage.len()
        ));
    }
    let count =
        shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)).ok_or_else(out_of_range)?;
    // A stride of 0 repeats elements. No weight does, and it would let a few bytes ask for any amount of memory.
    if count > *elements {
        return Err(out_of_range());
    }
    if count == 0 {
        return Ok(StoredTensor { dtype: stored, shape: shape.clone(), strides: None, bytes: 0..0 });
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |position, (size, stride)| position.checked_add((size - 1).checked_mul(*stride)?))
        .filter(|last| last < elements)
        .ok_or_else(out_of_range)?;
    // In range because the elements up to `elements` are.
    let bytes = storage.start + offset * width..storage.start + (last + 1) * width;
    let strides = (!is_row_major(shape, strides)).then(|| strides.clone());
    Ok(StoredTensor { dtype: stored, shape: shape.clone(), strides, bytes })
}

/// Whether elements lie one after the other. The stride along a dimension of size 1 is never used, and may be anything.
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

    use super::*;

    fn place_in_ten(offset: usize, shape: &[usize], strides: &[usize]) -> Result<StoredTensor> {
        let storage = Storage { key: "0", dtype: Dtype::F32, elements: 10 };
        place(&TensorView { storage, offset, shape: shape.into(), strides: strides.into() }, 100..140)
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
            // The same element again and again.
            (0, vec![1 << 40], vec![0]),
        ] {
            assert!(place_in_ten(offset, &shape, &strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn storages_have_the_bytes_that_they_claim() {
        let storage = Storage { key: "0", dtype: Dtype::F32, elements: 11 };
        let view = TensorView { storage, offset: 0, shape: vec![1], strides: vec![1] };
        assert!(place(&view, 100..140).is_err());
    }
}
