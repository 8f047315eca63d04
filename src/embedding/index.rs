//! A file of vectors as `altdiffusion embed` writes it, to be searched. It is mapped into memory and believed in nothing.

use std::cmp::Ordering;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model_files::source::FileData;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::format::{ABOUT, About};

/// Rows that are scored one after the other; such blocks are spread over the cores.
const BLOCK: usize = 1024;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Image,
}

/// An item that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub kind: Kind,
    /// The text, or the image's path.
    pub item: String,
    /// The cosine with what was looked for.
    pub score: f32,
}

/// The file.
pub struct Index {
    data: FileData,
}

impl Index {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { data: FileData::open(path)? })
    }

    /// Its tensors.
    ///
    /// # Errors
    /// If they are not as `altdiffusion embed` writes them.
    pub fn read(&self) -> Result<Tables<'_>> {
        self.read_tables().with_context(|| self.data.name().to_owned())
    }

    fn read_tables(&self) -> Result<Tables<'_>> {
        let not_ours = "expected a .safetensors file made by altdiffusion embed";
        let tensors = SafeTensors::deserialize(&self.data).context(not_ours)?;
        let (_, metadata) = SafeTensors::read_metadata(&self.data)?;
        let about = metadata.metadata().as_ref().and_then(|metadata| metadata.get(ABOUT));
        let about = about.and_then(|json| serde_json::from_str(json).ok());
        let tensor =
            |name: &str| tensors.tensor(name).with_context(|| format!("{not_ours}; no tensor {name}"));
        let table = |vectors, items| {
            Table::new(&tensor(vectors)?, &tensor(items)?).with_context(|| format!("{vectors}, {items}"))
        };
        let tables = Tables {
            name: self.data.name().to_owned(),
            about,
            texts: table("text_embeds", "texts")?,
            images: table("image_embeds", "images")?,
        };
        ensure!(
            tables.texts.width == tables.images.width,
            "text_embeds have {} numbers and image_embeds {}, expected the same",
            tables.texts.width,
            tables.images.width
        );
        Ok(tables)
    }
}

/// The vectors and items of texts and of images.
pub struct Tables<'a> {
    name: String,
    pub about: Option<About>,
    texts: Table<'a>,
    images: Table<'a>,
}

impl Tables<'_> {
    /// Numbers of each vector.
    pub fn width(&self) -> usize {
        self.texts.width
    }

    /// How many items of these kinds there are.
    pub fn len(&self, kinds: &[Kind]) -> usize {
        kinds.iter().map(|kind| self.table(*kind).rows).sum()
    }

    /// The `top` items of these kinds that have the greatest cosines with `query`, the greatest first. Of equals, texts
    /// come before images, and then whichever comes first in the file. What has no cosine is not found.
    ///
    /// # Errors
    /// If the query is of another width, or an item is damaged.
    pub fn search(&self, query: &[f32], kinds: &[Kind], top: usize) -> Result<Vec<Hit>> {
        ensure!(
            query.len() == self.width(),
            "{}: vectors of {} numbers, and those of the model have {}; search with the model that the file was made with",
            self.name,
            self.width(),
            query.len()
        );
        let mut best: Vec<(Kind, Scored)> = Vec::new();
        for kind in [Kind::Text, Kind::Image] {
            if kinds.contains(&kind) {
                let found = self.table(kind).search(query, top);
                best.extend(found.into_iter().map(|scored| (kind, scored)));
            }
        }
        // Stable, so that texts stay before images.
        best.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
        best.truncate(top);
        let hit =
            |(kind, scored): &(Kind, Scored)| Hit { kind: *kind, item: String::new(), score: scored.score };
        let mut hits: Vec<Hit> = best.iter().map(hit).collect();
        // The items lie one after the other, so those that are wanted are looked up in the file's order.
        for kind in [Kind::Text, Kind::Image] {
            let mut wanted: Vec<(usize, usize)> = (best.iter().enumerate())
                .filter(|(_, (found, _))| *found == kind)
                .map(|(place, (_, scored))| (scored.row, place))
                .collect();
            wanted.sort_unstable();
            let items = self.table(kind).items_at(wanted.iter().map(|(row, _)| *row));
            let items = items.with_context(|| self.name.clone())?;
            for ((_, place), item) in wanted.into_iter().zip(items) {
                if let Some(hit) = hits.get_mut(place) {
                    hit.item = item;
                }
            }
        }
        Ok(hits)
    }

    fn table(&self, kind: Kind) -> &Table<'_> {
        match kind {
            Kind::Text => &self.texts,
            Kind::Image => &self.images,
        }
    }
}

