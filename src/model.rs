//! Parses the options for a model and how it computes, shared by several subcommands.

use std::path::{Path, PathBuf};

use altdiffusion_pipeline::image_metadata::ParameterFields;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use clap::Args;

use altclip_encoder::embedder::Embedder;
use altclip_encoder::images::Background;
use altdiffusion_pipeline::{LoadOptions, ModelParts};
use emoji_model::KnownConcepts;
use model_files::Arithmetic;
use model_files::source::ModelSource;

use crate::device::{DeviceChoice, devices};
use crate::option_values;
use crate::progress::announce;
use crate::recorded::recorded_source;
use crate::shipped;

/// The prefix of the repositories whose weights have this licence.
const PUBLISHED: &str = "BAAI/AltDiffusion";
const LICENCE: &str = "Its weights are under CreativeML Open RAIL-M, which limits what they may be used for: \
                       https://huggingface.co/spaces/CompVis/stable-diffusion-license";

/// The file name endings of models in one file.
const FILE_ENDINGS: [&str; 3] = ["safetensors", "ckpt", "gguf"];

/// The folders of a pipeline; "" is the model's root.
pub const PIPELINE_FOLDERS: [&str; 9] = [
    "tokenizer",
    "text_encoder",
    "unet",
    "vae",
    "upscaler",
    "scheduler",
    "safety_checker",
    "feature_extractor",
    "image_encoder",
];
/// The folders of a dual encoder.
pub const EMBEDDER_FOLDERS: [&str; 5] =
    ["", "tokenizer", "text_encoder", "image_encoder", "feature_extractor"];

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model: a directory, or a repository on the Hugging Face hub. By default the one inside this program.
    ///
    /// A directory has the layout of the published models: for AltDiffusion the folders tokenizer, text_encoder,
    /// unet, vae and scheduler; for AltCLIP and its relatives config.json, weights and tokenizer files. A
    /// repository, such as BAAI/AltDiffusion-m9, is downloaded on first use; `altdiffusion download` does that
    /// ahead. The weights of BAAI/AltDiffusion, -m9 and -m18 are under the CreativeML Open RAIL-M licence, which
    /// limits their use. HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and the other variables of huggingface_hub
    /// mean what they mean there; so do HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE.
    ///
    /// `generate` also takes one file (.safetensors, .gguf, .ckpt) in the naming of latent diffusion, or a directory with
    /// nothing but such a file, with --config.
    #[arg(
        long,
        short_alias = 'm',
        aliases = ["ckpt", "checkpoint"],
        value_name = "DIR_OR_HUB_ID",
        env = "ALTDIFFUSION_MODEL"
    )]
    model: Option<String>,

    /// Revision of a --model on the hub: a branch, a tag, or a commit. By default main.
    ///
    /// --model org/name@REVISION says the same.
    #[arg(long, value_name = "REVISION", hide_short_help = true)]
    revision: Option<String>,

    /// A model that has the tokenizer and configurations of a one-file --model: a directory or a repository.
    ///
    /// A file that `convert` wrote holds its configurations and needs only the tokenizer. Without configurations,
    /// shapes are inferred from the tensors.
    #[arg(long, value_name = "DIR_OR_HUB_ID", hide_short_help = true)]
    config: Option<String>,

    /// Weights variant, as in diffusers: fp16 reads model.fp16.safetensors and the like.
    ///
    /// Every part of the model must have it. Without this option, fp16 is read where there is nothing else.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    variant: Option<String>,

    /// Number type: f32, f16, bf16 or int8. By default f32.
    ///
    /// f16 and bf16 take half the memory and are fast on a GPU; f16 is more exact, bf16 does not overflow. On a CPU with
    /// instructions for bf16 (see `altdiffusion machine`), bf16 is faster than f32, and the image differs a little.
    /// Quantized weights stay quantized on the CPU in any case; on a GPU they become numbers of this type.
    ///
    /// int8 is for the CPU alone: linear layers, of a diffusion model those of the text encoder and the UNet, multiply 8-bit
    /// integers, and the rest is bf16. It is the fastest on a CPU with instructions for int8, and loses the most.
    #[arg(long, alias = "torch-dtype", value_name = "TYPE", value_parser = option_values::arithmetics(), hide_possible_values = true)]
    dtype: Option<Arithmetic>,

    /// Device: cpu, cuda, metal, or auto, a GPU if this build can use one.
    ///
    /// By default auto. cuda:1 is the second of several GPUs.
    #[arg(long, value_name = "DEVICE", value_parser = devices(), hide_possible_values = true)]
    device: Option<DeviceChoice>,
}

