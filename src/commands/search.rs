//! `altdiffusion search`: finds the texts and images nearest to a text or an image.

use std::path::{Path, PathBuf};

use altclip_encoder::embedder::Embedder;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use embedding_index::library::ImageLibrary;
use embedding_index::{Hit, Index, ItemKind, SearchOptions};
use image::DynamicImage;
use model_files::ModelSource;
use serde_json::{Value, json};

use crate::image_args::ImageArgs;
use crate::model::{ModelArgs, at_revision};
use crate::option_values;
use crate::output_files::check_writable;
use crate::progress::warn;
use crate::result_page;
use crate::standard_streams::{print_json, print_table};

/// Search an index by text or image.
///
/// The index is a file that `altdiffusion embed` wrote. The model is by default the one that it was made with, and no other
/// gives useful results. Scores are cosines, at most 1. Text–text, image–image and text–image scores differ in magnitude;
/// --among separates them.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Search {
    /// The index: a .safetensors file that `altdiffusion embed` wrote.
    #[arg(value_name = "INDEX")]
    index: PathBuf,

    /// The text to search for.
    #[arg(value_name = "TEXT", required_unless_present = "image", conflicts_with = "image")]
    text: Option<String>,

    /// An image to search for, instead of a text.
    #[arg(long, value_name = "PATH")]
    image: Option<PathBuf>,

    /// How many results to print.
    #[arg(long, alias = "limit", value_name = "K", default_value = "10", value_parser = option_values::count)]
    top: usize,

    /// What to search in.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Among::Both)]
    among: Among,

    /// Rank the K nearest images of a text, or texts of an image, again by reading both at once.
    ///
    /// Only R2D2 can do that. The score is then the probability that they match; the order also counts the cosine.
    #[arg(long, value_name = "K", value_parser = option_values::count)]
    rerank: Option<usize>,

    /// Print JSON: a list of objects with rank, score, kind and item.
    #[arg(long)]
    json: bool,

    /// Also write a self-contained web page with thumbnails of the images found.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion search photos.safetensors \"海边的日落\"
  altdiffusion search photos.safetensors --image sunset.jpg --top 50 --html found.html";

