//! Embeds many texts and images into a file or a database, in a resumable job.

mod digest;
mod embed;
mod partial;
mod partial_rows;
mod row_sink;
#[cfg(feature = "postgres")]
mod table_rows;

use std::fs;
use std::path::{Path, PathBuf};

use altclip_encoder::embedder::Embedder;
use model_files::Target;

pub(crate) use self::digest::{vector_of_text, vectors_of_model};
pub(crate) use self::embed::is_of_the_image;

use self::digest::{ItemDigest, digest_of_model};
use self::embed::JobRun;
use self::partial::{JobSettings, Partial};
use self::row_sink::RowSink;
#[cfg(feature = "postgres")]
use self::table_rows::TableRows;
use crate::error::{Error, Result};
use crate::item::{IndexInfo, ItemKind};
use crate::output::{OutputFormat, parquet_folder};
#[cfg(feature = "postgres")]
use crate::pgvector::PostgresTable;
use crate::readers::{IgnoredFiles, ImageInputs, TextInputs};

/// Texts and images to embed, and the file, or the table of a database, for their vectors.
///
/// Unfinished work is kept in a folder `OUTPUT.partial` beside the output. A job that is stopped, for whatever
/// reason, resumes from there when it is run again with the same inputs, settings and model, and gives the same
/// bytes. The output appears in one piece at the end. In a database, rows appear as they are embedded, and it also
/// keeps how far a job is; whatever happens, each item has one row.
#[derive(Debug)]
pub struct Job {
    output: Output,
    texts: TextInputs,
    images: ImageInputs,
    normalize: bool,
    resume: bool,
    revision: Option<String>,
    checked: Option<Checked>,
}

/// Where a job's vectors go.
#[derive(Debug)]
enum Output {
    /// A file, or a folder of files.
    File(PathBuf),
    /// A table of a database.
    #[cfg(feature = "postgres")]
    Table(Box<PostgresTable>),
}

/// The findings of [`Job::check`].
#[derive(Debug, Clone)]
struct Checked {
    texts: ItemDigest,
    /// Rows among these without a text, or that cannot be read.
    skipped_texts: usize,
    images: ItemDigest,
}

/// Stands for a missing text in a digest, since it is in no text in UTF-8.
const MISSING: u8 = 0xFF;

/// Watches a job, and may stop it. All methods do nothing by default, and `()` is an observer.
pub trait JobObserver {
    /// Called with the number of items done. The first call reports an earlier run's work.
    fn progress(&mut self, kind: ItemKind, done: usize, total: usize) {
        let _ = (kind, done, total);
    }

    /// Called for an image or a row that cannot be read, or a row without a text, which is skipped. The error names it.
    fn skipped(&mut self, error: &Error) {
        let _ = error;
    }

    /// Whether to stop now, called after every few items. The work is kept.
    fn should_stop(&mut self) -> bool {
        false
    }
}

impl JobObserver for () {}

/// The result of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobSummary {
    /// Texts in the output.
    pub texts: usize,
    /// Images in the output.
    pub images: usize,
    /// Rows of the list without a text, or that cannot be read, which are not in the output.
    pub skipped_texts: usize,
    /// Unreadable images, which are not in the output.
    pub skipped_images: usize,
    /// Transparent images in this run without a background, whose hidden colours were used.
    pub transparent_images: usize,
    /// Files in image folders that were not read.
    pub ignored_files: IgnoredFiles,
}

