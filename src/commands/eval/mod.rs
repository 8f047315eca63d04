//! `altdiffusion eval`: measurements of models.

mod embedders;
mod emoji;
mod retrieval;
mod zero_shot;

use anyhow::Result;
use clap::Subcommand;

use emoji::Emoji;
use retrieval::Retrieval;
use zero_shot::ZeroShot;

/// Measure models.
#[derive(Debug, Subcommand)]
pub enum Eval {
    /// How often the small model draws the emoji that it is asked for.
    ///
    /// Draws prompts in each language and finds the nearest training image to each drawing, by the model's own image
    /// encoder and by plain pixel distance. Also measures how well the VAE alone reconstructs the training images.
    Emoji(Emoji),
    Retrieval(Retrieval),
    ZeroShot(ZeroShot),
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