/// Whether a name is that of a model in one file, which is not there.
fn is_missing_file(name: &str) -> bool {
    let path = Path::new(name);
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| FILE_ENDINGS.contains(&ending)) && !path.exists()
}

impl ModelArgs {
    /// The source of the model's files, for a model that is not a pipeline.
    ///
    /// # Errors
    /// If the name can be neither a directory nor a repository.
    pub fn source(&self) -> Result<ModelSource> {
        Ok(self.plain_source()?.computing_in(self.arithmetic()))
    }

    fn plain_source(&self) -> Result<ModelSource> {
        // The hub would be asked for a repository of this name.
        if let Some(name) = self.model().filter(|name| is_missing_file(name)) {
            bail!("--model {name}: no such file");
        }
        ensure!(self.config.is_none(), "--config: is for a --model in one file, where there is none with it");
        match self.model() {
            Some(name) => open_source(name, self.revision.as_deref(), self.variant.as_deref()),
            None => {
                let needing = [("--revision", &self.revision), ("--variant", &self.variant)];
                match needing.into_iter().find(|(_, value)| value.is_some()) {
                    Some((option, _)) => bail!("{option}: is for a --model, and there is none with it"),
                    None => Ok(shipped::source()),
                }
            }
        }
    }

    /// The model's name, unless it is the built-in one.
    fn model(&self) -> Option<&str> {
        // An empty variable counts as unset.
        self.model.as_deref().filter(|name| !name.is_empty())
    }

    /// How to load the model as a pipeline.
    ///
    /// # Errors
    /// If this build does not support such a device, or there is none.
    pub fn load_options(&self) -> Result<LoadOptions> {
        Ok(LoadOptions::computing_in(self.arithmetic(), &self.device()?))
    }

    /// The parts of the model, in folders or in one file.
    ///
    /// # Errors
    /// If it is not a model, or a part is missing or damaged.
    pub fn parts(&self) -> Result<ModelParts> {
        let Some(file) = self.model().and_then(|name| ModelParts::file_at(Path::new(name))) else {
            let source = self.plain_source()?;
            tracing::info!("loading {source}");
            if !self.is_shipped() {
                announce(&format!("Loading {source}"));
            }
            if self.model().is_some_and(|name| name.starts_with(PUBLISHED)) {
                announce(LICENCE);
            }
            source.prefetch(&PIPELINE_FOLDERS)?;
            return Ok(ModelParts::in_folders(&source)?);
        };
        for (option, value) in [("--variant", &self.variant), ("--revision", &self.revision)] {
            ensure!(
                value.is_none(),
                "{option}: is for a --model in folders, found the file {}",
                file.display()
            );
        }
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
        Ok(ModelParts::in_single_file(&file, Some(&beside))?)
    }

    /// The model's file, if it is one.
    fn single_file(&self) -> Option<PathBuf> {
        let path = Path::new(self.model()?);
        // Dual encoders may be alone in a directory too, and have no --config.
        ModelParts::file_at(path).filter(|_| path.is_file() || self.config.is_some())
    }

    /// Loads the model as a dual encoder.
    ///
    /// # Errors
    /// If it is not one, or a file is missing or damaged.
    pub fn embedder(&self) -> Result<Embedder> {
        self.embedder_of(&self.plain_source()?)
    }

    /// Loads a model, which need not be that of --model, as a dual encoder.
    ///
    /// # Errors
    /// Like [`embedder`](Self::embedder).
    pub fn embedder_of(&self, source: &ModelSource) -> Result<Embedder> {
        let device = self.device()?;
        tracing::info!("loading {source}");
        if source.to_string() != shipped::source().to_string() {
            announce(&format!("Loading {source}"));
        }
        source.prefetch(&EMBEDDER_FOLDERS)?;
        let source = source.clone().computing_in(self.arithmetic());
        Ok(Embedder::from_source(&source, self.dtype(), &device)?)
    }

    /// The model's background for transparent images.
    ///
    /// # Errors
    /// If there can be no such model, or its configuration cannot be read.
    pub fn background(&self) -> Result<Background> {
        match self.single_file() {
            Some(_) => Ok(Background::None),
            None => Ok(Background::of_model(&self.source()?)?),
        }
    }

