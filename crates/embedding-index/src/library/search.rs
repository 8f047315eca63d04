//! Finds the images of a library that are nearest to a vector.

use std::cmp::Ordering;
use std::collections::HashSet;

use fused_ops::dot_products;
use rayon::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::cells::{Cells, UNSORTED};
use super::filter::{DATE, LibraryFilter};
use super::problem::{at, problem_at};
use super::rows::{content_at, place, places};
use super::schema::{self, Access};
use super::{ImageLibrary, MadeWith};
use crate::error::{DatabaseProblem, Result};

/// An approximate search reads one in so many cells, and at least so many. Texts are far from all images, so that their
/// nearest ones are spread over more cells than those of an image.
const READ_ONE_IN: usize = 4;
const FEWEST_READ: usize = 16;
/// So few images are looked up one by one.
const FEW: usize = 2000;
/// Contents that a thread reads at a time, where they are not sorted.
const BLOCK: i64 = 1 << 14;
const MOST_BLOCKS: i64 = 1 << 12;
/// Spare results, for contents whose files were dropped and not yet cleaned up.
const SPARE: usize = 32;

/// How to search a library.
#[derive(Debug, Clone, PartialEq)]
pub struct LibrarySearch {
    /// The most images to return.
    pub top: usize,
    /// Whether to compare with every vector. Otherwise, in large libraries, only the most promising cells are read.
    pub exact: bool,
    /// What images must be like.
    pub filter: LibraryFilter,
}

/// The best ten.
impl Default for LibrarySearch {
    fn default() -> Self {
        Self { top: 10, exact: false, filter: LibraryFilter::default() }
    }
}

/// An image of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LibraryImage {
    /// The number of its content, as long as a file has it.
    pub id: i64,
    /// The file, the first by name if there are copies.
    pub path: String,
    /// The number of files with this content.
    pub copies: usize,
    /// In pixels, upright.
    pub width: u32,
    /// In pixels, upright.
    pub height: u32,
    /// When it was taken, or when the file was modified: `YYYY-MM-DD HH:MM:SS`.
    pub date: Option<String>,
    /// The text beside the file, or the description inside it.
    pub caption: Option<String>,
}

/// A search result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LibraryHit {
    /// The image.
    pub image: LibraryImage,
    /// The cosine with the query, at most 1.
    pub score: f32,
}

/// A content and its cosine.
#[derive(Debug, Clone, Copy)]
struct Scored {
    content: i64,
    score: f32,
}

impl Scored {
    /// Higher scores first, then what was added first.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.content.cmp(&other.content))
    }
}

impl ImageLibrary {
    /// The images with the greatest cosines with `query`, a vector of any length, in descending order. Copies of the same
    /// content count as one.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if the query has another dimension,
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it is zero or not finite, and
    /// [`Error::Database`](crate::Error::Database) if the database is damaged.
    pub fn search(&self, query: &[f32], search: &LibrarySearch) -> Result<Vec<LibraryHit>> {
        let at = at(&self.file);
        let query = self.checked(query)?;
        let allowed = match search.filter.is_empty() {
            true => None,
            false => Some(self.allowed(&search.filter).map_err(&at)?),
        };
        let keep = search.top.saturating_add(SPARE);
        let ranges = self.ranges(&query, search.exact, allowed.as_ref()).map_err(&at)?;
        let mut best = self.best(&query, &ranges, allowed.as_ref(), keep)?;
        prune(&mut best, keep);
        best.sort_unstable_by(Scored::order);

        let mut lookup = Lookup::new(&self.connection, &search.filter).map_err(&at)?;
        let mut hits = Vec::with_capacity(search.top.min(best.len()));
        for Scored { content, score } in best {
            if hits.len() == search.top {
                break;
            }
            if let Some(image) = lookup.image(content).map_err(&at)? {
                hits.push(LibraryHit { image, score });
            }
        }
        Ok(hits)
    }

    /// The contents that fit a filter.
    fn allowed(&self, filter: &LibraryFilter) -> rusqlite::Result<HashSet<i64>> {
        let (conditions, values) = filter.sql();
        let mut statement = self.connection.prepare(&format!(
            "SELECT files.content FROM files JOIN contents ON contents.id = files.content WHERE TRUE{conditions}"
        ))?;
        statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?.collect()
    }

    /// The places to read.
    fn ranges(
        &self,
        query: &[f32],
        exact: bool,
        allowed: Option<&HashSet<i64>>,
    ) -> rusqlite::Result<Vec<(i64, i64)>> {
        if let Some(allowed) = allowed.filter(|allowed| allowed.len() <= FEW) {
            let mut cell = self.connection.prepare("SELECT cell FROM contents WHERE id = ?1")?;
            let places = allowed.iter().map(|content| {
                let place = place(cell.query_row([content], |row| row.get(0))?, *content);
                Ok((place, place))
            });
            return places.collect();
        }
        let cells = Cells::read(&self.connection, &self.made_with)?;
        let total: i64 =
            self.connection.query_row("SELECT coalesce(max(id), 0) FROM contents", [], |row| row.get(0))?;
        let mut read = cells.ranked(query);
        if !exact {
            let wanted = (cells.len() / READ_ONE_IN).max(FEWEST_READ);
            // The fewer fit a filter, the more cells have as many of them.
            let rarity = allowed
                .map_or(1, |allowed| usize::try_from(total).unwrap_or(usize::MAX) / allowed.len().max(1) + 1);
            read.truncate(wanted.saturating_mul(rarity));
        }
        let (first, last) = places(UNSORTED);
        // In a damaged database, numbers may be huge.
        let block = BLOCK.max(total / MOST_BLOCKS);
        let starts =
            (first..=(first + total).min(last)).step_by(usize::try_from(block).unwrap_or(usize::MAX));
        let unsorted = starts.map(|start| (start, (start + block - 1).min(last)));
        Ok(read.into_iter().map(places).chain(unsorted).collect())
    }

