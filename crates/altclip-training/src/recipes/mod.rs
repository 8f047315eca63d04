//! Defines complete training runs on published models of any size, each with one configuration file.

mod altclip_model;
mod caption_states;
mod contrastive;
mod data;
mod diffusion;
mod diffusion_model;
mod dreambooth;
mod encoded_images;
mod encoded_pairs;
mod fine_tuning;
mod frozen_encoder;
mod lora;
mod output;
mod precision;
mod recipe;
mod teacher;
mod textual_inversion;

pub use contrastive::ContrastiveRecipe;
pub use diffusion::DiffusionRecipe;
pub use dreambooth::{DreamBoothRecipe, PriorPreservation};
pub use fine_tuning::FineTuningStage;
pub use lora::LoraRecipe;
pub use precision::Precision;
pub use recipe::TrainingRecipe;
pub use teacher::TeacherRecipe;
pub use textual_inversion::TextualInversionRecipe;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use std::path::Path;

    /// The example configurations.
    #[test]
    fn the_configurations_of_this_crate_can_be_read() -> Result<()> {
        let config = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
        TeacherRecipe::load(&config("teacher.toml"), &[])?;
        ContrastiveRecipe::load(&config("contrastive.toml"), &[])?;
        let diffusion = DiffusionRecipe::load(&config("diffusion.toml"), &["seed=7".parse()?])?;
        assert_eq!((diffusion.stages.len(), diffusion.seed), (3, 7));
        LoraRecipe::load(&config("lora.toml"), &[])?;
        DreamBoothRecipe::load(&config("dreambooth.toml"), &[])?;
        TextualInversionRecipe::load(&config("textual-inversion.toml"), &[])?;
        Ok(())
    }
}
