//! `altdiffusion index duplicates`: finds images that look alike.

use anyhow::Result;
use clap::Args;
use embedding_index::library::{DuplicateOptions, LibraryHit};
use serde_json::{Value, json};

use super::database::DatabaseArgs;
use crate::option_values;
use crate::progress::note;
use crate::standard_streams::{print_json, print_table};

/// Find images that look alike: copies, and near duplicates.
///
/// Prints a line per image: the group, its cosine to the first of the group, date, size, and path. Each image is alike to
/// another of its group, not to all of them. In a large index, images are compared only with those of similar cells, unless
/// --exact is given.
#[derive(Debug, Args)]
pub struct Duplicates {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The least cosine of two images that count as alike.
    #[arg(long, value_name = "X", default_value = "0.98", value_parser = option_values::likeness)]
    threshold: f32,

    /// Compare every image with every other, also in a large index.
    #[arg(long)]
    exact: bool,

    /// Print JSON: a list of groups, each a list of objects with score, path, copies, width, height and date.
    #[arg(long)]
    json: bool,
}

/// The columns of a result.
const HEADER: [&str; 6] = ["group", "score", "copies", "date", "size", "image"];

impl Duplicates {
    pub fn run(self) -> Result<()> {
        let library = self.database.open()?;
        let options = DuplicateOptions { threshold: self.threshold, exact: self.exact };
        let groups = library.duplicates(options)?;
        if self.json {
            return print_json(&groups.iter().map(|group| as_json(group)).collect::<Vec<_>>());
        }
        if groups.is_empty() {
            note("no two images are that alike; a lower --threshold finds more");
        }
        let rows: Vec<Vec<String>> = (1..)
            .zip(&groups)
            .flat_map(|(group, hits)| hits.iter().map(move |hit| row(group, hit)))
            .collect();
        print_table(&HEADER, &rows, 0..3)
    }
}

fn as_json(group: &[LibraryHit]) -> Vec<Value> {
    let image = |hit: &LibraryHit| {
        let image = &hit.image;
        json!({
            "score": hit.score,
            "path": image.path,
            "copies": image.copies,
            "width": image.width,
            "height": image.height,
            "date": image.date,
        })
    };
    group.iter().map(image).collect()
}

fn row(group: usize, hit: &LibraryHit) -> Vec<String> {
    let image = &hit.image;
    vec![
        group.to_string(),
        format!("{:.4}", hit.score),
        image.copies.to_string(),
        image.date.clone().unwrap_or_default(),
        format!("{} × {}", image.width, image.height),
        image.path.clone(),
    ]
}
