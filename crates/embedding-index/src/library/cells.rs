//! Sorts vectors into cells of similar ones, so that a search need not read them all.
//!
//! Cells are made by spherical k-means (an inverted file). They live in the database: a vector is in one cell at any time,
//! wherever a process is killed, and vectors that are not in a cell of their own are in cell 0, which is always read.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use fused_ops::{RowNumbers, dot_products};
use rusqlite::{Connection, params};

use super::MadeWith;
use super::problem::at;
use super::rows::{content_at, place, places};
use crate::error::Result;
use crate::vector::unit_vector;

/// The cell of vectors that are not sorted.
pub(super) const UNSORTED: i64 = 0;
/// Fewer vectors are read in an instant.
const FEWEST_VECTORS: usize = 100_000;
/// Cells are made anew when there are this many times as many vectors.
const GROWTH: usize = 4;
/// Vectors per cell to learn from.
const SAMPLES_PER_CELL: usize = 40;
const ROUNDS: usize = 8;
/// Vectors that are moved in a transaction.
const MOVED_AT_A_TIME: usize = 8192;

/// The centers of the cells.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    ids: Vec<i64>,
    /// A unit vector each, f32.
    centers: Vec<u8>,
}

impl Cells {
    pub(super) fn read(connection: &Connection, made_with: &MadeWith) -> rusqlite::Result<Self> {
        let bytes = made_with.width * RowNumbers::F32.bytes();
        let mut cells = Self { ids: Vec::new(), centers: Vec::new() };
        let mut statement = connection.prepare("SELECT id, center FROM cells ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let center = row.get_ref(1)?.as_blob()?;
            // A damaged center means that its cell is searched late.
            let center = if center.len() == bytes { center } else { &vec![0; bytes] };
            cells.ids.push(row.get(0)?);
            cells.centers.extend_from_slice(center);
        }
        Ok(cells)
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Each cell with its center.
    pub(super) fn with_centers(&self) -> impl Iterator<Item = (i64, Vec<f32>)> {
        let (numbers, _) = self.centers.as_chunks::<4>();
        let width = numbers.len() / self.ids.len().max(1);
        let centers = numbers.chunks_exact(width.max(1));
        let center = |bytes: &[[u8; 4]]| bytes.iter().map(|x| f32::from_le_bytes(*x)).collect();
        self.ids.iter().copied().zip(centers.map(center))
    }

    /// The cell of a vector.
    pub(super) fn nearest(&self, vector: &[f32]) -> i64 {
        let products = self.products(vector);
        let nearest = (self.ids.iter().zip(products)).max_by(|a, b| a.1.total_cmp(&b.1));
        nearest.map_or(UNSORTED, |(id, _)| *id)
    }

    /// All cells, those nearest to a vector first.
    pub(super) fn ranked(&self, vector: &[f32]) -> Vec<i64> {
        let products = self.products(vector);
        let mut ranked: Vec<(i64, f32)> = self.ids.iter().copied().zip(products).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.into_iter().map(|(id, _)| id).collect()
    }

    fn products(&self, vector: &[f32]) -> Vec<f32> {
        let mut products = vec![0.; self.ids.len()];
        dot_products(vector, &self.centers, RowNumbers::F32, &mut products);
        products
    }
}

/// Makes cells if there are enough vectors, and many more than when they were made.
///
/// While vectors move, old and new cells exist side by side, and searches find every vector in one of them.
pub(super) fn sort_if_due(connection: &Connection, made_with: &MadeWith, file: &Path) -> Result<()> {
    sort(connection, made_with).map_err(|error| match error {
        SortError::Database(error) => at(file)(error),
        SortError::Computing(error) => altclip_encoder::Error::from(error).into(),
    })
}

fn sort(connection: &Connection, made_with: &MadeWith) -> Result<(), SortError> {
    let count: usize = connection.query_row("SELECT count(*) FROM contents", [], |row| row.get(0))?;
    let sorted: usize = connection.query_row("SELECT sorted FROM model", [], |row| row.get(0))?;
    if count < FEWEST_VECTORS || count < GROWTH.saturating_mul(sorted) {
        return Ok(());
    }
    tracing::info!("sorting {count} vectors into cells");
    let cells = count.isqrt().max(1);
    let sample = sample(connection, made_with, count, cells * SAMPLES_PER_CELL)?;
    let centers = centers(&sample, made_with.width, cells)?;

    let transaction = connection.unchecked_transaction()?;
    let last_old: i64 =
        transaction.query_row("SELECT coalesce(max(id), 0) FROM cells", [], |row| row.get(0))?;
    for (id, center) in (last_old + 1..).zip(centers.chunks_exact(made_with.width)) {
        let bytes: Vec<u8> = center.iter().flat_map(|x| x.to_le_bytes()).collect();
        transaction.execute("INSERT INTO cells (id, center) VALUES (?1, ?2)", params![id, bytes])?;
    }
    transaction.commit()?;
    move_all(connection, made_with, last_old, &centers)?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute("DELETE FROM cells WHERE id <= ?1", [last_old])?;
    transaction.execute("UPDATE model SET sorted = ?1", [count])?;
    Ok(transaction.commit()?)
}

enum SortError {
    Database(rusqlite::Error),
    Computing(candle_core::Error),
}

impl From<rusqlite::Error> for SortError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<candle_core::Error> for SortError {
    fn from(error: candle_core::Error) -> Self {
        Self::Computing(error)
    }
}

/// Moves all vectors of cells up to `last_old` to those after it.
fn move_all(
    connection: &Connection,
    made_with: &MadeWith,
    last_old: i64,
    centers: &[f32],
) -> Result<(), SortError> {
    let width = made_with.width;
    let count = centers.len() / width;
    let centers = Tensor::from_slice(centers, (count, width), &Device::Cpu)?.t()?;
    loop {
        let transaction = connection.unchecked_transaction()?;
        let mut statement =
            transaction.prepare_cached("SELECT place, vector FROM vectors WHERE place <= ?1 LIMIT ?2")?;
        let mut rows = statement.query(params![places(last_old).1, MOVED_AT_A_TIME])?;
        let (mut old_places, mut vectors) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            old_places.push(row.get::<_, i64>(0)?);
            let mut vector = made_with.precision.numbers_of(row.get_ref(1)?.as_blob().unwrap_or_default());
            vector.resize(width, 0.);
            vectors.extend(vector);
        }
        drop(rows);
        drop(statement);
        if old_places.is_empty() {
            return Ok(());
        }
        let vectors = Tensor::from_vec(vectors, (old_places.len(), width), &Device::Cpu)?;
        let nearest: Vec<u32> = vectors.matmul(&centers)?.argmax(1)?.to_vec1()?;
        let mut move_vector = transaction.prepare_cached("UPDATE vectors SET place = ?2 WHERE place = ?1")?;
        let mut move_content = transaction.prepare_cached("UPDATE contents SET cell = ?2 WHERE id = ?1")?;
        for (old, nearest) in old_places.into_iter().zip(nearest) {
            let (content, cell) = (content_at(old), last_old + 1 + i64::from(nearest));
            move_vector.execute([old, place(cell, content)])?;
            move_content.execute([content, cell])?;
        }
        drop((move_vector, move_content));
        transaction.commit()?;
    }
}

