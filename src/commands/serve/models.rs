//! Parses which models are served, and how they are loaded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use altclip_encoder::{Embedder, PromptEncoder};
use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::{LoadOptions, ModelParts};
use altdiffusion_server::{EmbeddingModel, ImageModel, Models, ServerOptions};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use clap::Args;
use model_files::Arithmetic;
use model_files::source::ModelSource;

use crate::device::{DeviceChoice, devices};
use crate::model::{EMBEDDER_FOLDERS, PIPELINE_FOLDERS};
use crate::recorded::recorded_source;
use crate::{option_values, shipped};

/// The models of a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub struct ServedModels {
    /// Diffusion model: a directory, one file, or a repository on the hub.
    ///
    /// Repeat the option for more; requests choose by name, and the first answers those that name none. NAME=DIR_OR_HUB_ID
    /// gives it another name. Without --model and --embedder the model inside this program is served.
    #[arg(long, short_alias = 'm', value_name = "DIR_OR_HUB_ID")]
    model: Vec<String>,

    /// Model for embeddings, such as BAAI/AltCLIP: a directory, or a repository on the hub.
    ///
    /// Repeat the option for more. NAME=DIR_OR_HUB_ID gives it another name, such as one that a client asks for.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    embedder: Vec<String>,

    /// A model that has the tokenizer and configurations of a one-file --model.
    #[arg(long, value_name = "DIR_OR_HUB_ID", hide_short_help = true)]
    config: Option<String>,

    /// Autoencoder for all diffusion models, in place of their own: a file, a directory, or a repository on the hub.
    #[arg(long, value_name = "FILE_OR_DIR_OR_HUB_ID", hide_short_help = true)]
    vae: Option<String>,

    /// Number type of all models: f32, f16, bf16 or int8. By default f32.
    ///
    /// int8 is for the CPU alone: linear layers multiply 8-bit integers, and the rest is bf16. Requests for hidden states
    /// are answered in f32 in any case.
    #[arg(long, value_name = "TYPE", value_parser = option_values::arithmetics(), hide_possible_values = true)]
    dtype: Option<Arithmetic>,

    /// Device: cpu, cuda, metal, or auto, a GPU if this build can use one.
    #[arg(long, value_name = "DEVICE", value_parser = devices(), hide_possible_values = true)]
    device: Option<DeviceChoice>,

    /// Offer the LoRAs in this directory, by file name without the ending.
    #[arg(long, value_name = "DIR")]
    loras: Option<PathBuf>,

    /// Offer the textual inversions in this directory: their file names without the ending are words in prompts.
    #[arg(long, alias = "embeddings", value_name = "DIR")]
    textual_inversions: Option<PathBuf>,

    /// Offer the ControlNets in this directory, by name.
    #[arg(long, value_name = "DIR")]
    controlnets: Option<PathBuf>,

    /// Load all models at the start, not at their first use.
    #[arg(long, hide_short_help = true)]
    preload: bool,

    /// Free a model after it was idle for this long, such as 10m; forever keeps it. By default 15m.
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    keep_loaded: Option<String>,

    /// Keep each part of a diffusion model in memory only while it is in use.
    #[arg(long, hide_short_help = true)]
    low_memory: bool,

    /// Switch off the safety checker.
    #[arg(long, hide_short_help = true)]
    no_safety_checker: bool,
}

impl ServedModels {
    /// The models, which are not loaded yet.
    ///
    /// # Errors
    /// If a name can be neither a directory nor a repository, or the device is not available, or cannot compute in the
    /// number type.
    pub fn all(&self) -> Result<Models> {
        let arithmetic = self.dtype.unwrap_or(Arithmetic::F32);
        let device = self.device.unwrap_or(DeviceChoice::Auto).open_for(arithmetic)?;
        let options = LoadOptions::computing_in(arithmetic, &device).low_memory(self.low_memory);
        let options = options.safety_checker(!self.no_safety_checker);
        ensure!(
            self.vae.is_none() || !self.model.is_empty(),
            "--vae: is for a --model, and there is none with it"
        );
        let mut models = Models::new();
        if self.model.is_empty() && self.embedder.is_empty() {
            models = models.image_model(built_in(options.clone()));
            let source = shipped::source().computing_in(arithmetic);
            let embedder = move || Embedder::from_source(&source, arithmetic.dtype(), &device);
            return Ok(models.embedding_model(EmbeddingModel::new(shipped::NAME, embedder)));
        }
        for name in &self.model {
            models = models.image_model(self.image_model(name, options.clone()).context("--model")?);
        }
        for name in &self.embedder {
            let model = embedding_model(name, arithmetic, &device).context("--embedder")?;
            models = models.embedding_model(model);
        }
        Ok(models)
    }

