//! `altdiffusion similarity`: measures how well texts match images.

use std::path::PathBuf;

use altclip_encoder::altclip::normalize;
use altclip_encoder::embedder::Embedder;
use anyhow::Result;
use candle_core::Tensor;
use clap::Args;
use image::DynamicImage;
use serde::Serialize;

use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::progress::{ProgressLine, note};
use crate::standard_streams::{is_for_people, percent, print_json, print_table};

/// Compare texts with images.
///
/// Prints, for each image, the probability that each text is the one that describes it, as CLIP defines it: the
/// texts compete, so give at least two. They may be in any language that the model knows.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Similarity {
    /// An image. Repeat the option for more.
    #[arg(long = "image", value_name = "FILE", required = true)]
    images: Vec<PathBuf>,

    /// A text. Repeat the option for more.
    #[arg(long = "text", value_name = "TEXT", required = true)]
    texts: Vec<String>,

    /// Print how well each pair matches by reading both at once, instead of comparing vectors. Only R2D2 can.
    #[arg(long)]
    rerank: bool,

    /// Print JSON: a list of objects with image and texts, of which each has text, probability, logit and cosine.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Example:
  altdiffusion similarity --model BAAI/AltCLIP --image cats.jpg --text 一张猫的照片 --text 一张狗的照片";

/// An image with all texts.
#[derive(Serialize)]
struct ImageScores<'a> {
    image: String,
    texts: Vec<Text<'a>>,
}

/// A text with its scores.
#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
    probability: f32,
    /// Cosine times the model's logit scale, plus SigLIP's bias; see `Embedder::probabilities`.
    logit: f32,
    cosine: f32,
}

/// Says at a terminal that texts compete, if there is only one. For SigLIP they do not.
pub fn note_if_alone(embedder: &Embedder, texts: usize) {
    let compete = embedder.model().properties().logit_bias.is_none();
    if texts == 1 && compete && is_for_people() {
        note("one text or label alone always gets 100 %; give others to compare it with");
    }
}

impl Similarity {
    pub fn run(self) -> Result<()> {
        // Files that are not images are reported before the model is loaded.
        let opened =
            self.images.iter().map(|path| self.reading.open("--image", path)).collect::<Result<Vec<_>>>()?;
        let embedder = self.reading.apply(self.model.embedder()?);
        let progress = ProgressLine::start("Comparing");
        let (cosines, logits) = self.compare(&embedder, &opened)?;
        drop(progress);
        self.reading.warn_of_transparency(self.reading.transparent(&opened, &embedder));
        let probabilities = match self.rerank {
            false => embedder.probabilities(&logits)?,
            true => embedder.match_scores(&opened, &self.texts)?,
        };
        let rows = self.rows(&cosines, &logits, &probabilities)?;
        if self.json {
            print_json(&rows)?;
            return Ok(());
        }
        if !self.rerank {
            note_if_alone(&embedder, self.texts.len());
        }
        let header: Vec<&str> = ["image"].into_iter().chain(self.texts.iter().map(String::as_str)).collect();
        let line = |image: ImageScores| {
            let shares = image.texts.iter().map(|text| percent(text.probability));
            [image.image.clone()].into_iter().chain(shares).collect()
        };
        print_table(&header, &rows.into_iter().map(line).collect::<Vec<_>>(), 1..)
    }

    /// Cosines and logits, (images, texts).
    fn compare(&self, embedder: &Embedder, images: &[DynamicImage]) -> Result<(Tensor, Tensor)> {
        if embedder.is_token_wise() {
            let cosines = embedder.token_similarities(images, &self.texts)?.of_images;
            let logits = (&cosines * f64::from(embedder.model().logit_scale()))?;
            return Ok((cosines, logits));
        }
        let images = normalize(&embedder.embed_images(images)?)?;
        let texts = normalize(&embedder.embed_texts(&self.texts)?)?;
        Ok((images.matmul(&texts.t()?)?, embedder.similarity(&images, &texts)?))
    }

    /// `cosines`, `logits` and `probabilities` are (images, texts).
    fn rows(
        &self,
        cosines: &Tensor,
        logits: &Tensor,
        probabilities: &Tensor,
    ) -> Result<Vec<ImageScores<'_>>> {
        let probabilities = probabilities.to_vec2::<f32>()?;
        let (cosines, logits) = (cosines.to_vec2::<f32>()?, logits.to_vec2::<f32>()?);
        let numbers = cosines.into_iter().zip(logits).zip(probabilities);
        let images = self.images.iter().zip(numbers).map(|(path, ((cosines, logits), probabilities))| {
            let numbers = cosines.into_iter().zip(logits).zip(probabilities);
            let texts = self.texts.iter().zip(numbers).map(|(text, ((cosine, logit), probability))| Text {
                text,
                probability,
                logit,
                cosine,
            });
            ImageScores { image: path.display().to_string(), texts: texts.collect() }
        });
        Ok(images.collect())
    }
}