/// Vectors and what they are of.
struct Table<'a> {
    rows: usize,
    width: usize,
    /// Numbers in little-endian order, f32, row after row.
    vectors: &'a [u8],
    /// A JSON string on each line.
    items: &'a [u8],
}

/// A row and its cosine.
#[derive(Debug, Clone, Copy)]
struct Scored {
    row: usize,
    score: f32,
}

impl Scored {
    /// The greater score first, and of equals the earlier row.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl<'a> Table<'a> {
    fn new(vectors: &TensorView<'a>, items: &TensorView<'a>) -> Result<Self> {
        let &[rows, width] = vectors.shape() else {
            bail!("expected vectors of shape (items, width), found {:?}", vectors.shape());
        };
        ensure!(vectors.dtype() == Dtype::F32, "expected vectors of F32, found {:?}", vectors.dtype());
        ensure!(width > 0, "expected vectors of at least 1 number, found 0");
        ensure!(items.dtype() == Dtype::U8, "expected items as U8, found {:?}", items.dtype());
        let table = Self { rows, width, vectors: vectors.data(), items: items.data() };
        let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let lines: usize = table.items.par_chunks(BLOCK * BLOCK).map(ends).sum();
        ensure!(lines == rows, "expected a line for each of {rows} vectors, found {lines}");
        Ok(table)
    }

