//! `altdiffusion train`: the training recipe.

mod emoji;
mod prepare;
mod stage;
mod watch;

use anyhow::Result;
use clap::Subcommand;

/// Train models.
#[derive(Debug, Subcommand)]
pub enum Train {
    /// Make the emoji data set from npm packages.
    ///
    /// Needs cldr-annotations-full, cldr-annotations-derived-full (48.2.0), emoji-datasource-google and
    /// emoji-datasource-twitter (16.0.0), unpacked side by side as in node_modules or as the files that `npm pack`
    /// writes.
    Prepare(prepare::Prepare),
    /// Train the small model that ships with the program, or its successor for 18 languages; or resume the training.
    ///
    /// Every stage goes on from its newest checkpoint, to the same losses as if it had never ended. Ctrl-C ends the run
    /// after the current step, with a checkpoint.
    Emoji(emoji::Emoji),
    /// Teach a multilingual text tower the vectors of an English model, from parallel texts alone.
    ///
    /// The first stage of AltCLIP. The configuration names the teacher, of any family of dual encoders, the student in
    /// AltCLIP's layout, and a JSONL, CSV or TSV file with a column for each language.
    Teacher(stage::StageRun),
    /// Train a text tower further on pictures and captions, with the image tower frozen.
    ///
    /// The second stage of AltCLIP. Batches larger than memory go through the tower in chunks, with the same gradient.
    Contrastive(stage::StageRun),
    /// Re-align a diffusion model to its text encoder on pictures and captions.
    ///
    /// The configuration lists the stages: in AltDiffusion first only the keys and values of the cross-attentions, at a low
    /// resolution; then the whole UNet, at the full one; then with one caption in ten left out.
    Diffusion(stage::StageRun),
}

impl Train {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Prepare(prepare) => prepare.run(),
            Self::Emoji(emoji) => emoji.run(),
            Self::Teacher(run) => run.teacher(),
            Self::Contrastive(run) => run.contrastive(),
            Self::Diffusion(run) => run.diffusion(),
        }
    }
}
