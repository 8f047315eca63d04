//! The options that choose a model and how it computes, which several subcommands share.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use clap::Args;

use altclip_encoder::embedder::Embedder;
use altclip_encoder::source::ModelSource;
use altdiffusion_pipeline::{AltDiffusion, LoadOptions, ModelParts};

use crate::device::DeviceChoice;
use crate::progress::announce;
use crate::{option_values, shipped};

/// How the names of the repositories begin whose weights have this licence.
const PUBLISHED: &str = "BAAI/AltDiffusion";
const LICENCE: &str = "Its weights are under CreativeML Open RAIL-M, which limits what they may be used for: \
                       https://huggingface.co/spaces/CompVis/stable-diffusion-license";

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model: a directory, or a repository on the Hugging Face hub. By default, the one inside this program.
    ///
    /// A directory has the layout of the published models: for AltDiffusion the folders tokenizer, text_encoder, unet, vae
    /// and scheduler; for AltCLIP and its relatives config.json, the weights and the tokenizer's files. A repository is
    /// called by its name, such as BAAI/AltDiffusion-m9, with @REVISION after it for another revision than main; it is
    /// downloaded once. The weights of BAAI/AltDiffusion, -m9 and -m18 are under the licence CreativeML Open RAIL-M, which
    /// limits what they may be used for. The variables HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured.
    ///
    /// `generate` also takes an AltDiffusion model in one file, .safetensors, .gguf or .ckpt, as latent diffusion names its
    /// tensors. It needs a --config.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    model: Option<String>,

    /// Where the tokenizer of a --model in one file is, and its configurations: a directory, or a repository on the hub.
    ///
    /// A file that `convert` wrote holds its configurations itself, and needs only the tokenizer. Where there is no
    /// configuration at all, the shapes of the tensors tell it.
    #[arg(long, value_name = "DIR_OR_HUB_ID", requires = "model")]
    config: Option<String>,

    /// Which of several weights to read, as `variant` in diffusers: fp16 for model.fp16.safetensors and the like.
    ///
    /// Every part of the model must have it. Without this option, fp16 is read where there is nothing else.
    #[arg(long, value_name = "NAME", requires = "model")]
    variant: Option<String>,

    /// The type of the numbers that the model computes with: f32, f16 or bf16.
    ///
    /// The two short ones need half of the memory and are fast on a GPU. Of these f16 is the more exact, and bf16 the
    /// one that does not overflow. On the CPU, weights in blocks, as `convert` writes them, stay as they are in either
    /// case; a GPU gets them as numbers of this type.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = option_values::dtype)]
    dtype: DType,

    /// Where the model computes: cpu, cuda, metal, or auto for a GPU if there is one that this build can use.
    ///
    /// Of several GPUs, cuda:1 is the second.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl ModelArgs {
    /// Where the model's files come from.
    ///
    /// # Errors
    /// When the name can be neither that of a directory nor that of a repository.
    pub fn source(&self) -> Result<ModelSource> {
        ensure!(self.config.is_none(), "--config: is for a --model in one file, where there is none with it");
        match &self.model {
            Some(name) => open_source(name, self.variant.as_deref()),
            None => Ok(shipped::source()),
        }
    }

    /// Loads the model as a pipeline that draws, from folders or from one file, as `change` would have it.
    ///
    /// # Errors
    /// When it is none, or a part of it is missing or damaged, or cannot be changed so.
    pub fn pipeline(&self, change: impl FnOnce(LoadOptions) -> Result<LoadOptions>) -> Result<AltDiffusion> {
        let options = change(LoadOptions::new(self.dtype, &self.device()?))?;
        Ok(AltDiffusion::load(self.parts()?, options)?)
    }

    /// The parts of the model, in folders or in one file.
    fn parts(&self) -> Result<ModelParts> {
        let Some(file) = self.single_file() else {
            let source = self.source()?;
            tracing::info!("loading {source}");
            if !self.is_shipped() {
                announce(&format!("Loading {source}"));
            }
            if self.model.as_deref().is_some_and(|name| name.starts_with(PUBLISHED)) {
                announce(LICENCE);
            }
            return Ok(ModelParts::in_folders(&source)?);
        };
        ensure!(
            self.variant.is_none(),
            "--variant: is for a --model in folders, found the file {}",
            file.display()
        );
        let Some(beside) = &self.config else {
            bail!(
                "--model {}: one file holds no tokenizer, name a model that has it with --config DIR_OR_HUB_ID, such as \
                 --config BAAI/AltDiffusion-m9",
                file.display()
            );
        };
        let beside = ModelSource::open(beside).context("--config")?;
        tracing::info!("loading {}", file.display());
        announce(&format!("Loading {}", file.display()));
        Ok(ModelParts::in_single_file(file, Some(&beside))?)
    }

    /// The model, if it is one file.
    fn single_file(&self) -> Option<&Path> {
        self.model.as_deref().map(Path::new).filter(|path| path.is_file())
    }

    /// Loads the model as a dual encoder of texts and pictures.
    ///
    /// # Errors
    /// When it is none, or a file of it is missing or damaged.
    pub fn embedder(&self) -> Result<Embedder> {
        let device = self.device()?;
        let source = self.source()?;
        tracing::info!("loading {source}");
        if !self.is_shipped() {
            announce(&format!("Loading {source}"));
        }
        Ok(Embedder::from_source(&source, self.dtype, &device)?)
    }

    /// Whether it is the model inside this program.
    pub fn is_shipped(&self) -> bool {
        self.model.is_none()
    }

    /// What to call the model: a hub id as it is, and of a directory or a file its own name alone.
    pub fn name(&self) -> &str {
        self.model.as_deref().map_or("emoji", short_name)
    }

    /// The type to compute with.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Makes the device ready.
    ///
    /// # Errors
    /// When this build cannot use such a device, or there is none.
    pub fn device(&self) -> Result<Device> {
        self.device.open()
    }
}

/// What to call a model: a hub id as it is, and of a directory or a file its own name alone.
pub fn short_name(name: &str) -> &str {
    let path = Path::new(name);
    if path.exists() { path.file_name().and_then(OsStr::to_str).unwrap_or(name) } else { name }
}

/// The model called `name`, of which one variant of the weights is read if a person asked for one.
///
/// # Errors
/// When there can be no model, or no variant, of such a name.
pub fn open_source(name: &str, variant: Option<&str>) -> Result<ModelSource> {
    let source = ModelSource::open(name)?;
    match variant {
        Some(variant) => source.with_variant(variant).context("--variant"),
        None => Ok(source),
    }
}