    fn image_model(&self, given: &str, options: LoadOptions) -> Result<ImageModel> {
        let (served, name) = named(given);
        let mut recorded = ParameterFields::default();
        recorded.add("Model", recorded_source(name));
        recorded.add_some("VAE", self.vae.as_deref().map(recorded_source));
        recorded.add("Dtype", options.arithmetic_name());
        let vae = self.vae.clone();
        let exchange_vae = move |parts: ModelParts| match &vae {
            Some(name) => parts.with_vae(name),
            None => Ok(parts),
        };
        let model = if let Some(path) = ModelParts::file_at(Path::new(name)) {
            let beside = self.config.as_deref().map(ModelSource::open).transpose().context("--config")?;
            let parts = move || exchange_vae(ModelParts::in_single_file(&path, beside.as_ref())?);
            ImageModel::new(served, parts, options)
        } else {
            let source = ModelSource::open(name)?;
            let (of_parts, device) = (source.clone(), options.device.clone());
            let parts = move || {
                of_parts.prefetch(&PIPELINE_FOLDERS)?;
                exchange_vae(ModelParts::in_folders(&of_parts)?)
            };
            let encoder = move || {
                source.prefetch(&["tokenizer", "text_encoder"])?;
                PromptEncoder::from_source(&source, DType::F32, &device)
            };
            ImageModel::new(served, parts, options).prompt_encoder(encoder)
        };
        Ok(model.recorded_as(recorded))
    }

    /// Sets what concerns models.
    ///
    /// # Errors
    /// If a directory does not exist, or a time cannot be read.
    pub fn set(&self, options: &mut ServerOptions) -> Result<()> {
        for (option, folder) in [
            ("--loras", &self.loras),
            ("--textual-inversions", &self.textual_inversions),
            ("--controlnets", &self.controlnets),
        ] {
            if let Some(folder) = folder {
                ensure!(folder.is_dir(), "{option} {}: expected a directory", folder.display());
            }
        }
        options.lora_folder = self.loras.clone();
        options.word_folder = self.textual_inversions.clone();
        options.controlnet_folder = self.controlnets.clone();
        options.preload = self.preload;
        if let Some(time) = &self.keep_loaded {
            options.keep_loaded = match time.as_str() {
                "forever" => None,
                time => Some(duration(time).with_context(|| format!("--keep-loaded {time}"))?),
            };
        }
        Ok(())
    }
}

/// Reads a time such as 10m.
pub fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text).ok().context("expected a time, such as 30s or 10m")
}

/// The model inside this program.
fn built_in(options: LoadOptions) -> ImageModel {
    let model = ImageModel::from_source(shipped::NAME, shipped::source(), options);
    let model = model.steps(shipped::STEPS).guidance_scale(shipped::GUIDANCE_SCALE);
    model.size(shipped::SIDE, shipped::SIDE).scale(shipped::SCALE)
}

fn embedding_model(given: &str, arithmetic: Arithmetic, device: &Device) -> Result<EmbeddingModel> {
    let (served, name) = named(given);
    let (source, device) = (ModelSource::open(name)?.computing_in(arithmetic), device.clone());
    let load = move || {
        source.prefetch(&EMBEDDER_FOLDERS)?;
        Embedder::from_source(&source, arithmetic.dtype(), &device)
    };
    Ok(EmbeddingModel::new(served, load))
}

/// The name by which requests choose a model, and where it is, from NAME=DIR_OR_HUB_ID or the place alone.
fn named(given: &str) -> (String, &str) {
    match given.split_once('=') {
        Some((name, place)) if !name.is_empty() && !Path::new(given).exists() => (name.to_owned(), place),
        _ => (served_name(given), given),
    }
}

/// The name of a model without one: a repository's, or the last part of a path.
fn served_name(name: &str) -> String {
    let path = Path::new(name);
    let last = || if path.is_file() { path.file_stem() } else { path.file_name() };
    match path.exists() {
        true => last().map_or(name.to_owned(), |last| last.to_string_lossy().into_owned()),
        false => name.to_owned(),
    }
}
