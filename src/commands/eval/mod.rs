//! `altdiffusion eval`: evaluates models.

mod embedders;
mod emoji;
mod retrieval;
mod zero_shot;

use anyhow::Result;
use clap::Subcommand;

use emoji::EvalEmoji;
use retrieval::EvalRetrieval;
use zero_shot::EvalZeroShot;

/// Evaluate models.
#[derive(Debug, Subcommand)]
pub enum Eval {
    /// Measure how often the small model draws the emoji it is asked for.
    ///
    /// Draws prompts in each language and finds the nearest training image to each, by the model's own image
    /// encoder and by pixel distance. Also measures how well the autoencoder alone reconstructs the training
    /// images.
    Emoji(EvalEmoji),
    Retrieval(EvalRetrieval),
    ZeroShot(EvalZeroShot),
}

impl Eval {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Emoji(emoji) => emoji.run(),
            Self::Retrieval(retrieval) => retrieval.run(),
            Self::ZeroShot(zero_shot) => zero_shot.run(),
        }
    }
}
