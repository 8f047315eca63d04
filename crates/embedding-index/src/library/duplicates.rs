//! Groups images that look alike.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::cells::{Cells, UNSORTED};
use super::problem::{at, problem_at};
use super::rows::{content_at, places};
use super::search::LibraryImage;
use super::{ImageLibrary, LibraryHit};
use crate::error::{DatabaseProblem, Error, Result};

/// Pairs that are compared at a time.
const PAIRS: usize = 1 << 24;
/// Cells that a cell is compared with, besides itself.
const NEIGHBOURS: usize = 8;

/// What counts as alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DuplicateOptions {
    /// The least cosine of two images that are put into one group.
    pub threshold: f32,
    /// Whether to compare every image with every other. Otherwise, in large libraries, only those in similar cells.
    pub exact: bool,
}

impl Default for DuplicateOptions {
    fn default() -> Self {
        Self { threshold: 0.98, exact: false }
    }
}

/// Contents and their vectors, f32.
#[derive(Default)]
struct Part {
    contents: Vec<i64>,
    vectors: Vec<f32>,
}

impl ImageLibrary {
    /// Groups of at least two images whose cosine is at least the threshold, the largest groups first. Each image is with
    /// its cosine to the first of its group. An image in a group is alike to one other in it, not to all. Files with the
    /// same content are one image with copies, and a group if there are any.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn duplicates(&self, options: DuplicateOptions) -> Result<Vec<Vec<LibraryHit>>> {
        let cells = Cells::read(&self.connection, &self.made_with).map_err(at(&self.file))?;
        let mut groups = Groups::default();
        if options.exact || cells.len() <= NEIGHBOURS {
            let all = self.part(i64::MIN, i64::MAX)?;
            compare(&all, &all, self.made_with.width, options.threshold, &mut groups)?;
        } else {
            self.compare_cells(&cells, options.threshold, &mut groups)?;
        }
        self.with_images(groups)
    }

    /// Compares each cell with itself and its nearest ones.
    fn compare_cells(&self, cells: &Cells, threshold: f32, groups: &mut Groups) -> Result<()> {
        let read = |cell: i64| -> Result<Part> {
            let (first, last) = places(cell);
            self.part(first, last)
        };
        let unsorted = read(UNSORTED)?;
        for (cell, center) in cells.with_centers() {
            let part = read(cell)?;
            compare(&part, &part, self.made_with.width, threshold, groups)?;
            compare(&part, &unsorted, self.made_with.width, threshold, groups)?;
            for other in cells.ranked(&center).into_iter().filter(|other| *other != cell).take(NEIGHBOURS) {
                compare(&part, &read(other)?, self.made_with.width, threshold, groups)?;
            }
        }
        compare(&unsorted, &unsorted, self.made_with.width, threshold, groups)
    }

    /// The vectors between two places.
    fn part(&self, first: i64, last: i64) -> Result<Part> {
        let bytes = self.made_with.vector_bytes();
        let read = || -> rusqlite::Result<Option<Part>> {
            let mut part = Part::default();
            let mut statement = self
                .connection
                .prepare_cached("SELECT place, vector FROM vectors WHERE place BETWEEN ?1 AND ?2")?;
            let mut rows = statement.query([first, last])?;
            while let Some(row) = rows.next()? {
                let vector = row.get_ref(1)?.as_blob()?;
                if vector.len() != bytes {
                    return Ok(None);
                }
                part.contents.push(content_at(row.get(0)?));
                part.vectors.extend(self.made_with.precision.numbers_of(vector));
            }
            Ok(Some(part))
        };
        read().map_err(at(&self.file))?.ok_or_else(|| {
            problem_at(&self.file, DatabaseProblem::Damaged("a vector of another length".to_owned()))
        })
    }

    fn with_images(&self, mut groups: Groups) -> Result<Vec<Vec<LibraryHit>>> {
        let mut by_first: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let contents: Vec<i64> = groups.parents.keys().copied().collect();
        for content in contents {
            by_first.entry(groups.first(content)).or_default().push(content);
        }
        for content in self.copied().map_err(at(&self.file))? {
            by_first.entry(groups.first(content)).or_insert_with(|| vec![content]);
        }
        let mut found = Vec::new();
        for mut contents in by_first.into_values() {
            contents.sort_unstable();
            let images: Vec<(i64, LibraryImage)> = contents
                .iter()
                .zip(self.images_of(&contents)?)
                .filter_map(|(content, image)| Some((*content, image?)))
                .collect();
            let files: usize = images.iter().map(|(_, image)| image.copies).sum();
            let Some((first, _)) = images.first().filter(|_| files > 1) else { continue };
            let first = self.vector_of(*first)?;
            let group = images.into_iter().map(|(content, image)| {
                let vector = self.vector_of(content)?;
                let score = first.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>().min(1.);
                Ok(LibraryHit { image, score })
            });
            found.push(group.collect::<Result<Vec<_>>>()?);
        }
        found.sort_by_key(|group| std::cmp::Reverse(group.iter().map(|hit| hit.image.copies).sum::<usize>()));
        Ok(found)
    }

    /// Contents that several files have.
    fn copied(&self) -> rusqlite::Result<Vec<i64>> {
        let mut statement = self.connection.prepare(
            "SELECT content FROM files WHERE content IS NOT NULL GROUP BY content HAVING count(*) > 1",
        )?;
        statement.query_map([], |row| row.get(0))?.collect()
    }

    fn vector_of(&self, content: i64) -> Result<Vec<f32>> {
        let query = "SELECT vector FROM vectors WHERE place = (SELECT cell * (1 << 40) + id FROM contents WHERE id = ?1)";
        let read = || -> rusqlite::Result<Vec<u8>> {
            self.connection.prepare_cached(query)?.query_row([content], |row| row.get(0))
        };
        Ok(self.made_with.precision.numbers_of(&read().map_err(at(&self.file))?))
    }
}

