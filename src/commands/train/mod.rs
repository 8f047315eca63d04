//! `altdiffusion train`: trains models, with a subcommand per method.

mod concepts;
mod emoji;
mod prepare;
mod ranks;
mod recipe;
mod watch;

use altclip_training::recipes::{
    ContrastiveRecipe, DiffusionRecipe, DreamBoothRecipe, LoraRecipe, TeacherRecipe, TextualInversionRecipe,
};
use anyhow::Result;
use clap::Subcommand;

/// Train models.
#[derive(Debug, Subcommand)]
pub enum Train {
    /// Prepare the emoji data set from npm packages.
    ///
    /// Needs cldr-annotations-full, cldr-annotations-derived-full (48.2.0), emoji-datasource-google and
    /// emoji-datasource-twitter (16.0.0), unpacked side by side as in node_modules, or as the files that `npm pack`
    /// writes.
    Prepare(prepare::Prepare),
    /// Train the model inside this program, or resume its training.
    ///
    /// Every stage resumes from its newest checkpoint, with the same losses as an unbroken run. Ctrl-C ends after
    /// the current step, with a checkpoint.
    Emoji(emoji::TrainEmoji),
    /// Write what the small model draws beside its weights, so that it can say so.
    ///
    /// `train emoji` does that at the end. The file, concepts.json.gz, has the concepts' names in all languages, and the
    /// words of the captions, by which `generate` finds prompts about something else. How many words of a prompt may be
    /// unknown is set on phrases that training does not have.
    Concepts(concepts::WriteConcepts),
    /// Distil a multilingual text tower from an English model, with parallel texts only.
    ///
    /// The first stage of AltCLIP. The configuration names the teacher (any family of dual encoders), the student
    /// (AltCLIP's layout), and a JSONL, CSV, TSV or Parquet file with a column for each language.
    Teacher(recipe::RecipeRun),
    /// Fine-tune a text tower on images and captions, with the image tower frozen.
    ///
    /// The second stage of AltCLIP. The image tower is the model's own, or that of another dual encoder, of any family.
    /// Batches larger than memory go through the text tower in chunks, with the same gradient.
    ///
    /// Images and captions come from a JSONL, CSV, TSV or Parquet file, from WebDataset archives (.tar, or
    /// name-{000..012}.tar), or from a folder: of such archives, of images with a metadata.jsonl or metadata.csv,
    /// or of images with .txt files beside them. What cannot be read is skipped and counted.
    Contrastive(recipe::RecipeRun),
    /// Re-align a diffusion model to its text encoder, with images and captions.
    ///
    /// The configuration lists the stages. AltDiffusion trains first only the keys and values of the
    /// cross-attentions, at a low resolution; then the whole UNet, at full resolution; then with one caption in ten
    /// dropped. Data is read as for `contrastive`.
    Diffusion(recipe::RecipeRun),
    /// Train a LoRA on images and captions.
    ///
    /// The model stays as it is; the result is one small file, for `generate --lora` here and for diffusers.
    Lora(recipe::RecipeRun),
    /// Teach a model a subject from a few images (DreamBooth).
    ///
    /// All images share one prompt with a rare word; beside them the model learns its own images of the thing's
    /// class, which it draws first. The result is a LoRA, or a whole model.
    Dreambooth(recipe::RecipeRun),
    /// Learn a new word from a few images (textual inversion).
    ///
    /// The model stays as it is; the word's embeddings are one small file, for `generate --embedding` here and for
    /// diffusers.
    TextualInversion(recipe::RecipeRun),
}

impl Train {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Prepare(prepare) => prepare.run(),
            Self::Emoji(emoji) => emoji.run(),
            Self::Concepts(concepts) => concepts.run(),
            Self::Teacher(run) => run.run::<TeacherRecipe>(),
            Self::Contrastive(run) => run.run::<ContrastiveRecipe>(),
            Self::Diffusion(run) => run.run::<DiffusionRecipe>(),
            Self::Lora(run) => run.run::<LoraRecipe>(),
            Self::Dreambooth(run) => run.run::<DreamBoothRecipe>(),
            Self::TextualInversion(run) => run.run::<TextualInversionRecipe>(),
        }
    }
}
