//! The recipe of the emoji model: its settings, and the run of all stages.

mod conditions;
mod corpus;
mod diffusion;
mod encoders;
mod held_out;
mod settings;
mod start;
mod train;

pub use settings::EmojiRecipe;
