//! Finds the vectors and items of one kind in the bytes of an index, and searches them.

use std::cmp::Ordering;
use std::ops::Range;

use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata};

use crate::output::safetensors::{IMAGES, TEXTS};
use crate::vector::cosine;

/// The error for files that were not written by a job.
pub(super) const NO_INDEX: &str = "expected a .safetensors file made by altdiffusion embed";

/// Rows per task of a search.
const BLOCK: usize = 1024;

/// The vectors and items of texts or of images.
#[derive(Debug)]
pub(super) struct VectorTable {
    pub(super) rows: usize,
    /// The dimension of the vectors.
    pub(super) width: usize,
    /// The vectors: little-endian f32, row by row.
    vectors: Range<usize>,
    /// The items: a JSON string per line.
    items: Range<usize>,
}

/// A row and its cosine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scored {
    pub(super) row: usize,
    pub(super) score: f32,
}

impl Scored {
    /// Higher scores first, then earlier rows.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl VectorTable {
    /// The tables of texts and images in a file whose tensors start at `start`, or what is wrong with them.
    pub(super) fn read_all(bytes: &[u8], metadata: &Metadata, start: usize) -> Result<[Self; 2], String> {
        let read = |names: [&str; 2]| Self::read(bytes, metadata, start, names);
        let [texts, images] = [read(TEXTS)?, read(IMAGES)?];
        if texts.width != images.width {
            return Err(format!(
                "{} have {} numbers and {} {}, expected the same",
                TEXTS[0], texts.width, IMAGES[0], images.width
            ));
        }
        Ok([texts, images])
    }

    fn read(
        bytes: &[u8],
        metadata: &Metadata,
        start: usize,
        [vectors_name, items_name]: [&str; 2],
    ) -> Result<Self, String> {
        let tensor = |name: &str| {
            let info = metadata.info(name).ok_or_else(|| format!("{NO_INDEX}; no tensor {name}"))?;
            let (begin, end) = info.data_offsets;
            Ok::<_, String>((info, start + begin..start + end))
        };
        let ((vectors, vector_bytes), (items, item_bytes)) = (tensor(vectors_name)?, tensor(items_name)?);
        let problem = |problem: String| Err(format!("{vectors_name}, {items_name}: {problem}"));
        let &[rows, width] = vectors.shape.as_slice() else {
            return problem(format!("expected vectors of shape (items, width), found {:?}", vectors.shape));
        };
        if vectors.dtype != Dtype::F32 {
            return problem(format!("expected vectors of F32, found {:?}", vectors.dtype));
        }
        if width == 0 {
            return problem("expected vectors of at least 1 number, found 0".to_owned());
        }
        if items.dtype != Dtype::U8 {
            return problem(format!("expected items as U8, found {:?}", items.dtype));
        }
        let table = Self { rows, width, vectors: vector_bytes, items: item_bytes };
        let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let lines: usize = part(bytes, &table.items).par_chunks(BLOCK * BLOCK).map(ends).sum();
        if lines != rows {
            return problem(format!("expected a line for each of {rows} vectors, found {lines}"));
        }
        Ok(table)
    }

    /// The rows with the greatest cosines with a unit vector, in descending order.
    pub(super) fn search(&self, bytes: &[u8], query: &[f32], top: usize) -> Vec<Scored> {
        if self.rows == 0 {
            return Vec::new(); // the width may be arbitrary then
        }
        let row_bytes = self.width * size_of::<f32>();
        let blocks = part(bytes, &self.vectors).par_chunks(BLOCK * row_bytes).enumerate();
        let best = blocks.map(|(block, bytes)| {
            let rows = bytes.chunks_exact(row_bytes).enumerate();
            let scored =
                rows.map(|(row, bytes)| Scored { row: block * BLOCK + row, score: cosine(query, bytes) });
            best_of(scored.filter(|scored| scored.score.is_finite()).collect(), top)
        });
        let mut best = best.reduce(Vec::new, |mut some, others| {
            some.extend(others);
            best_of(some, top)
        });
        best.sort_unstable_by(Scored::order);
        best
    }

    /// All items with their vectors, or what is wrong with one of them.
    pub(super) fn rows_of<'a>(
        &self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Result<(String, Vec<f32>), String>> + use<'a> {
        let lines = part(bytes, &self.items).split(|byte| *byte == b'\n');
        let vectors = part(bytes, &self.vectors).chunks_exact((self.width * size_of::<f32>()).max(1));
        (0..).zip(lines).zip(vectors).map(|((row, line), vector)| {
            let item = serde_json::from_slice(line)
                .map_err(|error| format!("item {row}: expected a JSON string: {error}"))?;
            Ok((item, vector.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()))
        })
    }

    /// The items of these ascending rows, or what is wrong with one of them.
    pub(super) fn items_at(
        &self,
        bytes: &[u8],
        rows: impl Iterator<Item = usize>,
    ) -> Result<Vec<String>, String> {
        let mut lines = part(bytes, &self.items).split(|byte| *byte == b'\n');
        let mut next = 0;
        let mut items = Vec::new();
        for row in rows {
            let line = lines.nth(row - next).ok_or_else(|| format!("no item {row}"))?;
            next = row + 1;
            let item = serde_json::from_slice(line);
            items.push(item.map_err(|error| format!("item {row}: expected a JSON string: {error}"))?);
        }
        Ok(items)
    }
}

/// The bytes of a tensor, whose range was checked when the file was opened.
fn part<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    bytes.get(range.clone()).unwrap_or_default()
}

/// The best `top`, in no particular order.
fn best_of(mut scored: Vec<Scored>, top: usize) -> Vec<Scored> {
    if top == 0 {
        scored.clear();
    } else if scored.len() > top {
        scored.select_nth_unstable_by(top - 1, Scored::order);
        scored.truncate(top);
    }
    scored
}
