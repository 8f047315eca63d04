//! `altdiffusion index search`: finds images by text, by image, or by both.

use std::path::{Path, PathBuf, absolute};

use altclip_encoder::embedder::Embedder;
use anyhow::{Context, Result};
use clap::Args;
use embedding_index::library::{ImageLibrary, LibraryFilter, LibraryHit, LibrarySearch, QueryPart};
use image::DynamicImage;
use serde_json::{Value, json};

use super::database::{DatabaseArgs, IndexModel};
use crate::image_args::ImageArgs;
use crate::library_page;
use crate::model::ModelArgs;
use crate::option_values;
use crate::output_files::check_writable;
use crate::progress::note;
use crate::standard_streams::{print_json, print_table};

/// Search an index of folders by text, by image, or by both.
///
/// Scores are cosines, at most 1. In a large index, only the most promising part is read, and the result is nearly always
/// that of --exact. The model is the one that made the index.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Search {
    /// The text to search for.
    #[arg(value_name = "TEXT", required_unless_present = "image")]
    text: Option<String>,

    /// An image to search for, alone or together with TEXT.
    #[arg(long, value_name = "PATH")]
    image: Option<PathBuf>,

    /// A text that what is found should not be like. Repeat the option for more.
    #[arg(long, value_name = "TEXT")]
    not: Vec<String>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// How many results to print.
    #[arg(long, alias = "top", value_name = "K", default_value = "10", value_parser = option_values::count)]
    limit: usize,

    /// Only images in this folder and its subfolders.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    /// Only images from this date on: a year, a month or a day, such as 2026-11-30.
    ///
    /// The date is that of the camera, or for images without one, when the file was modified (UTC).
    #[arg(long, value_name = "DATE")]
    after: Option<String>,

    /// Only images before this date.
    #[arg(long, value_name = "DATE")]
    before: Option<String>,

    /// Only images of at least this width, in pixels.
    #[arg(long, value_name = "N", hide_short_help = true)]
    min_width: Option<u32>,

    /// Only images of at least this height, in pixels.
    #[arg(long, value_name = "N", hide_short_help = true)]
    min_height: Option<u32>,

    /// Only images of at most this width, in pixels.
    #[arg(long, value_name = "N", hide_short_help = true)]
    max_width: Option<u32>,

    /// Only images of at most this height, in pixels.
    #[arg(long, value_name = "N", hide_short_help = true)]
    max_height: Option<u32>,

    /// How much TEXT counts beside the image and --not.
    #[arg(long, value_name = "X", default_value = "1", value_parser = option_values::weight, hide_short_help = true)]
    text_weight: f32,

    /// How much the image counts beside TEXT and --not.
    #[arg(long, value_name = "X", default_value = "1", value_parser = option_values::weight, hide_short_help = true)]
    image_weight: f32,

    /// How much each --not counts.
    #[arg(long, value_name = "X", default_value = "0.5", value_parser = option_values::weight, hide_short_help = true)]
    not_weight: f32,

    /// Compare with every image, also in a large index.
    #[arg(long)]
    exact: bool,

    /// Print JSON: a list of objects with rank, score, path, copies, width, height, date and caption.
    #[arg(long)]
    json: bool,

    /// Also write a web page that shows the images found, from where they are.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion index search \"海边的日落\" --html found.html
  altdiffusion index search --image sunset.jpg \"with a dog\" --not people --after 2026-06 --limit 50";

/// The columns of a result.
const HEADER: [&str; 6] = ["rank", "score", "date", "size", "image", "caption"];

impl Search {
    pub fn run(self) -> Result<()> {
        // Check files before the work begins.
        if let Some(path) = &self.html {
            check_writable("--html", path)?;
        }
        let library = self.database.open()?;
        let filter = self.filter()?;
        let image = self.image.as_deref().map(|path| self.reading.open("--image", path)).transpose()?;
        let embedder = IndexModel { model: &self.model, reading: &self.reading }.load_for(&library)?;
        let query = self.query(&library, &embedder, image)?;
        let search = LibrarySearch { top: self.limit, exact: self.exact, filter };
        let hits = library.search(&query, &search)?;
        if let Some(path) = &self.html {
            library_page::write(path, &self.in_words(), &hits)?;
        }
        if self.json {
            return print_json(&as_json(&hits));
        }
        if hits.is_empty() {
            note("no image of the index fits");
        }
        print_table(&HEADER, &rows(&hits), 0..2)
    }

    fn filter(&self) -> Result<LibraryFilter> {
        let mut filter = LibraryFilter::default();
        if let Some(folder) = &self.folder {
            let whole = folder.canonicalize().or_else(|_| absolute(folder)).context("--folder")?;
            filter = filter.in_folder(&whole);
        }
        if let Some(date) = &self.after {
            filter = filter.after(date).context("--after")?;
        }
        if let Some(date) = &self.before {
            filter = filter.before(date).context("--before")?;
        }
        for (pixels, with) in [
            (self.min_width, LibraryFilter::min_width as fn(LibraryFilter, u32) -> LibraryFilter),
            (self.min_height, LibraryFilter::min_height),
            (self.max_width, LibraryFilter::max_width),
            (self.max_height, LibraryFilter::max_height),
        ] {
            if let Some(pixels) = pixels {
                filter = with(filter, pixels);
            }
        }
        Ok(filter)
    }

    /// One vector for everything that is looked for.
    fn query(
        &self,
        library: &ImageLibrary,
        embedder: &Embedder,
        image: Option<DynamicImage>,
    ) -> Result<Vec<f32>> {
        let texts: Vec<&str> = self.text.iter().chain(&self.not).map(String::as_str).collect();
        let weights = self.text.iter().map(|_| self.text_weight);
        let weights = weights.chain(self.not.iter().map(|_| -self.not_weight));
        let mut parts = Vec::new();
        if !texts.is_empty() {
            let vectors: Vec<Vec<f32>> = embedder.embed_texts(&texts)?.to_vec2()?;
            parts.extend(
                vectors.into_iter().zip(weights).map(|(vector, weight)| QueryPart { vector, weight }),
            );
        }
        if let Some(image) = image {
            let vector = embedder.embed_images(&[image])?.flatten_all()?.to_vec1()?;
            parts.push(QueryPart { vector, weight: self.image_weight });
        }
        Ok(library.combined(&parts)?)
    }

    /// What is looked for, for a title.
    fn in_words(&self) -> String {
        let image = self.image.as_deref().map(|path: &Path| path.display().to_string());
        let not = self.not.iter().map(|text| format!("− {text}"));
        self.text.iter().cloned().chain(image).chain(not).collect::<Vec<_>>().join(" · ")
    }
}

fn as_json(hits: &[LibraryHit]) -> Vec<Value> {
    let hits = (1..).zip(hits).map(|(rank, hit): (usize, _)| {
        let image = &hit.image;
        json!({
            "rank": rank,
            "score": hit.score,
            "path": image.path,
            "copies": image.copies,
            "width": image.width,
            "height": image.height,
            "date": image.date,
            "caption": image.caption,
        })
    });
    hits.collect()
}

fn rows(hits: &[LibraryHit]) -> Vec<Vec<String>> {
    let row = |(rank, hit): (usize, &LibraryHit)| {
        let image = &hit.image;
        vec![
            rank.to_string(),
            format!("{:.4}", hit.score),
            image.date.clone().unwrap_or_default(),
            format!("{} × {}", image.width, image.height),
            image.path.clone(),
            image.caption.clone().unwrap_or_default(),
        ]
    };
    (1..).zip(hits).map(row).collect()
}
