//! Opens a file of vectors and finds the nearest items. The file is memory-mapped, and nothing in it is trusted.

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod table;

use std::path::Path;

use model_files::source::FileData;
use safetensors::SafeTensors;

use self::table::{NO_INDEX, Scored, VectorTable};
use crate::error::{Error, Result};
use crate::item::{IndexInfo, ItemKind};
use crate::output::safetensors::INFO_KEY;
use crate::vector::unit_vector;

/// A search result.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Whether it is a text or an image.
    pub kind: ItemKind,
    /// Its row among the items of its kind, for [`Index::item`].
    pub row: usize,
    /// The text, or the image's name.
    pub item: String,
    /// The cosine with the query, at most 1.
    pub score: f32,
}

/// What to search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// The most items to return.
    pub top: usize,
    /// Whether to search texts.
    pub texts: bool,
    /// Whether to search images.
    pub images: bool,
}

/// Ten items, texts and images.
impl Default for SearchOptions {
    fn default() -> Self {
        Self { top: 10, texts: true, images: true }
    }
}

impl SearchOptions {
    fn kinds(self) -> impl Iterator<Item = ItemKind> {
        let kinds = [(ItemKind::Text, self.texts), (ItemKind::Image, self.images)];
        kinds.into_iter().filter_map(|(kind, wanted)| wanted.then_some(kind))
    }
}

/// Vectors of texts and images in a `.safetensors` file, as written by a [`Job`](crate::Job).
pub struct Index {
    data: FileData,
    info: Option<IndexInfo>,
    texts: VectorTable,
    images: VectorTable,
}

