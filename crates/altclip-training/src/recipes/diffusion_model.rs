//! Opens and writes a diffusion model in training, in diffusers' folders.

use super::output::MODEL;
use crate::error::Result;
use crate::stages::sheet::DrawingParts;
use crate::tensor_file::save_weights;
use altclip_encoder::conditioner::{Conditioner, ConditionerConfig};
use altclip_encoder::images::Background;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::ModelParts;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// The model, with everything except the UNet ready to compute in f32.
pub(super) struct DiffusionModel {
    pub source: ModelSource,
    /// The model's name, as given.
    pub name: String,
    pub tokenizer: Tokenizer,
    pub text_encoder: Arc<dyn Conditioner>,
    pub vae: AutoencoderKl,
    pub scheduler: SchedulerConfig,
    pub unet_config: UNet2DConditionConfig,
    unet: Checkpoint,
    /// The background of transparent images.
    pub background: Background,
    /// The requested background, if any.
    pub asked_background: Option<Background>,
    pub device: Device,
}

impl DiffusionModel {
    /// Opens a model in diffusers' layout: a directory or a hub repository. Transparent training images get
    /// `background` or, by default, the model's own.
    ///
    /// # Errors
    /// If a part is missing or damaged.
    pub(super) fn open(name: &str, background: Option<Background>, device: &Device) -> Result<Self> {
        let source = ModelSource::open(name)?;
        let asked_background = background;
        let background = background.map_or_else(|| Background::of_model(&source), Ok)?;
        let weights = |folder: &str| -> Result<_> {
            Ok(Checkpoint::open(&source, folder)?.var_builder(DType::F32, device)?)
        };
        let scheduler = source.read("scheduler/scheduler_config.json")?;
        Ok(Self {
            name: name.to_owned(),
            tokenizer: Tokenizer::from_source(&source, "tokenizer")?,
            text_encoder: ConditionerConfig::read(&source.read("text_encoder/config.json")?)?
                .build(weights("text_encoder")?)?,
            vae: AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?,
            scheduler: SchedulerConfig::from_json(&*scheduler, scheduler.name())?.for_latents(),
            unet_config: source.read_json("unet/config.json")?,
            unet: Checkpoint::open(&source, "unet")?,
            background,
            asked_background,
            device: device.clone(),
            source,
        })
    }

    /// The UNet's weights.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn unet_weights(&self, dtype: DType) -> Result<VarBuilder<'static>> {
        Ok(self.unet.var_builder(dtype, &self.device)?)
    }

    /// The parts that draw samples.
    pub(super) fn drawing_parts(&self) -> DrawingParts<'_> {
        let Self { tokenizer, text_encoder, vae, scheduler, .. } = self;
        DrawingParts { tokenizer, text_encoder: &**text_encoder, vae, scheduler }
    }

    /// Writes the whole model to `output/model`, with these UNet weights in f32.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(super) fn write(&self, output: &Path, unet: BTreeMap<String, Tensor>) -> Result<()> {
        let folder = output.join(MODEL);
        if !folder.exists() {
            let parts = ModelParts::in_folders(&self.source)?;
            parts.write_folders(&folder, None, &mut |_, _| ControlFlow::Continue(()))?;
        }
        let weights = unet
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?)))
            .collect::<candle_core::Result<_>>()?;
        save_weights(&folder.join("unet/diffusion_pytorch_model.safetensors"), &weights)
    }
}
