//! Finds a model in one file, and refuses files that hold something else.

use std::fs;
use std::path::{Path, PathBuf};

use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::text_encoder_names::TextEncoderNames;
use super::{ModelParts, Origin, UNET_CONFIG, VAE_CONFIG, unet_names, vae_names};
use crate::{Error, Result};

/// What UNets have that depend on more than the prompt and the timestep.
const UNET_LABELS: &str = "model.diffusion_model.label_emb.";

/// The file name endings of models in one file.
const ENDINGS: [&str; 3] = ["safetensors", "ckpt", "gguf"];
/// Files of models in folders, and of other models.
const OF_OTHERS: [&str; 4] = ["config.json", "open_clip_config.json", "model_index.json", UNET_CONFIG];

impl ModelParts {
    /// The file of a model in one file: `path` itself, or the only one with a usual ending in a directory that holds no
    /// other model.
    pub fn file_at(path: &Path) -> Option<PathBuf> {
        if path.is_file() {
            return Some(path.to_owned());
        }
        if OF_OTHERS.iter().any(|file| path.join(file).exists()) {
            return None;
        }
        let is_model = |path: &PathBuf| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file()
        };
        let entries = fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files = entries.filter(is_model);
        files.next().filter(|_| files.next().is_none())
    }
}

/// Refuses a file that is not a supported model, and says what it is; otherwise returns the names of its text encoder.
/// The autoencoder may be in the model `beside`.
pub(super) fn check_is_model(
    checkpoint: &Checkpoint,
    origin: Origin,
    beside: Option<&ModelSource>,
) -> Result<TextEncoderNames> {
    let lends_vae = || -> Result<bool> {
        Ok(beside.map(|source| source.read_optional(VAE_CONFIG)).transpose()?.flatten().is_some())
    };
    let has = |prefix: &str| checkpoint.names().any(|name| name.starts_with(prefix));
    let problem = if !has(unet_names::PREFIX) {
        "holds no UNet: expected a whole model in the naming of latent diffusion, found no tensor model.diffusion_model.*"
    } else if !has(vae_names::PREFIX) && !lends_vae()? {
        "expected a whole model, found no tensor first_stage_model.*: it lacks the autoencoder, and no other model with one was \
         named beside it"
    } else if has("conditioner.embedders.") {
        "expected a model with one text encoder, found Stable Diffusion XL's two, conditioner.embedders.*"
    } else if has(UNET_LABELS) {
        "expected a UNet without labels, found model.diffusion_model.label_emb.*: this is Stable Diffusion XL, unCLIP \
         or an upscaler"
    } else if let Some(names) = TextEncoderNames::of(checkpoint, origin) {
        return Ok(names);
    } else {
        "expected a whole model, found no text encoder: no tensor cond_stage_model.roberta.* (AltDiffusion), \
         cond_stage_model.transformer.* (Stable Diffusion 1, Taiyi) or cond_stage_model.model.transformer.* (Stable \
         Diffusion 2)"
    };
    Err(Error::content(checkpoint.file_name(), problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    #[test]
    fn the_only_file_of_a_directory_is_the_model() -> TestResult {
        let place = tempfile::tempdir()?;
        let path = |name: &str| place.path().join(name);
        let found = || ModelParts::file_at(place.path());
        assert_eq!(found(), None);
        for name in ["model.safetensors", "readme.md"] {
            fs::write(path(name), "")?;
        }
        assert_eq!(found(), Some(path("model.safetensors")));
        assert_eq!(ModelParts::file_at(&path("readme.md")), Some(path("readme.md")));
        assert_eq!(ModelParts::file_at(&path("none")), None);
        fs::write(path("other.ckpt"), "")?;
        assert_eq!(found(), None);
        fs::remove_file(path("other.ckpt"))?;
        fs::write(path("config.json"), "{}")?;
        assert_eq!(found(), None);
        Ok(())
    }
}
