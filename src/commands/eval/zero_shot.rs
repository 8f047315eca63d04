//! `altdiffusion eval zero-shot`: measures zero-shot classification.

use std::path::{Path, PathBuf};

use altclip_encoder::embedder::{Embedder, LABEL_PLACE};
use altclip_training::evaluation::{self, Classes, LabelledImages, built_in_classes, built_in_templates};
use anyhow::{Context, Result, anyhow, ensure};
use candle_core::D;
use candle_nn::ops::softmax;
use clap::Args;
use serde::Serialize;

use super::embedders::{Embedders, percent, warn_of_unread};
use crate::standard_streams::{print_json, print_table};
use crate::text_lines::read_names;

/// Measure zero-shot classification.
///
/// Prints top-1 and top-5 accuracy in percent, and the mean of the classes' accuracies, for each model and
/// language. Each class is put into every template, and the mean of those texts' vectors stands for it, as with
/// CLIP.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EvalZeroShot {
    /// The images: a folder with a subfolder for each class.
    #[arg(value_name = "DIR")]
    data: PathBuf,

    /// The classes: cifar10, or a file with one class per line: its folder, a tab, and its name.
    ///
    /// A line without a tab is both. cifar10 is built in, in en and zh. By default the classes are the subfolders, with spaces
    /// for underscores, or cifar10 if the subfolders are those.
    #[arg(long, value_name = "NAME_OR_FILE")]
    classes: Option<String>,

    /// A template: a text with {} in place of the class, for all languages. By default CLIP's for CIFAR-10, and the
    /// same in Chinese.
    #[arg(long = "template", value_name = "TEXT", conflicts_with = "templates")]
    template: Vec<String>,

    /// Read templates from a file, one per line.
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,

    /// Languages, such as en,zh: one row of the table each.
    #[arg(long = "language", value_name = "CODE,…", value_delimiter = ',', default_value = "en")]
    languages: Vec<String>,

    /// Print JSON: a list of objects with model, language, images, top1, top5 and mean_per_class.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    models: Embedders,
}

/// The data set whose classes are known.
const CIFAR10: &str = "cifar10";

const EXAMPLES: &str = "\
Examples:
  altdiffusion eval zero-shot cifar10/test --language en,zh --model BAAI/AltCLIP
  altdiffusion eval zero-shot photos --template \"a photo of a {}\"
  altdiffusion eval zero-shot photos --classes classes.txt --template 一张{}的照片 --language zh --model BAAI/AltCLIP";

#[derive(Serialize)]
struct ZeroShotRow {
    model: String,
    language: String,
    images: usize,
    #[serde(flatten)]
    score: evaluation::ZeroShotScores,
}

/// The classes and templates in a language.
struct LabelTexts {
    classes: Classes,
    templates: Vec<String>,
}