    /// The best contents at these places, in no order, and possibly more than `keep`.
    fn best(
        &self,
        query: &[f32],
        ranges: &[(i64, i64)],
        allowed: Option<&HashSet<i64>>,
        keep: usize,
    ) -> Result<Vec<Scored>> {
        // A connection is for one thread.
        let (file, made_with) = (&self.file, &self.made_with);
        let scan = |connection: &Connection, ranges: &[(i64, i64)]| {
            scan(connection, made_with, query, ranges, allowed, keep).map_err(|problem| match problem {
                ScanProblem::Length(problem) => problem_at(file, DatabaseProblem::Damaged(problem)),
                ScanProblem::Database(error) => at(file)(error),
            })
        };
        let tasks = rayon::current_num_threads();
        if ranges.len() < 2 * tasks {
            return scan(&self.connection, ranges);
        }
        let parts = ranges.par_chunks(ranges.len().div_ceil(tasks)).map(|ranges| {
            let connection = schema::open(file, Access::Read)?;
            scan(&connection, ranges)
        });
        parts.try_reduce(Vec::new, |mut some, others| {
            some.extend(others);
            Ok(some)
        })
    }

    /// The image with this number, if there is one.
    ///
    /// # Errors
    /// If the database is damaged.
    pub fn image(&self, id: i64) -> Result<Option<LibraryImage>> {
        Ok(self.images_of(&[id])?.pop().flatten())
    }

    /// An image of each of these contents, if there is one.
    pub(super) fn images_of(&self, contents: &[i64]) -> Result<Vec<Option<LibraryImage>>> {
        let filter = LibraryFilter::default();
        let mut lookup = Lookup::new(&self.connection, &filter).map_err(at(&self.file))?;
        contents.iter().map(|content| lookup.image(*content).map_err(at(&self.file))).collect()
    }
}

enum ScanProblem {
    /// A vector has another length than all should have.
    Length(String),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for ScanProblem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

fn scan(
    connection: &Connection,
    made_with: &MadeWith,
    query: &[f32],
    ranges: &[(i64, i64)],
    allowed: Option<&HashSet<i64>>,
    keep: usize,
) -> std::result::Result<Vec<Scored>, ScanProblem> {
    let (bytes, numbers) = (made_with.vector_bytes(), made_with.precision.numbers());
    let mut statement =
        connection.prepare("SELECT place, vector FROM vectors WHERE place BETWEEN ?1 AND ?2")?;
    let mut best: Vec<Scored> = Vec::new();
    for (first, last) in ranges {
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            let content = content_at(row.get(0)?);
            if allowed.is_some_and(|allowed| !allowed.contains(&content)) {
                continue;
            }
            let vector = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            if vector.len() != bytes {
                let found = vector.len();
                return Err(ScanProblem::Length(format!("a vector of {found} bytes, expected {bytes}")));
            }
            let mut score = [0.];
            dot_products(query, vector, numbers, &mut score);
            best.push(Scored { content, score: score[0] });
            if best.len() >= keep.saturating_mul(4).max(1024) {
                prune(&mut best, keep);
            }
        }
    }
    Ok(best)
}

/// Keeps the best `keep`, in no particular order.
fn prune(best: &mut Vec<Scored>, keep: usize) {
    if best.len() > keep && keep > 0 {
        best.select_nth_unstable_by(keep - 1, Scored::order);
        best.truncate(keep);
    }
}

/// Looks up what is recorded about images.
struct Lookup<'a> {
    statement: rusqlite::Statement<'a>,
    values: &'a [Value],
}

impl<'a> Lookup<'a> {
    fn new(connection: &'a Connection, filter: &'a LibraryFilter) -> rusqlite::Result<Self> {
        let (conditions, values) = filter.sql();
        let statement = connection.prepare(&format!(
            "SELECT min(files.path), count(*), contents.width, contents.height, {DATE}, \
             coalesce(files.caption, contents.description) \
             FROM files JOIN contents ON contents.id = files.content WHERE files.content = ?{conditions}"
        ))?;
        Ok(Self { statement, values })
    }

    fn image(&mut self, content: i64) -> rusqlite::Result<Option<LibraryImage>> {
        let values = std::iter::once(Value::from(content)).chain(self.values.iter().cloned());
        self.statement.query_row(rusqlite::params_from_iter(values), |row| {
            // Without a file there is still a row, of nothing.
            let Some(path) = row.get(0)? else { return Ok(None) };
            Ok(Some(LibraryImage {
                id: content,
                path,
                copies: row.get(1)?,
                width: row.get(2)?,
                height: row.get(3)?,
                date: row.get(4)?,
                caption: row.get(5)?,
            }))
        })
    }
}