    /// What the model draws, if it says so. Repositories on the hub are not asked, since each question takes a while.
    ///
    /// # Errors
    /// If the model's file about it is damaged.
    pub fn known_concepts(&self) -> Result<Option<KnownConcepts>> {
        let is_here = self.model().is_none_or(|name| Path::new(name).is_dir());
        match is_here && self.single_file().is_none() {
            true => Ok(KnownConcepts::read(&self.source()?)?),
            false => Ok(None),
        }
    }

    /// Whether it is the built-in model.
    pub fn is_shipped(&self) -> bool {
        self.model().is_none()
    }

    /// Records the model in an image.
    pub fn record(&self, fields: &mut ParameterFields) {
        let Self {
            model,
            revision,
            config,
            variant,
            dtype: _,
            // Recorded separately: it only affects the last digits.
            device: _,
        } = self;
        let model = model.as_deref().filter(|name| !name.is_empty());
        fields.add("Model", model.map_or(shipped::NAME.to_owned(), recorded_source));
        fields.add_some("Revision", revision.as_ref());
        fields.add_some("Config", config.as_deref().map(recorded_source));
        fields.add_some("Variant", variant.as_ref());
        fields.add("Dtype", self.arithmetic().name());
    }

    /// These options, with those of an image as the default.
    pub fn or(self, image: Self) -> Self {
        let is_own = self.model.is_some();
        Self {
            model: self.model.or(image.model),
            revision: self.revision.or(image.revision.filter(|_| !is_own)),
            config: self.config.or(image.config.filter(|_| !is_own)),
            variant: self.variant.or(image.variant.filter(|_| !is_own)),
            dtype: self.dtype.or(image.dtype),
            device: self.device.or(image.device),
        }
    }

    /// Whether an option with a file is given.
    pub fn has(&self, option: &str) -> bool {
        match option {
            "model" => self.model.is_some(),
            "config" => self.config.is_some() || self.model.is_some(),
            _ => false,
        }
    }

    /// The dtype to compute in, where that is not int8.
    pub fn dtype(&self) -> DType {
        self.arithmetic().dtype()
    }

    /// What to compute in.
    pub fn arithmetic(&self) -> Arithmetic {
        self.dtype.unwrap_or(Arithmetic::F32)
    }

    /// Suggests bf16 at a terminal if it is faster than the default, except for the built-in model, which is fast
    /// anyway.
    ///
    /// # Errors
    /// Like [`device`](Self::device).
    pub fn suggest_bf16(&self) -> Result<()> {
        let uses_default = self.dtype.is_none() && !self.is_shipped() && self.device()?.is_cpu();
        if let Some(support) = fused_ops::bf16_support().filter(|_| uses_default) {
            announce(&format!("--dtype bf16 is faster on this CPU, which has {}", support.instructions));
        }
        Ok(())
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If this build does not support such a device, or there is none, or it cannot compute in the number type.
    pub fn device(&self) -> Result<Device> {
        self.device.unwrap_or(DeviceChoice::Auto).open_for(self.arithmetic())
    }
}

/// Opens the model called `name`, at a revision and with a variant of the weights, if requested.
///
/// # Errors
/// If the name, revision or variant is invalid.
pub fn open_source(name: &str, revision: Option<&str>, variant: Option<&str>) -> Result<ModelSource> {
    let source = match revision {
        None => ModelSource::open(name)?,
        Some(_) if Path::new(name).exists() => {
            bail!("--revision: is for a repository on the hub, found {name} here")
        }
        Some(_) if name.contains('@') => bail!("--revision: {name} names one already"),
        Some(revision) => ModelSource::open(&format!("{name}@{revision}")).context("--revision")?,
    };
    match variant {
        Some(variant) => source.with_variant(variant).context("--variant"),
        None => Ok(source),
    }
}

/// The name of a recorded model at its recorded commit, which takes the place of the branch or tag that it was named with.
pub fn at_revision(model: &str, revision: Option<&str>) -> String {
    match revision {
        Some(revision) => format!("{}@{revision}", model.split_once('@').map_or(model, |(name, _)| name)),
        None => model.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_commit_takes_the_place_of_a_tag() {
        assert_eq!(at_revision("org/name", Some("0123")), "org/name@0123");
        assert_eq!(at_revision("org/name@v1", Some("0123")), "org/name@0123");
        assert_eq!(at_revision("/data/a@b", None), "/data/a@b");
    }
}