/// About `wanted` of the vectors, evenly spread over all that were ever added.
pub(super) fn sample(
    connection: &Connection,
    made_with: &MadeWith,
    count: usize,
    wanted: usize,
) -> rusqlite::Result<Vec<f32>> {
    let last: i64 =
        connection.query_row("SELECT coalesce(max(id), 0) FROM contents", [], |row| row.get(0))?;
    let step = usize::try_from(last).unwrap_or(count).div_ceil(wanted.max(1)).max(1);
    let mut find = connection.prepare(
        "SELECT vector FROM vectors WHERE place = (SELECT cell * (1 << 40) + id FROM contents WHERE id = ?1)",
    )?;
    let mut sample = Vec::with_capacity(wanted * made_with.width);
    for id in (1..=last).step_by(step) {
        let mut rows = find.query([id])?;
        if let Some(row) = rows.next()? {
            let vector = made_with.precision.numbers_of(row.get_ref(0)?.as_blob().unwrap_or_default());
            if vector.len() == made_with.width {
                sample.extend(vector);
            }
        }
    }
    Ok(sample)
}

/// The centers of `count` cells, unit vectors one after the other, learned from a sample.
fn centers(sample: &[f32], width: usize, count: usize) -> candle_core::Result<Vec<f32>> {
    let rows = sample.len() / width;
    let count = count.min(rows);
    let vectors = Tensor::from_slice(sample, (rows, width), &Device::Cpu)?;
    let row = |row: usize| -> Range<usize> { row * width..(row + 1) * width };
    let spread = (0..count).map(|center| center * rows / count.max(1));
    let mut centers: Vec<f32> = spread.flat_map(|at| sample[row(at)].to_vec()).collect();
    for _ in 0..ROUNDS {
        let now = Tensor::from_slice(&centers, (count, width), &Device::Cpu)?.t()?;
        let mut sums = vec![0_f32; centers.len()];
        // A few rows at a time: a product has a number for each pair of row and center.
        for first in (0..rows).step_by(MOVED_AT_A_TIME) {
            let part = vectors.narrow(0, first, MOVED_AT_A_TIME.min(rows - first))?;
            let nearest: Vec<u32> = part.matmul(&now)?.to_dtype(DType::F32)?.argmax(1)?.to_vec1()?;
            for (at, nearest) in (first..).zip(nearest) {
                let sum = &mut sums[row(nearest as usize)];
                sum.iter_mut().zip(&sample[row(at)]).for_each(|(sum, x)| *sum += x);
            }
        }
        for (center, sum) in centers.chunks_exact_mut(width).zip(sums.chunks_exact(width)) {
            let unit = unit_vector(sum);
            // A cell that no vector is nearest to keeps its center.
            if unit.iter().all(|x| x.is_finite()) {
                center.copy_from_slice(&unit);
            }
        }
    }
    Ok(centers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    #[test]
    fn centers_are_those_of_the_groups() -> TestResult {
        let groups = [[1., 0.], [0., 1.], [-0.6, -0.8]];
        let sample: Vec<f32> = (0..300)
            .flat_map(|i| {
                let [x, y] = groups[i % 3];
                let shift = (i as f32 * 0.7).sin() * 0.05;
                unit_vector(&[x + shift, y - shift])
            })
            .collect();
        let found = centers(&sample, 2, 3)?;
        for group in groups {
            let nearest = found.chunks_exact(2).map(|c| c[0] * group[0] + c[1] * group[1]);
            assert!(nearest.fold(f32::MIN, f32::max) > 0.99, "{found:?}");
        }
        Ok(())
    }
}