impl Index {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or was not written by a job.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(FileData::open(path)?)
    }

    fn new(data: FileData) -> Result<Self> {
        let problem = |problem: String| Error::format(data.name(), problem);
        let (header_length, metadata) =
            SafeTensors::read_metadata(&data).map_err(|error| problem(format!("{NO_INDEX}: {error}")))?;
        let info = metadata.metadata().as_ref().and_then(|metadata| metadata.get(INFO_KEY));
        let info = info.and_then(|json| serde_json::from_str(json).ok());
        let start = size_of::<u64>() + header_length;
        let [texts, images] = VectorTable::read_all(&data, &metadata, start).map_err(problem)?;
        Ok(Self { data, info, texts, images })
    }

    /// How the vectors were made. Files of other programs need not say.
    pub fn info(&self) -> Option<&IndexInfo> {
        self.info.as_ref()
    }

    /// The dimension of the vectors.
    pub fn width(&self) -> usize {
        self.texts.width
    }

    /// The number of items of a kind.
    pub fn len(&self, kind: ItemKind) -> usize {
        self.table(kind).rows
    }

    /// Whether there are no items at all.
    pub fn is_empty(&self) -> bool {
        self.len(ItemKind::Text) + self.len(ItemKind::Image) == 0
    }

    /// The items with the greatest cosines with `query`, a vector of any length, in descending order. For ties, texts
    /// precede images, and then the order of the file counts. Zero vectors are never found.
    ///
    /// Cosines between texts, between images, and between both are of different magnitudes.
    ///
    /// # Errors
    /// [`Error::Input`] if the query has another dimension, [`Error::NotFinite`] if it is zero or not finite, and
    /// [`Error::Format`] if an item is damaged.
    pub fn search(&self, query: &[f32], options: SearchOptions) -> Result<Vec<Hit>> {
        if query.len() != self.width() {
            return Err(Error::Input(format!(
                "{}: vectors of {} numbers, and those of the model have {}; search with the model that the file was made with",
                self.data.name(),
                self.width(),
                query.len()
            )));
        }
        let query = unit_vector(query);
        if !query.iter().all(|number| number.is_finite()) {
            return Err(Error::NotFinite { item: "what is looked for".to_owned() });
        }
        let mut best: Vec<(ItemKind, Scored)> = Vec::new();
        for kind in options.kinds() {
            let found = self.table(kind).search(&self.data, &query, options.top);
            best.extend(found.into_iter().map(|scored| (kind, scored)));
        }
        // A stable sort, so that texts stay before images.
        best.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
        best.truncate(options.top);
        let hit = |(kind, scored): &(ItemKind, Scored)| Hit {
            kind: *kind,
            row: scored.row,
            item: String::new(),
            score: scored.score,
        };
        let mut hits: Vec<Hit> = best.iter().map(hit).collect();
        // Items are stored one after the other, so they are looked up in the file's order.
        for kind in [ItemKind::Text, ItemKind::Image] {
            let mut wanted: Vec<(usize, usize)> = (best.iter().enumerate())
                .filter(|(_, (found, _))| *found == kind)
                .map(|(place, (_, scored))| (scored.row, place))
                .collect();
            wanted.sort_unstable();
            let items = self.table(kind).items_at(&self.data, wanted.iter().map(|(row, _)| *row));
            let items = items.map_err(|problem| Error::format(self.data.name(), problem))?;
            for ((_, place), item) in wanted.into_iter().zip(items) {
                if let Some(hit) = hits.get_mut(place) {
                    hit.item = item;
                }
            }
        }
        Ok(hits)
    }

    /// The text, or the image's name, in a row of its kind.
    ///
    /// # Errors
    /// [`Error::Format`] if there is no such row, or it is damaged.
    pub fn item(&self, kind: ItemKind, row: usize) -> Result<String> {
        let items = self.table(kind).items_at(&self.data, std::iter::once(row));
        let item = items.map(|mut items| items.pop());
        let problem = |problem: String| Error::format(self.data.name(), problem);
        item.map_err(problem)?.ok_or_else(|| problem(format!("no item {row}")))
    }

    /// The items of a kind with their vectors, in the order of the file.
    pub(crate) fn rows(&self, kind: ItemKind) -> impl Iterator<Item = Result<(String, Vec<f32>)>> {
        let rows = self.table(kind).rows_of(&self.data);
        rows.map(|row| row.map_err(|problem| Error::format(self.data.name(), problem)))
    }

    fn table(&self, kind: ItemKind) -> &VectorTable {
        match kind {
            ItemKind::Text => &self.texts,
            ItemKind::Image => &self.images,
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { data, info, texts, images } = self;
        write!(f, "Index({}, {info:?}, {} texts, {} images)", data.name(), texts.rows, images.rows)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::serialize;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use test_support::TestResult;

    /// A file with these two-dimensional vectors and these items.
    fn file(vectors: &[[f32; 2]], items: &str) -> TestResult<Vec<u8>> {
        let bytes: Vec<u8> = vectors.as_flattened().iter().flat_map(|number| number.to_le_bytes()).collect();
        let tensors = HashMap::from([
            ("text_embeds", TensorView::new(Dtype::F32, vec![vectors.len(), 2], &bytes)?),
            ("image_embeds", TensorView::new(Dtype::F32, vec![0, 2], &[])?),
            ("texts", TensorView::new(Dtype::U8, vec![items.len()], items.as_bytes())?),
            ("images", TensorView::new(Dtype::U8, vec![0], &[])?),
        ]);
        Ok(serialize(tensors, None)?)
    }

    fn index(bytes: Vec<u8>) -> Result<Index> {
        Index::new(FileData::owned("a.safetensors", bytes))
    }

    fn message(bytes: Vec<u8>) -> String {
        index(bytes).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_greatest_cosines_come_first_and_equals_in_order() -> TestResult {
        let vectors = [[0., 2.], [3., 3.], [5., 0.], [0., 0.], [f32::NAN, 1.], [1., 0.], [-1., 0.]];
        let items: String = (0..vectors.len()).map(|row| format!("\"{row}\"\n")).collect();
        let index = index(file(&vectors, &items)?)?;
        let found = |top| -> TestResult<Vec<(String, f32)>> {
            let hits = index.search(&[1., 0.], SearchOptions { top, ..SearchOptions::default() })?;
            Ok(hits.into_iter().map(|hit| (hit.item, hit.score)).collect())
        };
        let half = 0.5_f32.sqrt();
        let expected = [("2", 1.), ("5", 1.), ("1", half), ("0", 0.), ("3", 0.), ("6", -1.)];
        let expected = expected.map(|(item, score)| (item.to_owned(), score));
        for top in 0..=9 {
            assert_eq!(found(top)?, expected[..top.min(expected.len())], "{top}");
        }
        let images = SearchOptions { texts: false, ..SearchOptions::default() };
        assert!(index.search(&[1., 0.], images)?.is_empty());
        Ok(())
    }

    #[test]
    fn many_rows_are_ranked_as_sorting_does() -> TestResult {
        let angle = |row: usize| (row * 7919 % 5000) as f32 / 5000.;
        let vectors: Vec<[f32; 2]> = (0..5000).map(|row| [angle(row).cos(), angle(row).sin()]).collect();
        let items: String = (0..5000).map(|row| format!("\"{row}\"\n")).collect();
        let index = index(file(&vectors, &items)?)?;
        let hits = index.search(&[1., 0.], SearchOptions { top: 100, images: false, texts: true })?;
        let mut scored: Vec<(usize, f32)> = (0..5000).map(|row| (row, angle(row).cos())).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(hits.len(), 100);
        for (hit, (row, score)) in hits.iter().zip(scored) {
            assert!((hit.score - score).abs() < 1e-6, "{row}: {hit:?}");
        }
        Ok(())
    }

    #[test]
    fn queries_of_any_length_are_the_same_and_others_are_refused() -> TestResult {
        let index = index(file(&[[3., 4.], [1., 0.]], "\"a\"\n\"b\"\n")?)?;
        let search = |query: &[f32]| index.search(query, SearchOptions::default());
        assert_eq!(search(&[0., 7.])?, search(&[0., 1.])?);
        assert!(matches!(search(&[0., 0.]), Err(Error::NotFinite { .. })));
        assert!(matches!(search(&[f32::INFINITY, 0.]), Err(Error::NotFinite { .. })));
        assert!(matches!(search(&[1.]), Err(Error::Input(_))));
        Ok(())
    }

    #[test]
    fn what_is_no_such_file_is_refused() -> TestResult {
        let vectors = [[1., 0.], [0., 1.]];
        let good = file(&vectors, "\"a\"\n\"b\"\n")?;
        assert_eq!(message(good.clone()), "");
        for length in [0, 7, 8, 100, good.len() - 1] {
            assert!(message(good[..length].to_vec()).contains("expected a .safetensors file"), "{length}");
        }
        let mut long_header = good;
        long_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(message(long_header).contains("expected a .safetensors file"));
        let found = message(file(&vectors, "\"a\"\n")?);
        assert!(found.ends_with("expected a line for each of 2 vectors, found 1"), "{found}");
        let other = serialize([("x", TensorView::new(Dtype::U8, vec![0], &[])?)], None)?;
        assert!(message(other).contains("no tensor text_embeds"));
        let damaged = index(file(&vectors, "\"a\"\n7\n")?)?;
        let found = damaged.search(&[0., 1.], SearchOptions { top: 1, ..SearchOptions::default() });
        assert!(found.is_err_and(|error| error.to_string().contains("item 1: expected a JSON string")));
        Ok(())
    }
}
