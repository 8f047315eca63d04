//! Reads the emoji model's recipe, and runs its stages.

mod conditions;
mod corpus;
mod diffusion;
mod drawn;
mod encoders;
mod held_out;
mod settings;
mod start;
mod train;

pub use drawn::DrawnStage;
pub use settings::EmojiRecipe;
