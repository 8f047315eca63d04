//! Loads the image tower of a CLIP that stands apart from the text tower.

use candle_core::{DType, Device};
use model_files::checkpoint::Checkpoint;
use model_files::in_folder;
use model_files::source::ModelSource;

use super::clip::ClipConfig;
use super::read_logit_scale;
use crate::error::{Error, Result};
use crate::vision::ClipVisionTower;

/// The image tower and the joint space of a CLIP in transformers' layout, for text towers that were taught its
/// vectors and are published alone.
#[derive(Debug, Clone)]
pub(super) struct SeparateImageTower {
    pub tower: ClipVisionTower,
    pub projection_dim: usize,
    pub image_size: usize,
    pub logit_scale: f32,
}

impl SeparateImageTower {
    /// Reads the CLIP that [`open`](Self::open) finds: its `vision_model.*`, `visual_projection.weight` and `logit_scale`.
    ///
    /// # Errors
    /// If there is none, or a file is missing, is damaged, or contradicts the configuration.
    pub(super) fn load(
        source: &ModelSource,
        folders: &[&str],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (config, weights) = Self::open(source, folders)?;
        Ok(Self {
            tower: ClipVisionTower::new(&config.vision_config, weights.var_builder(dtype, device)?)?,
            projection_dim: config.projection_dim,
            image_size: config.vision_config.image_size,
            logit_scale: read_logit_scale(&weights)?,
        })
    }

    /// The configuration and the weights of the CLIP in the first of these folders that has a `config.json`.
    ///
    /// # Errors
    /// If none has one, or a file is missing or damaged.
    pub(super) fn open(source: &ModelSource, folders: &[&str]) -> Result<(ClipConfig, Checkpoint)> {
        let candidates: Vec<String> = folders.iter().map(|folder| in_folder(folder, "config.json")).collect();
        let found = source.first_of(&candidates)?;
        let folder = found.as_ref().and_then(|found| candidates.iter().position(|file| file == found));
        let Some((config_file, folder)) = found.zip(folder.and_then(|index| folders.get(index))) else {
            return Err(source.missing(&candidates.join(" or ")).into());
        };
        Ok((source.read_config(&config_file)?, Checkpoint::open(source, folder)?))
    }
}

/// Checks that a text tower of `dim` values shares the space of `projection_dim` values of the images.
///
/// # Errors
/// If they differ: then the CLIP is another one.
pub(super) fn check_dim(projection_dim: usize, dim: usize, file: &str) -> Result<()> {
    match projection_dim == dim {
        true => Ok(()),
        false => Err(Error::config(
            file,
            format!(
                "texts become vectors of {dim} values, and the images of the CLIP beside it of {projection_dim}; \
                 expected the CLIP that the text tower was taught by"
            ),
        )),
    }
}
