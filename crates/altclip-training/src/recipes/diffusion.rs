//! Re-aligning an AltDiffusion on a file of pictures and captions.

use super::contrastive::files;
use super::latents::Latents;
use super::states::CaptionStates;
use super::{MODEL, Precision, open_run, tell};
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::pairs::Table;
use crate::parameters::Parameters;
use crate::recipe::frozen;
use crate::run::{Batch, Objective, Observer, save_tensors};
use crate::settings::{self, Change};
use crate::stages::functions::Functions;
use crate::stages::realign::{RealignStage, Realignment};
use crate::stages::sheet::{Drawing, SampleSheet};
use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::source::ModelSource;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::ModelParts;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Every setting of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionRecipe {
    /// Seed of all draws.
    pub seed: u64,
    /// Seconds between two checkpoints.
    pub save_every: u64,
    /// The model whose UNet is trained, in the layout of diffusers: a directory, or a repository on the hub.
    pub model: String,
    #[serde(default)]
    pub precision: Precision,
    /// A file of pictures and captions, `.jsonl`, `.csv` or `.tsv`.
    pub data: PathBuf,
    /// The column of the pictures' files, whose names begin in the folder of `data`.
    pub picture: String,
    /// The columns of the captions.
    pub captions: Vec<String>,
    /// The stages, in their order.
    pub stages: Vec<RealignStage>,
    /// Pictures that are drawn on the way.
    pub sample: Option<SampleSheet>,
}

/// The frozen parts of the model.
struct Frozen {
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    vae: AutoencoderKl,
    scheduler: SchedulerConfig,
    device: Device,
}

/// What all stages share.
struct Shared {
    config: UNet2DConditionConfig,
    table: Table,
    /// The folder of the run.
    output: PathBuf,
    frozen: Frozen,
}

impl Frozen {
    fn load(source: &ModelSource, device: &Device) -> Result<Self> {
        let weights = |folder: &str| -> Result<_> {
            Ok(Checkpoint::open(source, folder)?.var_builder(DType::F32, device)?)
        };
        let scheduler = source.read("scheduler/scheduler_config.json")?;
        Ok(Self {
            tokenizer: Tokenizer::from_source(source, "tokenizer")?,
            text_encoder: TextEncoder::new(
                &source.read_json("text_encoder/config.json")?,
                weights("text_encoder")?,
            )?,
            vae: AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?,
            scheduler: SchedulerConfig::from_json(&*scheduler, scheduler.name())?.for_latents(),
            device: device.clone(),
        })
    }
}

impl DiffusionRecipe {
    /// Reads the settings from a TOML file, with changes made to them.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    pub fn load(path: &Path, changes: &[Change]) -> Result<Self> {
        settings::load(path, changes)
    }

    /// Trains all stages, going on where an earlier run stopped, and writes the model to `output/model`. Pictures that
    /// cannot be read are skipped and counted.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, or a loss is not finite.
    pub fn train(&self, output: &Path, device: &Device, observer: &mut dyn Observer) -> Result<()> {
        if self.stages.is_empty() {
            return Err(Error::Setting("stages: expected at least one, found none".to_owned()));
        }
        let source = ModelSource::open(&self.model)?;
        let columns: Vec<&str> =
            std::iter::once(&self.picture).chain(&self.captions).map(String::as_str).collect();
        let table = Table::read(&self.data, &columns)?;
        tell(observer, "data", &table.skipped);
        let shared = Shared {
            config: source.read_json("unet/config.json")?,
            table,
            output: output.to_owned(),
            frozen: Frozen::load(&source, device)?,
        };
        let checkpoint = Checkpoint::open(&source, "unet")?;
        let mut weights: Option<BTreeMap<String, Tensor>> = None;
        for stage in &self.stages {
            let initial = match &weights {
                Some(weights) => frozen(weights, device),
                None => checkpoint.var_builder(DType::F32, device)?,
            };
            let parameters = Parameters::new(self.seed).starting_from(initial);
            weights = Some(self.train_stage(stage, parameters, &shared, observer)?);
        }
        self.write(output, weights.unwrap_or_default())
    }

    /// Trains one stage from the weights of `parameters`, and returns those that it leads to.
    fn train_stage(
        &self,
        stage: &RealignStage,
        parameters: Parameters,
        shared: &Shared,
        observer: &mut dyn Observer,
    ) -> Result<BTreeMap<String, Tensor>> {
        let Shared { config, table, output, frozen } = shared;
        let run = open_run(output, &stage.name, self.seed, self.save_every)?;
        let train = stage.train;
        let Frozen { tokenizer, text_encoder, vae, scheduler, device } = frozen;
        let parameters =
            parameters.training(move |name| train.has(name)).computing_in(self.precision.dtype(device)?);
        let unet = UNet2DConditionModel::new(config, parameters.var_builder(device))?;
        let mut optimizer = Optimizer::new(stage.optimizer.clone(), &parameters)?;

        let cache = |name: &str| output.join(format!("{name}.safetensors"));
        let files = files(&self.data, table);
        let at = cache(&format!("latents-{}", stage.resolution));
        let latents = Latents::of(&files, stage.resolution, vae, &self.model, &at, device)?;
        tell(observer, &stage.name, &latents.skipped);
        let kept = latents.kept.iter().filter_map(|&row| table.rows.get(row as usize));
        let captions: Vec<Vec<String>> =
            kept.map(|values| values.iter().skip(1).cloned().collect()).collect();
        let states =
            CaptionStates::of(&captions, tokenizer, text_encoder, &self.model, &cache("captions"), device)?;

        let latents = latents.latents.to_device(device)?;
        let realignment = Realignment::new(stage, &unet, scheduler, &latents, &states, 1)?;
        let drawing = Drawing { tokenizer, text_encoder, vae, scheduler };
        let gradients = |batch: &mut Batch| realignment.gradients(batch);
        let sample = || match &self.sample {
            Some(sheet) => sheet.draw(&drawing, &unet, &latents, self.seed).map(Some),
            None => Ok(None),
        };
        run.train(&mut optimizer, observer, &Functions { gradients, sample })?;
        Ok(parameters.with(optimizer.averages()))
    }

    /// Writes the whole model, with the trained UNet in f32.
    fn write(&self, output: &Path, weights: BTreeMap<String, Tensor>) -> Result<()> {
        let folder = output.join(MODEL);
        if !folder.exists() {
            let parts = ModelParts::in_folders(&ModelSource::open(&self.model)?)?;
            parts.write_folders(&folder, None, &mut |_, _| ControlFlow::Continue(()))?;
        }
        let weights = weights
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?)))
            .collect::<candle_core::Result<_>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        save_tensors(&folder.join("unet/diffusion_pytorch_model.safetensors"), &weights, Some(metadata))
    }
}
