//! `altdiffusion embed`: turns texts and images into vectors.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use embedding_index::readers::{ImageInputs, ListFile, ListFormat, TextInputs};
use embedding_index::{Error, ItemKind, JobDifference, JobObserver, JobSummary};
use serde::Serialize;

use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::progress::ProgressLine;
use crate::standard_streams::{print_json, print_line};
use crate::vector_output::VectorOutput;

/// Embed texts and images: turn them into vectors for search.
///
/// The model is a dual encoder, such as AltCLIP, CLIP, SigLIP or OpenCLIP, or the one inside this program. Vectors have
/// length 1, so that the dot product of two is their cosine; see --raw.
///
/// Millions of items are fine. Work in progress is kept in the folder OUTPUT.partial, or in the database; run the same
/// command again to resume. An image that cannot be read is reported and skipped; so is a row whose text is null or
/// missing, or which, after the first row of JSON lines or CSV, cannot be read.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Embed {
    /// A text. Repeat the option for more.
    #[arg(long = "text", value_name = "TEXT", required_unless_present_any = ["texts", "images", "image"])]
    text: Vec<String>,

    /// Read texts from a UTF-8 file; - for standard input.
    ///
    /// Each line is a text, even an empty one. In a .jsonl, .csv, .tsv or .parquet file, each string of one column
    /// is a text. Text files may be compressed with gzip or zstd; Parquet with snappy, gzip, zstd, brotli or lz4.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,

    /// Column of the texts in a .jsonl, .csv, .tsv or .parquet file. [default: text]
    ///
    /// It may be a path: meta.title is a field of an object, and captions.0 the first item of a list.
    #[arg(long, value_name = "NAME", requires = "texts")]
    text_column: Option<String>,

    /// An image, a pattern such as 'photos/*.jpg', or a directory. Repeat the option for more.
    ///
    /// Reads PNG, JPEG, WebP, GIF, BMP, TIFF, ICO, PNM, QOI and TGA. Directories are searched with their
    /// subdirectories, in the order of names; skipped files are counted by ending.
    #[arg(long = "image", value_name = "PATH")]
    image: Vec<String>,

    /// Read image paths from a file, one per line; - for standard input.
    ///
    /// In a .jsonl, .csv, .tsv or .parquet file, the paths are the strings of one column. A Parquet column may also
    /// hold the images themselves: their bytes, or groups of `bytes` and `path`, as in the data sets of the Hugging
    /// Face hub.
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,

    /// Column of the images in a .jsonl, .csv, .tsv or .parquet file. [default: image]
    #[arg(long, value_name = "NAME", requires = "images")]
    image_column: Option<String>,

    /// Format of standard input, as --texts - or --images -.
    ///
    /// A file's format is known by its ending.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = InputFormat::Lines, hide_short_help = true)]
    input_format: InputFormat,

    /// Output: a file ending in .safetensors, .npy or .parquet, DIRECTORY/, or postgres://. Files are replaced.
    ///
    /// .safetensors holds `text_embeds` and `image_embeds` (items, width), f32, and `texts` and `images`, u8: the
    /// items in their order, one JSON string per line. .npy holds one array, of texts or images. .parquet has the
    /// columns text, image and embedding. DIRECTORY/ is a directory of such files, for DuckDB, LanceDB or Spark.
    /// postgres://USER@HOST/DATABASE is a database with pgvector, and PGPASSWORD its password; see --table.
    #[arg(long, short, value_name = "OUTPUT")]
    output: PathBuf,

    /// Table of a database: NAME or SCHEMA.NAME. [default: embeddings]
    ///
    /// It has the columns key, kind, text, vector and model, and is made if it is missing. The key of an image is its
    /// path, that of a text its file and number, such as captions.txt:7. A row with the same key is replaced.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    table: Option<String>,

    /// Column of keys for a database, beside the column of texts: strings or whole numbers.
    #[arg(long, value_name = "NAME", requires = "texts", hide_short_help = true)]
    key_column: Option<String>,

    /// Do not normalize the vectors.
    #[arg(long)]
    raw: bool,

    /// Print JSON: an object with path, texts, images, skipped_texts, skipped_images and ignored_files, by their endings.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion embed --text 一只猫 --text \"a cat\" --image cat.jpg --output cats.safetensors
  altdiffusion embed --model BAAI/AltCLIP --image photos --output photos.safetensors
  altdiffusion embed --model BAAI/AltCLIP --texts captions.jsonl --text-column caption --output captions.parquet
  altdiffusion embed --model BAAI/AltCLIP --image photos --output postgres://localhost/photos";

/// The formats of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    Lines,
    Jsonl,
    Csv,
    Tsv,
    Parquet,
}

impl InputFormat {
    fn list_format(self) -> ListFormat {
        match self {
            Self::Lines => ListFormat::Lines,
            Self::Jsonl => ListFormat::JsonLines,
            Self::Csv => ListFormat::Csv { delimiter: b',' },
            Self::Tsv => ListFormat::Csv { delimiter: b'\t' },
            Self::Parquet => ListFormat::Parquet,
        }
    }
}

#[derive(Serialize)]
struct EmbedReport<'a> {
    path: String,
    texts: usize,
    images: usize,
    skipped_texts: usize,
    skipped_images: usize,
    ignored_files: BTreeMap<&'a str, usize>,
}

