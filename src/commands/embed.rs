//! `altdiffusion embed`: texts and images to vectors that can be compared.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use altclip_encoder::embedder::{Embedder, IMAGE_BATCH};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use image::DynamicImage;

use crate::embedding::format::{About, Format};
use crate::embedding::images::Images;
use crate::embedding::list::List;
use crate::embedding::partial::{Partial, Settings};
use crate::embedding::texts::Texts;
use crate::embedding::{Survey, digest_of_numbers, unit_vector};
use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::output::print_line;
use crate::output_files::check_writable;
use crate::progress::{Progress, announce};

/// Texts embedded at a time, and after which the work can go on with the same bits.
const TEXT_BATCH: usize = 1024;

/// Turn texts and images into vectors of one space, in which what belongs together is near.
///
/// The model is AltCLIP, CLIP, Chinese-CLIP, Taiyi-CLIP, or the one inside this program. Vectors have length 1, so that
/// the product of two is their cosine; see --raw.
///
/// There may be millions of texts and images. What is done lies in a folder OUTPUT.partial; stopped and started again
/// in the same way, the program goes on from there. An image that cannot be read is reported and left out.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Embed {
    /// A text. May be given more than once.
    #[arg(long = "text", value_name = "TEXT", required_unless_present_any = ["texts", "images", "image"])]
    text: Vec<String>,

    /// A file of texts, in UTF-8; - for standard input.
    ///
    /// Each line is a text, an empty one too. Of a .jsonl, .csv, .tsv or .parquet file, it is each string of one column.
    /// Texts may be compressed by gzip or zstd, and Parquet by snappy, gzip, zstd, brotli or lz4.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,

    /// The column that the texts are in, of a .jsonl, .csv, .tsv or .parquet file. [default: text]
    ///
    /// Of what is nested it is a path: meta.title is a field of an object, and captions.0 the first of a list.
    #[arg(long, value_name = "NAME", requires = "texts")]
    text_column: Option<String>,

    /// An image, a pattern such as 'photos/*.jpg', or a directory with images. May be given more than once.
    ///
    /// PNG, JPEG, WebP, GIF, BMP, TIFF, ICO, PNM, QOI and TGA. Directories are looked through with all those inside, by the
    /// order of names; what is left out there is counted by its ending.
    #[arg(long = "image", value_name = "PATH")]
    image: Vec<String>,

    /// A file of images: a path on each line; - for standard input.
    ///
    /// Of a .jsonl, .csv, .tsv or .parquet file, the paths are the strings of one column. A column of a .parquet file may also have the
    /// images themselves: the bytes of their files, or groups of `bytes` and `path`, as in the data sets of the Hugging
    /// Face hub.
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,

    /// The column that the images are in, of a .jsonl, .csv, .tsv or .parquet file. [default: image]
    #[arg(long, value_name = "NAME", requires = "images")]
    image_column: Option<String>,

    /// Where to write the vectors: a name that ends in .safetensors, .npy or .parquet. A file that is there is replaced.
    ///
    /// .safetensors has `text_embeds` and `image_embeds` of shape (items, width), f32, and `texts` and `images`, u8, with
    /// the items in their order, a JSON string on each line. .npy has one array, of either texts or images. .parquet
    /// has the columns text, image and embedding.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Leave the vectors as long as the model makes them.
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion embed --text 一只猫 --text \"a cat\" --image cat.jpg --output cats.safetensors
  altdiffusion embed --model BAAI/AltCLIP --image photos --output photos.safetensors
  altdiffusion embed --model BAAI/AltCLIP --texts captions.jsonl --text-column caption --output captions.parquet";

impl Embed {
    pub fn run(self) -> Result<()> {
        // What can be wrong with the files comes out before the work begins.
        check_writable("--output", &self.output)?;
        let format = Format::of("--output", &self.output)?;
        let (texts, images) = self.inputs()?;
        let text_survey = Survey::of(texts.iter()?)?;
        let image_survey = Survey::of(images.names()?.map(path_bytes))?;
        ensure!(
            format != Format::Npy || text_survey.count == 0 || image_survey.count == 0,
            "--output {}: an .npy file has one array, expected either texts or images; .safetensors takes both",
            self.output.display()
        );

        let embedder = self.reading.apply(self.load()?);
        let settings = Settings {
            model: self.model.source()?.to_string(),
            model_digest: digest_of_model(&embedder)?,
            dtype: self.model.dtype().as_str().to_owned(),
            width: embedder.projection_dim(),
            raw: self.raw,
            background: embedder.background(),
            texts_digest: text_survey.digest,
            images_digest: image_survey.digest,
        };
        let about = About {
            model: settings.model.clone(),
            normalized: !self.raw,
            background: Some(settings.background),
        };
        let mut partial = Partial::open(&self.output, settings)?;
        let work = Work { embedder: &embedder, raw: self.raw };
        work.texts(&texts, text_survey.count, &mut partial)?;
        let transparent = work.images(&images, image_survey.count, &mut partial)?;

        let (done_texts, done_images) = (partial.texts.counts(), partial.images.counts());
        if done_texts.rows + done_images.rows == 0 {
            partial.discard();
            bail!(
                "{}: not written, for {}",
                self.output.display(),
                match done_images.done {
                    1 => "the image cannot be read".to_owned(),
                    count => format!("none of the {count} images can be read"),
                }
            );
        }
        let width = embedder.projection_dim();
        partial.finish(&self.output, |partial, path| {
            format.write(path, width, &partial.texts, &partial.images, &about)
        })?;
        let skipped = done_images.done - done_images.rows;
        let embedded = [count(done_texts.rows, "text"), count(done_images.rows, "image")];
        let embedded = embedded.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let skipped = count(skipped, "image").map(|images| format!("; {images} skipped"));
        let left_out = images.left_out().map(|files| format!("; left out: {files}"));
        let line =
            [format!("{}: {embedded}", self.output.display())].into_iter().chain(skipped).chain(left_out);
        self.reading.warn_of_transparency(transparent);
        print_line(line.collect::<String>())
    }

