//! `altdiffusion eval retrieval`: measures retrieval of images by texts, and texts by images.

use std::path::PathBuf;

use altclip_encoder::altclip::normalize;
use altclip_encoder::embedder::Embedder;
use altclip_training::evaluation::{self, CaptionedImages, RECALLS};
use anyhow::Result;
use candle_core::{Device, Tensor};
use clap::Args;
use serde::Serialize;

use super::embedders::{Embedders, percent, warn_of_unread};
use crate::option_values;
use crate::standard_streams::{print_json, print_table};

/// Measure retrieval: images by their captions, and captions by images.
///
/// Prints recall at 1, 5 and 10 in percent in both directions, and their mean (MR), for each model and language, as in
/// the AltCLIP report. A data set is a .jsonl file, or a folder with en.jsonl, zh.jsonl and so on, with lines such as
/// {"image": "images/1.jpg", "captions": ["a cat", "a cat sleeps"]}; or a folder of images, each with a .txt beside it
/// that has a caption per line; or folders en, zh and so on of that kind. Image paths are relative to the file's folder.
// Its brackets are for the command's help; they are not links.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EvalRetrieval {
    /// The data set.
    #[arg(value_name = "DIR_OR_FILE")]
    data: PathBuf,

    /// Languages, such as en,zh: one row of the table each.
    #[arg(long = "language", value_name = "CODE,…", value_delimiter = ',', default_value = "en")]
    languages: Vec<String>,

    /// Use only the first N captions of each image. By default all.
    #[arg(long, value_name = "N", value_parser = option_values::count, allow_negative_numbers = true)]
    captions: Option<usize>,

    /// For models with a ranker, R2D2, also rank the K nearest again by it: a second row for each language.
    #[arg(long, value_name = "K", value_parser = option_values::count, allow_negative_numbers = true)]
    rerank: Option<usize>,

    /// Print JSON: a list of objects with model, language, images, captions, text_to_image, image_to_text and mean_recall.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    models: Embedders,
}

const EXAMPLES: &str = "\
Data sets:
  Flickr30k and Flickr30k-CN: the 1000 test images of Karpathy's split, five captions each, in en.jsonl and zh.jsonl.
  COCO-CN: its 1000 test images with a caption each, in zh.jsonl. XTD: 1000 images and a file for each language.

Example:
  altdiffusion eval retrieval flickr30k --language en,zh --model BAAI/AltCLIP --model openai/clip-vit-large-patch14";

#[derive(Serialize)]
struct RetrievalRow {
    model: String,
    language: String,
    images: usize,
    captions: usize,
    #[serde(flatten)]
    recall: evaluation::RetrievalScores,
    mean_recall: f64,
}

impl EvalRetrieval {
    pub fn run(self) -> Result<()> {
        // Check the data before the work begins.
        let most = self.captions.unwrap_or(usize::MAX);
        let read = |language: &String| CaptionedImages::read(&self.data, language, most);
        let sets = self.languages.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        warn_of_unread(sets.iter().map(|set| &set.unread));
        let mut rows = Vec::new();
        self.models.each(|model, embedder| {
            // Languages usually share their images.
            let mut last: Option<(&CaptionedImages, _)> = None;
            for (language, set) in self.languages.iter().zip(&sets) {
                if embedder.is_token_wise() {
                    rows.push(self.token_wise(model, embedder, language, set)?);
                    continue;
                }
                let (vectors, is_there) = match last.take() {
                    Some((other, found)) if other.images == set.images => found,
                    _ => self.models.embed_images(embedder, &set.images)?,
                };
                let found = set.only(&is_there);
                let texts = normalize(&embedder.embed_texts(&found.captions)?)?;
                let recall = evaluation::retrieval(&vectors, &texts, &found.owners)?;
                rows.push(RetrievalRow::new(model.to_owned(), language, &found, recall));
                if let Some(top) = self.rerank.filter(|_| embedder.ranks()) {
                    let ranker = self.models.pair_ranker(embedder, &found.images, &found.captions)?;
                    let recall =
                        evaluation::reranked_retrieval(&vectors, &texts, &found.owners, top, |pairs| {
                            ranker.scores(pairs).map_err(anyhow::Error::from)
                        })?;
                    rows.push(RetrievalRow::new(format!("{model}, reranked"), language, &found, recall));
                }
                last = Some((set, (vectors, is_there)));
            }
            Ok(())
        })?;
        if self.json {
            print_json(&rows)?;
            return Ok(());
        }
        let header = ["model", "language", "images", "captions"].map(str::to_owned).into_iter();
        let recalls = |way: &str| RECALLS.map(|k| format!("{way} R@{k}"));
        let header =
            header.chain(recalls("text → image")).chain(recalls("image → text")).chain(["MR".to_owned()]);
        let cells: Vec<_> = rows.iter().map(RetrievalRow::cells).collect();
        print_table(&header.collect::<Vec<_>>(), &cells, 2..)
    }
}

impl EvalRetrieval {
    /// By similarities of tokens, which are no products of vectors.
    fn token_wise(
        &self,
        model: &str,
        embedder: &Embedder,
        language: &str,
        set: &CaptionedImages,
    ) -> Result<RetrievalRow> {
        let compared = self.models.compare_tokens(embedder, &set.images, &set.captions)?;
        let found = set.only(&compared.is_there);
        let kept =
            (0u32..).zip(&set.owners).filter(|(_, owner)| compared.is_there.get(**owner) == Some(&true));
        let kept = Tensor::from_iter(kept.map(|(text, _)| text), &Device::Cpu)?;
        let of_kept = |scores: &Tensor| scores.index_select(&kept, 1);
        let similarities = &compared.similarities;
        let recall = evaluation::retrieval_by_scores(
            &of_kept(&similarities.of_texts)?,
            &of_kept(&similarities.of_images)?,
            &found.owners,
        )?;
        Ok(RetrievalRow::new(model.to_owned(), language, &found, recall))
    }
}

impl RetrievalRow {
    fn new(
        model: String,
        language: &str,
        found: &CaptionedImages,
        recall: evaluation::RetrievalScores,
    ) -> Self {
        Self {
            model,
            language: language.to_owned(),
            images: found.images.len(),
            captions: found.captions.len(),
            recall,
            mean_recall: recall.mean_recall(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let Self { recall, .. } = self;
        let sizes = [self.images.to_string(), self.captions.to_string()];
        let recalls = recall.text_to_image.iter().chain(&recall.image_to_text).map(|share| percent(*share));
        [self.model.clone(), self.language.clone()]
            .into_iter()
            .chain(sizes)
            .chain(recalls)
            .chain([percent(self.mean_recall)])
            .collect()
    }
}