impl Job {
    /// A job that writes to `output`, which ends in `.safetensors`, `.npy`, `.parquet` or a separator: see
    /// [`OutputFormat`]. An existing file is replaced, and so is a folder of nothing but an earlier job's files.
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self::with_output(Output::File(output.into()))
    }

    /// A job that writes to a table. Rows of the same items are replaced, and others stay.
    #[cfg(feature = "postgres")]
    pub fn for_table(table: PostgresTable) -> Self {
        Self::with_output(Output::Table(Box::new(table)))
    }

    fn with_output(output: Output) -> Self {
        Self {
            output,
            texts: TextInputs::default(),
            images: ImageInputs::default(),
            normalize: true,
            resume: true,
            revision: None,
            checked: None,
        }
    }

    /// Sets the texts to embed. None by default.
    #[must_use]
    pub fn texts(self, texts: TextInputs) -> Self {
        Self { texts, checked: None, ..self }
    }

    /// Sets the images to embed. None by default.
    #[must_use]
    pub fn images(self, images: ImageInputs) -> Self {
        Self { images, checked: None, ..self }
    }

    /// Sets whether to normalise vectors to length 1, so that the product of two is their cosine. On by default.
    #[must_use]
    pub fn normalize(self, normalize: bool) -> Self {
        Self { normalize, ..self }
    }

    /// Sets whether to resume an earlier run. On by default; otherwise its work is discarded.
    #[must_use]
    pub fn resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Sets the commit of the model's repository, which files record beside the model's name. None by default.
    #[must_use]
    pub fn revision(self, revision: Option<&str>) -> Self {
        Self { revision: revision.map(str::to_owned), ..self }
    }

    /// Reads all inputs once, so that errors show before a model is loaded. [`run`](Self::run) does this if
    /// necessary. Images are not decoded.
    ///
    /// # Errors
    /// If the output's ending stands for no format, its format does not support both texts and images, or the
    /// database cannot be reached; also the first error among the inputs.
    pub fn check(&mut self) -> Result<()> {
        self.checked().map(|_| ())
    }

    fn checked(&mut self) -> Result<Checked> {
        if let Some(checked) = &self.checked {
            return Ok(checked.clone());
        }
        let mut skipped_texts = 0;
        let checked = match &self.output {
            Output::File(path) => {
                check_output(path)?;
                let texts = self.texts.iter()?.inspect(|text| skipped_texts += usize::from(is_missing(text)));
                let texts = ItemDigest::of(texts.map(text_bytes))?;
                let images = ItemDigest::of(self.images.names()?.map(path_bytes))?;
                Checked { texts, skipped_texts, images }
            }
            #[cfg(feature = "postgres")]
            Output::Table(table) => {
                table.check()?;
                let texts =
                    self.texts.keyed()?.inspect(|text| skipped_texts += usize::from(is_missing(text)));
                let texts = ItemDigest::of(texts.map(table_rows::text_bytes))?;
                let images = ItemDigest::of(self.images.names()?.map(table_rows::image_bytes))?;
                Checked { texts, skipped_texts, images }
            }
        };
        let Checked { texts, images, .. } = &checked;
        if texts.count + images.count == 0 {
            return Err(Error::Input("expected at least one text or image to embed, found none".to_owned()));
        }
        if texts.count > 0 && images.count > 0 {
            self.check_takes_both()?;
        }
        Ok(self.checked.insert(checked).clone())
    }

    fn check_takes_both(&self) -> Result<()> {
        match &self.output {
            Output::File(path) if OutputFormat::from_path(path)? == OutputFormat::Npy => {
                let expected =
                    "an .npy file has one array, expected either texts or images; .safetensors takes both";
                Err(Error::format(path, expected))
            }
            _ => Ok(()),
        }
    }

    /// Embeds everything with `embedder`, and writes the output, which records `model` as the model's name.
    ///
    /// # Errors
    /// Like [`check`](Self::check). [`Error::Table`] if the table is for another model or dimension, or the
    /// connection is lost. [`Error::OtherJob`] if the folder of unfinished work belongs to other inputs,
    /// settings or another model, and [`Error::Busy`] if another process uses it. [`Error::NothingEmbedded`] if all
    /// items are unreadable images or rows without a text. [`Error::Stopped`] if the observer stopped it. Also if the
    /// model fails, or a file cannot be written.
    pub fn run(
        mut self,
        embedder: &Embedder,
        model: &str,
        observer: &mut dyn JobObserver,
    ) -> Result<JobSummary> {
        let Checked { texts, skipped_texts, images } = self.checked()?;
        let totals = [texts.count, images.count];
        let background = embedder.background();
        let settings = JobSettings {
            model: model.to_owned(),
            model_digest: digest_of_model(embedder)?,
            dtype: embedder.arithmetic_name().to_owned(),
            width: embedder.projection_dim(),
            raw: !self.normalize,
            background,
            texts_digest: texts.digest,
            images_digest: images.digest,
        };
        match &self.output {
            Output::File(path) => {
                let (format, output) = (OutputFormat::from_path(path)?, place_of(path)?);
                let width = settings.width;
                let info = IndexInfo {
                    model: model.to_owned(),
                    revision: self.revision.clone(),
                    normalized: self.normalize,
                    background: Some(background),
                };
                let mut partial = Partial::open(&output, settings, self.resume)?;
                let transparent_images = self.embed(embedder, &mut partial, observer, totals)?;
                let (texts, images) = (partial.texts.counts(), partial.images.counts());
                if texts.rows + images.rows == 0 {
                    partial.discard();
                    let (output, texts, images) = (path.clone(), texts.done, images.done);
                    return Err(Error::NothingEmbedded { output, texts, images });
                }
                partial.finish(&output, |partial, path| {
                    format.write(path, width, partial.texts.stored(), partial.images.stored(), &info)
                })?;
                let skipped = [skipped_texts, images.done - images.rows];
                Ok(self.summary([texts.rows, images.rows], skipped, transparent_images))
            }
            #[cfg(feature = "postgres")]
            Output::Table(table) => {
                let mut rows = TableRows::open(table, &settings, self.resume)?;
                let transparent_images = self.embed(embedder, &mut rows, observer, totals)?;
                let mark = rows.finish()?;
                let rows = [mark.texts.saturating_sub(skipped_texts), mark.images - mark.unreadable];
                if rows == [0, 0] {
                    let (output, texts, images) = (table.name().into(), mark.texts, mark.images);
                    return Err(Error::NothingEmbedded { output, texts, images });
                }
                Ok(self.summary(rows, [skipped_texts, mark.unreadable], transparent_images))
            }
        }
    }

    /// Embeds what is left of these totals, and returns the number of transparent images.
    fn embed(
        &self,
        embedder: &Embedder,
        rows: &mut dyn RowSink,
        observer: &mut dyn JobObserver,
        [texts, images]: [usize; 2],
    ) -> Result<usize> {
        let mut run = JobRun { embedder, normalize: self.normalize, rows, observer };
        run.texts(&self.texts, texts)?;
        run.images(&self.images, images)
    }

    fn summary(
        &self,
        [texts, images]: [usize; 2],
        [skipped_texts, skipped_images]: [usize; 2],
        transparent_images: usize,
    ) -> JobSummary {
        let ignored_files = self.images.ignored_files();
        JobSummary { texts, images, skipped_texts, skipped_images, transparent_images, ignored_files }
    }

    /// The folder of unfinished work for `output`.
    pub fn partial_folder(output: &Path) -> PathBuf {
        Partial::directory_of(output)
    }
}