/// Joins the groups of contents whose vectors are alike.
fn compare(a: &Part, b: &Part, width: usize, threshold: f32, groups: &mut Groups) -> Result<()> {
    let failed = |error: candle_core::Error| Error::from(altclip_encoder::Error::from(error));
    let tensor = |part: &Part| Tensor::from_slice(&part.vectors, (part.contents.len(), width), &Device::Cpu);
    if a.contents.is_empty() || b.contents.is_empty() {
        return Ok(());
    }
    let (left, right) = (tensor(a).map_err(failed)?, tensor(b).and_then(|b| b.t()).map_err(failed)?);
    let is_same = std::ptr::eq(a, b);
    let block = (PAIRS / b.contents.len()).max(1);
    for first in (0..a.contents.len()).step_by(block) {
        let count = block.min(a.contents.len() - first);
        // Of two vectors in one part, the later one is compared with the earlier.
        let start = if is_same { first } else { 0 };
        let cosines = left
            .narrow(0, first, count)
            .and_then(|rows| {
                right.narrow(1, start, b.contents.len() - start).and_then(|right| rows.matmul(&right))
            })
            .and_then(|cosines| cosines.flatten_all()?.to_vec1::<f32>())
            .map_err(failed)?;
        let columns = b.contents.len() - start;
        let pairs: Vec<(i64, i64)> = cosines
            .par_chunks(columns)
            .enumerate()
            .flat_map_iter(|(row, cosines)| {
                let skipped = if is_same { row + 1 } else { 0 };
                let alike = (skipped..columns).filter(move |column| cosines.get(*column) >= Some(&threshold));
                alike.filter_map(move |column| {
                    Some((*a.contents.get(first + row)?, *b.contents.get(start + column)?))
                })
            })
            .collect();
        pairs.into_iter().for_each(|(one, other)| groups.join(one, other));
    }
    Ok(())
}

/// Which contents are in one group: each points to another of its group, or to itself.
#[derive(Debug, Default)]
struct Groups {
    parents: HashMap<i64, i64>,
}

impl Groups {
    /// The content that stands for the group of this one.
    fn first(&mut self, content: i64) -> i64 {
        let mut at = content;
        while let Some(parent) = self.parents.get(&at).copied().filter(|parent| *parent != at) {
            at = parent;
        }
        // Shortens the way for the next time.
        if at != content {
            self.parents.insert(content, at);
        }
        at
    }

    fn join(&mut self, one: i64, other: i64) {
        let (one_first, other_first) = (self.first(one), self.first(other));
        let first = one_first.min(other_first);
        for content in [one, other, one_first, other_first] {
            self.parents.insert(content, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_one_group() {
        let mut groups = Groups::default();
        for (one, other) in [(5, 4), (9, 8), (4, 3), (8, 5), (20, 21)] {
            groups.join(one, other);
        }
        let firsts: Vec<i64> = [3, 4, 5, 8, 9, 20, 21, 7].map(|content| groups.first(content)).to_vec();
        assert_eq!(firsts, [3, 3, 3, 3, 3, 20, 20, 7]);
    }
}