    fn inputs(&self) -> Result<(Texts, Images)> {
        let is_stdin = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        ensure!(
            !(is_stdin(&self.texts) && is_stdin(&self.images)),
            "--texts - and --images -: only one of them can be standard input"
        );
        let list = |option, path: &Option<PathBuf>, column: &Option<String>, usual| {
            let path = path.as_deref();
            path.map(|path| List::open(option, path, column.as_deref(), usual)).transpose()
        };
        let texts = list("--texts", &self.texts, &self.text_column, "text")?;
        let images = list("--images", &self.images, &self.image_column, "image")?;
        Ok((Texts { arguments: self.text.clone(), list: texts }, Images::new(self.image.clone(), images)))
    }

    fn load(&self) -> Result<Embedder> {
        let device = self.model.device()?;
        let source = self.model.source()?;
        tracing::info!("loading {source}");
        if !self.model.is_shipped() {
            announce(&format!("Loading {source}"));
        }
        Ok(Embedder::from_source(&source, self.model.dtype(), &device)?)
    }
}

fn path_bytes(path: Result<PathBuf>) -> Result<Vec<u8>> {
    Ok(path?.into_os_string().into_encoded_bytes())
}

fn count(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    }
}

/// Weights, tokenizer, type and device in short: what comes of a text and, where the model can read any, of an image.
fn digest_of_model(embedder: &Embedder) -> Result<String> {
    let text = embedder.embed_texts(&["一只猫 and a red apple"])?;
    let image =
        image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([4 * x as u8, 5 * y as u8, (x * y) as u8]));
    let mut numbers: Vec<f32> = text.flatten_all()?.to_vec1()?;
    if embedder.image_processor().is_ok() {
        let embedded = embedder.embed_images(&[DynamicImage::ImageRgb8(image)])?;
        numbers.extend(embedded.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(digest_of_numbers(&numbers))
}

struct Work<'a> {
    embedder: &'a Embedder,
    raw: bool,
}

impl Work<'_> {
    /// Embeds the texts that are not done yet, of `total`.
    fn texts(&self, texts: &Texts, total: usize, partial: &mut Partial) -> Result<()> {
        let done = partial.texts.counts().done;
        if done == total {
            return Ok(());
        }
        let progress = Progress::items("Texts", done, total);
        let mut left = texts.iter()?.skip(done);
        loop {
            let batch: Vec<String> = left.by_ref().take(TEXT_BATCH).collect::<Result<_>>()?;
            if batch.is_empty() {
                break;
            }
            let vectors = self.embedder.embed_texts(&batch)?.to_vec2::<f32>()?;
            for (text, vector) in batch.iter().zip(vectors) {
                let vector = self.finished(vector).with_context(|| format!("the text {text:?}"))?;
                partial.texts.push(text, &vector)?;
            }
            partial.save_if_due()?;
            progress.advance(partial.texts.counts().done);
        }
        ensure!(partial.texts.counts().done == total, "--texts: changed while they were read");
        partial.save()
    }

    /// Embeds the images that are not done yet, of `total`. Those that cannot be read are reported and skipped.
    /// Tells how many were transparent and had no background.
    fn images(&self, images: &Images, total: usize, partial: &mut Partial) -> Result<usize> {
        let done = partial.images.counts().done;
        if done == total {
            return Ok(0);
        }
        let progress = Progress::items("Images", done, total);
        // The stream takes no errors: the list ends with one, which is told when what came before it is done.
        let failure = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&failure);
        let images = images.iter()?.skip(done).map_while(move |image| {
            image.map_err(|error| *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(error)).ok()
        });
        let mut stream = self.embedder.image_stream(images);
        for (path, vector) in stream.by_ref() {
            match named(&path, vector) {
                Ok((name, vector)) => {
                    let vector = self.finished(vector).with_context(|| name.to_owned())?;
                    partial.images.push(name, &vector)?;
                }
                Err(error) if is_of_the_image(&error) => {
                    progress.note(&format!("skipped: {error}"));
                    partial.images.skip();
                }
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
            let done = partial.images.counts().done;
            if done.is_multiple_of(IMAGE_BATCH) {
                partial.save_if_due()?;
                progress.advance(done);
            }
        }
        partial.save()?;
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        ensure!(partial.images.counts().done == total, "the lists of images changed while they were read");
        Ok(stream.transparent())
    }

    /// The vector as it is stored.
    fn finished(&self, vector: Vec<f32>) -> Result<Vec<f32>> {
        let vector = if self.raw { vector } else { unit_vector(&vector) };
        if vector.iter().all(|number| number.is_finite()) {
            return Ok(vector);
        }
        Err(anyhow!(
            "its vector is not finite: f16 may have overflowed, use bf16 or f32; or the weights are damaged"
        ))
    }
}

/// An image's name as it is stored, and its vector.
fn named(
    path: &Path,
    vector: altclip_encoder::Result<Vec<f32>>,
) -> altclip_encoder::Result<(&str, Vec<f32>)> {
    let not_utf8 = || altclip_encoder::Error::format(path.display().to_string(), "its name is not in UTF-8");
    Ok((path.to_str().ok_or_else(not_utf8)?, vector?))
}

/// Whether it is the image that is bad, and not the model or the device.
fn is_of_the_image(error: &altclip_encoder::Error) -> bool {
    use altclip_encoder::Error::Files;
    use model_files::Error;
    matches!(error, Files(Error::Io { .. } | Error::Format { .. }))
}
