//! `altdiffusion classify`: labels images, without training for the labels (zero-shot).

use std::path::{Path, PathBuf};

use altclip_encoder::embedder::{ImageSource, LABEL_PLACE};
use anyhow::{Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use embedding_index::readers::ImageInputs;
use serde::Serialize;

use crate::commands::similarity::note_if_alone;
use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::option_values;
use crate::progress::ProgressLine;
use crate::standard_input;
use crate::standard_streams::{complain, is_for_people, percent, print_json, print_table};
use crate::text_lines::read_names;

/// Label images.
///
/// Classifies without training (zero-shot), as in the CLIP paper: each label is put into every template, and the
/// mean of those texts' vectors stands for the label. Labels and templates may be in any language that the model
/// knows.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Classify {
    /// Images to label: files, patterns such as 'photos/*.jpg', or directories; - for standard input. One that cannot be
    /// read is reported and skipped.
    #[arg(value_name = "PATH", required = true)]
    images: Vec<PathBuf>,

    /// A label. Repeat the option for more.
    #[arg(
        long = "label",
        value_name = "LABEL",
        required_unless_present = "labels",
        conflicts_with = "labels"
    )]
    label: Vec<String>,

    /// Read labels from a UTF-8 file, one per line; - for standard input. Empty lines are skipped.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// A template: a text with {} in place of the label. Repeat the option to average several.
    #[arg(long = "template", value_name = "TEXT", default_value = LABEL_PLACE)]
    templates: Vec<String>,

    /// Show this many labels per image, the most likely first.
    #[arg(long, value_name = "N", default_value = "5", value_parser = option_values::count, allow_negative_numbers = true)]
    top: usize,

    /// Print JSON: a list of objects with image and labels, of which each has label and probability.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Example:
  altdiffusion classify --model BAAI/AltCLIP photos --label 猫 --label 狗 --label 汽车 \\
      --template 一张{}的照片 --template 一张模糊的{}照片";

#[derive(Serialize)]
struct Image {
    image: String,
    labels: Vec<LabelScore>,
}

#[derive(Serialize)]
struct LabelScore {
    label: String,
    probability: f32,
}

impl Classify {
    pub fn run(self) -> Result<()> {
        for template in &self.templates {
            ensure!(
                template.contains(LABEL_PLACE),
                "--template {template:?}: expected {LABEL_PLACE} where the label belongs"
            );
        }
        let labels = match &self.labels {
            Some(path) => read_names("--labels", path)?,
            None => self.label.clone(),
        };
        let embedder = self.reading.apply(self.model.embedder()?);
        let classes = embedder.embed_labels(&labels, &self.templates)?;

        let (mut images, mut skipped) = (Vec::new(), 0);
        let mut sources = Vec::new();
        for given in &self.images {
            if standard_input::is_named_by(given) {
                let bytes = standard_input::read("image")?.to_vec();
                sources.push(ImageSource::Bytes { name: given.clone(), bytes });
            } else if let Err(error) = expand(given, &mut sources) {
                skipped += 1;
                complain(format!("skipped: {error}"));
            }
        }
        let progress = ProgressLine::items("Images", 0, sources.len());
        let mut stream = embedder.image_stream(sources.into_iter());
        for (done, (path, vector)) in (1..).zip(stream.by_ref()) {
            match vector {
                Ok(vector) => {
                    let vector = Tensor::from_vec(vector, (1, embedder.projection_dim()), &Device::Cpu)?;
                    let logits = embedder.similarity(&vector, &classes)?;
                    let probabilities = embedder.probabilities(&logits)?.squeeze(0)?.to_vec1()?;
                    let labels = likeliest(&labels, &probabilities, self.top);
                    images.push(Image { image: path.display().to_string(), labels });
                }
                Err(error) => {
                    skipped += 1;
                    progress.note(&format!("skipped: {error}"));
                }
            }
            progress.advance(done);
        }
        drop(progress);
        if !self.json {
            note_if_alone(&embedder, labels.len());
        }
        self.report(&images)?;
        if skipped > 0 {
            complain(format!("{skipped} of {} images skipped", images.len() + skipped));
        }
        self.reading.warn_of_transparency(stream.transparent());
        if images.is_empty() {
            bail!("none of the images could be read");
        }
        Ok(())
    }

    fn report(&self, images: &[Image]) -> Result<()> {
        if self.json {
            print_json(images)?;
            return Ok(());
        }
        // At a terminal an image is named once; programs get it on every line.
        let is_named = |rank: usize| rank == 0 || !is_for_people();
        let rows = images.iter().flat_map(|image| {
            image.labels.iter().enumerate().map(move |(rank, label)| {
                let shown = if is_named(rank) { image.image.clone() } else { String::new() };
                vec![shown, label.label.clone(), percent(label.probability)]
            })
        });
        match images {
            [] => Ok(()),
            _ => print_table(&["image", "label", "probability"], &rows.collect::<Vec<_>>(), 2..),
        }
    }
}

/// Adds the images that a path stands for, and reports the files of a folder that are none.
fn expand(given: &Path, sources: &mut Vec<ImageSource>) -> embedding_index::Result<()> {
    let Some(pattern) = given.to_str() else {
        // Only a file may have such a name.
        sources.push(given.into());
        return Ok(());
    };
    let inputs = ImageInputs::from_iter([pattern]);
    for path in inputs.names()? {
        sources.push(path?.into());
    }
    let ignored = inputs.ignored_files();
    if !ignored.is_empty() {
        complain(format!("{pattern}: left out: {ignored}"));
    }
    Ok(())
}

/// The `count` most probable labels; ties go to the earlier one.
fn likeliest(labels: &[String], probabilities: &[f32], count: usize) -> Vec<LabelScore> {
    let mut all: Vec<(&String, f32)> = labels.iter().zip(probabilities.iter().copied()).collect();
    all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let top = all.into_iter().take(count);
    top.map(|(label, probability)| LabelScore { label: label.clone(), probability }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_equal_ones_in_order() {
        let labels = ["a", "b", "c", "d"].map(str::to_owned);
        let top = likeliest(&labels, &[0.1, 0.4, 0.1, 0.4], 3);
        let names: Vec<&str> = top.iter().map(|label| label.label.as_str()).collect();
        assert_eq!(names, ["b", "d", "a"]);
    }
}