/// The columns of a result.
const HEADER: [&str; 4] = ["rank", "score", "kind", "item"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Among {
    Texts,
    Images,
    Both,
}

impl Among {
    fn options(self, top: usize) -> SearchOptions {
        SearchOptions { top, texts: self != Self::Images, images: self != Self::Texts }
    }
}

impl Search {
    pub fn run(self) -> Result<()> {
        // Check files before the work begins.
        if let Some(path) = &self.html {
            check_writable("--html", path)?;
        }
        if ImageLibrary::is_database(&self.index) {
            let file = self.index.display();
            bail!(
                "{file}: an index of folders; search it with `altdiffusion index search --database {file}`"
            );
        }
        let index = Index::open(&self.index)?;
        let (texts, images) = (index.len(ItemKind::Text), index.len(ItemKind::Image));
        let (count, what) = match self.among {
            Among::Texts => (texts, "texts"),
            Among::Images => (images, "images"),
            Among::Both => (texts + images, "texts or images"),
        };
        if count == 0 {
            bail!("{}: there are no {what} in this file", self.index.display());
        }
        let source = self.source(&index)?;
        let (embedder, image) = self.embedder(&index, &source)?;
        self.warn_of_other_model(&index, &source);
        let query = self.query(&index, &embedder, image.as_ref())?;
        let hits = match self.rerank {
            None => index.search(&query, self.among.options(self.top))?,
            Some(candidates) => self.reranked(&index, &embedder, image, &query, candidates)?,
        };
        if let Some(path) = &self.html {
            let query = match (&self.text, &self.image) {
                (Some(text), _) => (ItemKind::Text, text.clone()),
                (None, image) => (ItemKind::Image, image.as_deref().map(display).unwrap_or_default()),
            };
            result_page::write(path, (query.0, &query.1), &hits)?;
        }
        if self.json { print_json(&as_json(&hits)) } else { print_table(&HEADER, &rows(&hits), 0..2) }
    }

    /// The model that --model names, or else the one that made the index.
    fn source(&self, index: &Index) -> Result<ModelSource> {
        let given = self.model.source()?;
        match index.info() {
            Some(info) if self.model.is_shipped() && info.model != given.to_string() => {
                let name = at_revision(&info.model, info.revision.as_deref());
                let recorded = ModelSource::open(&name).with_context(|| self.made_with(&info.model))?;
                Ok(recorded.computing_in(self.model.arithmetic()))
            }
            _ => Ok(given),
        }
    }

    /// The model, and the query if it is an image.
    fn embedder(&self, index: &Index, source: &ModelSource) -> Result<(Embedder, Option<DynamicImage>)> {
        // Decode the image first: if it is invalid, loading the model would be wasted.
        let image = self.image.as_deref().map(|path| self.reading.open("--image", path)).transpose()?;
        let loaded = self.model.embedder_of(source);
        let mut embedder = match index.info() {
            Some(info) if self.model.is_shipped() => loaded.with_context(|| self.made_with(&info.model))?,
            _ => loaded?,
        };
        if let Some(info) = index.info()
            && embedder.projection_dim() != index.width()
        {
            bail!(
                "{}: made with {}, whose vectors have {} numbers; those of {source} have {}",
                self.index.display(),
                info.model,
                index.width(),
                embedder.projection_dim()
            );
        }
        // Put the query on the same background as the index.
        let background = index.info().and_then(|info| info.background);
        if let Some(background) = background {
            embedder = embedder.with_background(background);
        }
        let embedder = self.reading.apply(embedder);
        if self.rerank.is_some() && !embedder.ranks() {
            bail!("--rerank: {} has no ranker, expected R2D2", embedder.family());
        }
        Ok((embedder, image))
    }

    /// The vector of the query.
    fn query(&self, index: &Index, embedder: &Embedder, image: Option<&DynamicImage>) -> Result<Vec<f32>> {
        let vectors = match image {
            Some(image) => {
                let images = std::slice::from_ref(image);
                if index.info().and_then(|info| info.background).is_none() {
                    self.reading.warn_of_transparency(self.reading.transparent(images, embedder));
                }
                embedder.embed_images(images)?
            }
            None => embedder.embed_texts(self.text.as_slice())?,
        };
        Ok(vectors.flatten_all()?.to_vec1()?)
    }

    /// The best of the nearest `candidates` of the other kind, by the model's ranker.
    fn reranked(
        &self,
        index: &Index,
        embedder: &Embedder,
        image: Option<DynamicImage>,
        query: &[f32],
        candidates: usize,
    ) -> Result<Vec<Hit>> {
        let texts = image.is_some();
        let options = SearchOptions { top: candidates.max(self.top), texts, images: !texts };
        let mut hits = index.search(query, options)?;
        let (images, texts) = match image {
            Some(image) => (vec![image], hits.iter().map(|hit| hit.item.clone()).collect()),
            None => {
                let mut images = Vec::with_capacity(hits.len());
                hits.retain(|hit| match self.reading.open("--rerank", Path::new(&hit.item)) {
                    Ok(image) => {
                        images.push(image);
                        true
                    }
                    Err(error) => {
                        warn(&format!("left out: {error:#}"));
                        false
                    }
                });
                (images, Vec::from_iter(self.text.clone()))
            }
        };
        let scores = embedder.match_scores(&images, &texts)?.flatten_all()?.to_vec1()?;
        // By the sum, as the authors rank; what is shown is the probability.
        let mut ranked: Vec<(f32, Hit)> = hits
            .into_iter()
            .zip(scores)
            .map(|(hit, score): (Hit, f32)| (hit.score + score, Hit { score, ..hit }))
            .collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Ok(ranked.into_iter().take(self.top).map(|(_, hit)| hit).collect())
    }

    /// What an error about the model that made the index begins with.
    fn made_with(&self, model: &str) -> String {
        format!("{}: made with {model}", self.index.display())
    }

    /// Another name may be the same model, so only warn.
    fn warn_of_other_model(&self, index: &Index, source: &ModelSource) {
        let model = source.to_string();
        let Some(info) = index.info() else { return };
        // Where both commits are known, names say less.
        let (is_other, of_index, of_search) = match (info.revision.as_deref(), source.commit()) {
            (Some(made), Some(used)) => {
                (made != used, format!("{} at {made}", info.model), format!("{model} at {used}"))
            }
            _ => (info.model != model, info.model.clone(), model),
        };
        if is_other {
            let index = self.index.display();
            warn(&format!("{index} was made with {of_index}, and is searched with {of_search}"));
        }
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn as_json(hits: &[Hit]) -> Vec<Value> {
    let hits = (1..)
        .zip(hits)
        .map(|(rank, hit)| json!({ "rank": rank, "score": hit.score, "kind": hit.kind, "item": hit.item }));
    hits.collect()
}

fn rows(hits: &[Hit]) -> Vec<Vec<String>> {
    let row = |(rank, hit): (usize, &Hit)| {
        vec![rank.to_string(), format!("{:.4}", hit.score), hit.kind.to_string(), hit.item.clone()]
    };
    (1..).zip(hits).map(row).collect()
}