impl EvalZeroShot {
    pub fn run(self) -> Result<()> {
        // Check the options before the work begins.
        ensure!(
            self.data.is_dir(),
            "{}: expected a folder with a subfolder for each class",
            self.data.display()
        );
        let texts = self.languages.iter().map(|language| self.texts(language)).collect::<Result<Vec<_>>>()?;
        let sets = texts.iter().map(|texts| self.images(texts)).collect::<Result<Vec<_>>>()?;
        warn_of_unread(sets.iter().map(|set| &set.unread));
        let mut rows = Vec::new();
        self.models.each(|model, embedder| {
            // The folders are the same in every language.
            let Some(set) = sets.first() else { return Ok(()) };
            if embedder.is_token_wise() {
                for ((language, texts), set) in self.languages.iter().zip(&texts).zip(&sets) {
                    rows.push(self.token_wise(model, embedder, language, texts, set)?);
                }
                return Ok(());
            }
            let (vectors, is_there) = self.models.embed_images(embedder, &set.images)?;
            for ((language, texts), set) in self.languages.iter().zip(&texts).zip(&sets) {
                let classes = embedder.embed_labels(&texts.classes.names, &texts.templates)?;
                let targets = targets_there(set, &is_there);
                rows.push(ZeroShotRow {
                    model: model.to_owned(),
                    language: language.clone(),
                    images: targets.len(),
                    score: evaluation::zero_shot(&vectors, &classes, &targets)?,
                });
            }
            Ok(())
        })?;
        if self.json {
            print_json(&rows)?;
            return Ok(());
        }
        let header = ["model", "language", "images", "top-1", "top-5", "mean per class"];
        let cells = |row: &ZeroShotRow| -> Vec<String> {
            let top5 = row.score.top5.map_or("–".to_owned(), percent);
            let shares = [percent(row.score.top1), top5, percent(row.score.mean_per_class)];
            [row.model.clone(), row.language.clone(), row.images.to_string()]
                .into_iter()
                .chain(shares)
                .collect()
        };
        print_table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), 2..)
    }

    /// By similarities of tokens: for each template the softmax over the classes, and the mean of these, as in Wukong's
    /// evaluation.
    fn token_wise(
        &self,
        model: &str,
        embedder: &Embedder,
        language: &str,
        texts: &LabelTexts,
        set: &LabelledImages,
    ) -> Result<ZeroShotRow> {
        let (templates, names) = (&texts.templates, &texts.classes.names);
        let sentences = templates
            .iter()
            .flat_map(|template| names.iter().map(move |name| template.replace(LABEL_PLACE, name)));
        let compared = self.models.compare_tokens(embedder, &set.images, &sentences.collect::<Vec<_>>())?;
        let scores = compared.similarities.of_images;
        let scores = scores.reshape((scores.dim(0)?, templates.len(), names.len()))?;
        let targets = targets_there(set, &compared.is_there);
        Ok(ZeroShotRow {
            model: model.to_owned(),
            language: language.to_owned(),
            images: targets.len(),
            score: evaluation::zero_shot_by_scores(&softmax(&scores, D::Minus1)?.mean(1)?, &targets)?,
        })
    }

    fn images(&self, texts: &LabelTexts) -> Result<LabelledImages> {
        LabelledImages::read(&self.data, &texts.classes).map_err(|error| match self.classes.as_deref() {
            Some(CIFAR10) => anyhow!("{error}; for classes other than cifar10's, use --classes"),
            _ => error.into(),
        })
    }

    fn texts(&self, language: &str) -> Result<LabelTexts> {
        let classes = self.classes(language)?;
        let templates = match &self.templates {
            Some(file) => read_names("--templates", file)?,
            None if !self.template.is_empty() => self.template.clone(),
            None => built_in_templates(language)
                .with_context(|| format!("--language {language}: expected templates with --template"))?,
        };
        let unfit = templates.iter().find(|template| !template.contains(LABEL_PLACE));
        ensure!(
            unfit.is_none(),
            "template {:?}: expected {LABEL_PLACE} where the class belongs",
            unfit.map_or("", String::as_str)
        );
        Ok(LabelTexts { classes, templates })
    }

    fn classes(&self, language: &str) -> Result<Classes> {
        let Some(name) = &self.classes else {
            let found = Classes::of_subfolders(&self.data)?;
            let known = built_in_classes(CIFAR10, language);
            return Ok(known.filter(|known| known.folders == found.folders).unwrap_or(found));
        };
        if let Some(classes) = built_in_classes(name, language) {
            return Ok(classes);
        }
        let file = Path::new(name);
        ensure!(
            file.exists(),
            "--classes {name}: neither known in {language} (cifar10 is, in en and zh) nor a file"
        );
        Classes::parse(&read_names("--classes", file)?.join("\n"), file).context("--classes")
    }
}

/// The classes of the images that could be read.
fn targets_there(set: &LabelledImages, is_there: &[bool]) -> Vec<usize> {
    let targets = set.targets.iter().zip(is_there).filter(|(_, there)| **there);
    targets.map(|(target, _)| *target).collect()
}