/// Whether a row has no text.
fn is_missing<T>(text: &Result<Result<T>>) -> bool {
    matches!(text, Ok(Err(_)))
}

fn text_bytes(text: Result<Result<String>>) -> Result<Vec<u8>> {
    Ok(text?.map_or_else(|_| vec![MISSING], String::into_bytes))
}

fn path_bytes(path: Result<PathBuf>) -> Result<Vec<u8>> {
    Ok(path?.into_os_string().into_encoded_bytes())
}

/// Checks that a file or a folder can be called this.
fn check_output(path: &Path) -> Result<()> {
    if OutputFormat::from_path(path)? == OutputFormat::ParquetFolder {
        return parquet_folder::check(path);
    }
    if path.is_dir() {
        let expected = "expected the name of a file, found that of a directory";
        return Err(Error::format(path, expected));
    }
    Ok(())
}

/// The output itself, not a link to it, so that what is beside it can be moved there.
fn place_of(path: &Path) -> Result<PathBuf> {
    if OutputFormat::from_path(path)? == OutputFormat::ParquetFolder {
        // Without the separator at the end.
        return Ok(fs::canonicalize(path).unwrap_or_else(|_| path.components().collect()));
    }
    Ok(match Target::of(path)? {
        Target::File(path) => path,
        Target::Stream | Target::StandardOutput => path.to_owned(),
    })
}