impl<'a> EmbedReport<'a> {
    fn new(path: String, summary: &'a JobSummary) -> Self {
        Self {
            path,
            texts: summary.texts,
            images: summary.images,
            skipped_texts: summary.skipped_texts,
            skipped_images: summary.skipped_images,
            ignored_files: summary.ignored_files.by_ending().collect(),
        }
    }
}

impl Embed {
    pub fn run(self) -> Result<()> {
        let output = VectorOutput::of(&self.output, self.table.as_deref())?;
        ensure!(
            self.key_column.is_none() || output.has_keys(),
            "--key-column: expected a database as --output, found {}",
            output.name()
        );
        let (texts, images) = self.inputs()?;
        let mut job = output.job().texts(texts).images(images).normalize(!self.raw);
        job.check().map_err(with_options)?;

        let source = self.model.source()?;
        let embedder = self.reading.apply(self.model.embedder_of(&source)?);
        job = job.revision(source.commit());
        let model = source.to_string();
        let summary = job.run(&embedder, &model, &mut JobProgress::default()).map_err(with_options)?;
        output.finish()?;
        self.reading.warn_of_transparency(summary.transparent_images);
        if self.json {
            return print_json(&EmbedReport::new(output.name(), &summary));
        }
        print_line(format!("{}: {}", output.name(), in_words(&summary)))
    }

    fn inputs(&self) -> Result<(TextInputs, ImageInputs)> {
        let is_stdin = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        ensure!(
            !(is_stdin(&self.texts) && is_stdin(&self.images)),
            "--texts - and --images -: only one of them can be standard input"
        );
        ensure!(
            self.input_format == InputFormat::Lines || is_stdin(&self.texts) || is_stdin(&self.images),
            "--input-format: is for --texts - or --images -, for a file's format is known by its ending"
        );
        let list = |option, path: &Option<PathBuf>, column: &Option<String>| {
            path.as_deref().map(|path| self.open_list(option, path, column.as_deref())).transpose()
        };
        let texts = list("--texts", &self.texts, &self.text_column)?;
        let images = list("--images", &self.images, &self.image_column)?;
        let texts = TextInputs::new(self.text.clone(), texts).key_column(self.key_column.clone());
        Ok((texts, ImageInputs::new(self.image.clone(), images)))
    }

    /// Opens the list in a file, or on standard input for `-`. `option` is the option that named it.
    fn open_list(&self, option: &str, path: &Path, column: Option<&str>) -> Result<ListFile> {
        let list = if path == Path::new("-") {
            if let (InputFormat::Lines, Some(column)) = (self.input_format, column) {
                bail!(
                    "{option} -: expected --input-format jsonl, csv, tsv or parquet for the column {column:?}"
                );
            }
            let format = self.input_format.list_format();
            ListFile::from_reader(io::stdin().lock(), "standard input", format, column)
        } else {
            ListFile::open(path, column)
        };
        let list = list.map_err(|error| anyhow!("{option} {error}"))?;
        let name = format!("{option} {}", list.name());
        Ok(list.with_name(name))
    }
}

/// Rewords a job's error in terms of this command's options.
fn with_options(error: Error) -> anyhow::Error {
    match error {
        Error::Pattern { .. } => anyhow!("--image {error}"),
        Error::Table { .. } => anyhow!("--output {error}"),
        Error::OtherJob { folder, difference } => {
            let difference = match difference {
                JobDifference::Model => "another --model".to_owned(),
                JobDifference::Dtype => "another --dtype".to_owned(),
                JobDifference::Normalization => "the other choice of --raw".to_owned(),
                JobDifference::Background => "another --background".to_owned(),
                other => other.to_string(),
            };
            anyhow!(
                "{}: begun with {difference}; run it again as it was begun, or delete this folder to start anew",
                folder.display()
            )
        }
        other => other.into(),
    }
}

/// Shows the progress of a job.
#[derive(Default)]
pub struct JobProgress(Option<(ItemKind, ProgressLine)>);

impl JobObserver for JobProgress {
    fn progress(&mut self, kind: ItemKind, done: usize, total: usize) {
        match &self.0 {
            Some((shown, progress)) if *shown == kind => progress.advance(done),
            _ => {
                let title = match kind {
                    ItemKind::Text => "Texts",
                    ItemKind::Image => "Images",
                };
                // Only one line is shown at a time.
                self.0 = None;
                self.0 = Some((kind, ProgressLine::items(title, done, total)));
            }
        }
    }

    fn skipped(&mut self, error: &Error) {
        if let Some((_, progress)) = &self.0 {
            progress.note(&format!("skipped: {error}"));
        }
    }
}

/// For example `3 texts, 2 images; 1 text skipped; 1 image skipped; left out: 2 .txt`.
fn in_words(summary: &JobSummary) -> String {
    let embedded = [count(summary.texts, "text"), count(summary.images, "image")];
    let embedded = embedded.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let skipped = [count(summary.skipped_texts, "text"), count(summary.skipped_images, "image")];
    let skipped = skipped.into_iter().flatten().map(|skipped| format!("; {skipped} skipped"));
    let ignored = &summary.ignored_files;
    let left_out = (!ignored.is_empty()).then(|| format!("; left out: {ignored}"));
    [embedded].into_iter().chain(skipped).chain(left_out).collect()
}

fn count(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    }
}