    /// The rows with the greatest cosines, the greatest first.
    fn search(&self, query: &[f32], top: usize) -> Vec<Scored> {
        if self.rows == 0 {
            return Vec::new(); // and the width may be any number
        }
        let row_bytes = self.width * size_of::<f32>();
        let blocks = self.vectors.par_chunks(BLOCK * row_bytes).enumerate();
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

    /// The items of these rows, which rise.
    fn items_at(&self, rows: impl Iterator<Item = usize>) -> Result<Vec<String>> {
        let mut lines = self.items.split(|byte| *byte == b'\n');
        let mut next = 0;
        let mut items = Vec::new();
        for row in rows {
            let line = lines.nth(row - next).with_context(|| format!("no item {row}"))?;
            next = row + 1;
            items.push(
                serde_json::from_slice(line)
                    .with_context(|| format!("item {row}: expected a JSON string"))?,
            );
        }
        Ok(items)
    }
}

/// The best `top`, in no order.
fn best_of(mut scored: Vec<Scored>, top: usize) -> Vec<Scored> {
    if top == 0 {
        scored.clear();
    } else if scored.len() > top {
        scored.select_nth_unstable_by(top - 1, Scored::order);
        scored.truncate(top);
    }
    scored
}

/// The cosine of a vector of length 1 and one of any length; 0 with zero.
fn cosine(unit: &[f32], bytes: &[u8]) -> f32 {
    const LANES: usize = 16;
    let (numbers, _) = bytes.as_chunks::<4>();
    let (mut dot, mut square) = ([0_f32; LANES], [0_f32; LANES]);
    // Independent sums, which the compiler turns into wide ones.
    for (unit, numbers) in unit.chunks(LANES).zip(numbers.chunks(LANES)) {
        let sums = dot.iter_mut().zip(&mut square);
        for ((unit, number), (dot, square)) in unit.iter().zip(numbers).zip(sums) {
            let number = f32::from_le_bytes(*number);
            *dot += unit * number;
            *square += number * number;
        }
    }
    let sum = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
    let (dot, square) = (sum(dot), sum(square));
    if square == 0.0 { 0.0 } else { (dot / square.sqrt()) as f32 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::serialize;

    use super::*;

    /// A file with these vectors of two numbers, and these items.
    fn file(vectors: &[[f32; 2]], items: &str) -> Result<Vec<u8>> {
        let bytes: Vec<u8> = vectors.as_flattened().iter().flat_map(|number| number.to_le_bytes()).collect();
        let tensors = HashMap::from([
            ("text_embeds", TensorView::new(Dtype::F32, vec![vectors.len(), 2], &bytes)?),
            ("image_embeds", TensorView::new(Dtype::F32, vec![0, 2], &[])?),
            ("texts", TensorView::new(Dtype::U8, vec![items.len()], items.as_bytes())?),
            ("images", TensorView::new(Dtype::U8, vec![0], &[])?),
        ]);
        Ok(serialize(tensors, None)?)
    }

    fn index(bytes: Vec<u8>) -> Index {
        Index { data: FileData::owned("a.safetensors", bytes) }
    }

    fn message(bytes: Vec<u8>) -> String {
        index(bytes).read().err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn the_greatest_cosines_come_first_and_equals_in_order() -> Result<()> {
        let vectors = [[0., 2.], [3., 3.], [5., 0.], [0., 0.], [f32::NAN, 1.], [1., 0.], [-1., 0.]];
        let items: String = (0..vectors.len()).map(|row| format!("\"{row}\"\n")).collect();
        let index = index(file(&vectors, &items)?);
        let tables = index.read()?;
        let found = |top| -> Result<Vec<(String, f32)>> {
            let hits = tables.search(&[1., 0.], &[Kind::Text, Kind::Image], top)?;
            Ok(hits.into_iter().map(|hit| (hit.item, hit.score)).collect())
        };
        let half = 0.5_f32.sqrt();
        let expected = [("2", 1.), ("5", 1.), ("1", half), ("0", 0.), ("3", 0.), ("6", -1.)];
        let expected = expected.map(|(item, score)| (item.to_owned(), score));
        for top in 0..=9 {
            assert_eq!(found(top)?, expected[..top.min(expected.len())], "{top}");
        }
        assert!(tables.search(&[1., 0.], &[Kind::Image], 3)?.is_empty());
        Ok(())
    }

    #[test]
    fn many_rows_are_ranked_as_sorting_does() -> Result<()> {
        let angle = |row: usize| (row * 7919 % 5000) as f32 / 5000.;
        let vectors: Vec<[f32; 2]> = (0..5000).map(|row| [angle(row).cos(), angle(row).sin()]).collect();
        let items: String = (0..5000).map(|row| format!("\"{row}\"\n")).collect();
        let index = index(file(&vectors, &items)?);
        let hits = index.read()?.search(&[1., 0.], &[Kind::Text], 100)?;
        let mut scored: Vec<(usize, f32)> = (0..5000).map(|row| (row, angle(row).cos())).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(hits.len(), 100);
        for (hit, (row, score)) in hits.iter().zip(scored) {
            assert!((hit.score - score).abs() < 1e-6, "{row}: {hit:?}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_such_file_is_refused() -> Result<()> {
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
        let damaged = index(file(&vectors, "\"a\"\n7\n")?);
        let found = damaged.read()?.search(&[0., 1.], &[Kind::Text], 1);
        assert!(found.is_err_and(|error| format!("{error:#}").contains("item 1: expected a JSON string")));
        Ok(())
    }

    #[test]
    fn cosines_of_all_widths() {
        for width in 1..70 {
            let numbers: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin() + 0.1).collect();
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| (3. * number).to_le_bytes()).collect();
            let unit = super::super::unit_vector(&numbers);
            assert!((cosine(&unit, &bytes) - 1.).abs() < 1e-6, "{width}");
        }
    }
}
