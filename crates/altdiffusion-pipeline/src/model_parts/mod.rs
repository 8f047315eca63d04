//! Finds the parts of a model in either layout: diffusers' folders, or one file in latent diffusion's naming.

mod convert;
mod down_path;
mod entries;
mod hash;
mod inferred;
mod input_records;
mod int8_layers;
mod load;
mod mindspore_names;
mod names;
mod number_types;
mod other_names;
mod output;
mod own_vae;
mod prefixed_tensors;
mod single_file;
mod smoothing;
#[cfg(test)]
pub(crate) mod test_files;
#[cfg(test)]
mod tests;
mod text_encoder_names;
mod unet_names;
mod vae_names;
mod write_folders;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model_files::checkpoint::Checkpoint;
use model_files::config::parse_json;
use model_files::source::{FileData, ModelSource};
use serde::Serialize;

use crate::unet::UNet2DConditionConfig;
use crate::unused_tensors::warn_of_unused;
use crate::{Error, Result};
pub use convert::{Converted, convert_weights};
pub(crate) use down_path::DownPath;
pub use int8_layers::{Cosines, TextStatesLoss};
pub(crate) use names::index;
pub(crate) use prefixed_tensors::PrefixedTensors;
use single_file::check_is_model;
pub use smoothing::{SmoothedLayer, Smoothing};
use text_encoder_names::{TextEncoderNames, fused_parts};
pub(crate) use unet_names::UNetNames;
use vae_names::VaeNames;

pub(crate) const TEXT_ENCODER_CONFIG: &str = "text_encoder/config.json";
pub(crate) const UNET_CONFIG: &str = "unet/config.json";
const VAE: &str = "vae";
pub(crate) const VAE_CONFIG: &str = "vae/config.json";
const IMAGE_ENCODER: &str = "image_encoder";
const IMAGE_ENCODER_CONFIG: &str = "image_encoder/config.json";
const UPSCALER: &str = "upscaler";
const UPSCALER_CONFIG: &str = "upscaler/config.json";
const SAFETY_CHECKER: &str = "safety_checker";
pub(crate) const SAFETY_CHECKER_CONFIG: &str = "safety_checker/config.json";
pub(crate) const FEATURE_EXTRACTOR_CONFIG: &str = "feature_extractor/preprocessor_config.json";
pub(crate) const SCHEDULER_CONFIG: &str = "scheduler/scheduler_config.json";

/// A configuration's key in the metadata of a GGUF file, in the format's spelling.
fn gguf_key(relative: &str) -> String {
    format!("altdiffusion.{}", relative.replace('/', "."))
}

/// The parts that have weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartKind {
    TextEncoder,
    UNet,
    Vae,
    ImageEncoder,
    Upscaler,
    SafetyChecker,
}

/// The parts of a diffusion model with their configurations, before weights are read.
#[derive(Debug)]
pub struct ModelParts {
    /// What to call the model in errors.
    pub(crate) name: String,
    pub(crate) scheduler: FileData,
    pub(crate) text_encoder: PartFiles,
    pub(crate) unet: PartFiles,
    pub(crate) vae: PartFiles,
    /// The network that enlarges images, if the model has one.
    pub(crate) upscaler: Option<PartFiles>,
    /// The safety checker, if the model has one.
    pub(crate) safety: Option<SafetyCheckerFiles>,
    /// The image encoder for the text encoder's space, if the model has one. It is not used to draw, but kept when
    /// converting.
    image_encoder: Option<PartFiles>,
    /// Where the tokenizer is, if there is one.
    pub(crate) tokenizer: Option<ModelSource>,
    /// The single file, if it is one.
    single: Option<SingleFile>,
    /// Weights of the text encoder that are not written in int8.
    not_in_int8: BTreeSet<String>,
    /// Whether the autoencoder is quantized when the rest is.
    quantizes_vae: bool,
    /// The model's own weights, if another autoencoder has taken the place of its own: images name the model by them.
    hashed: Option<Vec<Checkpoint>>,
}

/// A file that holds a model, of which the autoencoder may be from elsewhere.
#[derive(Debug)]
struct SingleFile {
    checkpoint: Checkpoint,
    text_encoder_names: TextEncoderNames,
    /// Whether the autoencoder is the one in the file.
    has_vae: bool,
}

/// A part's configuration, and its weights under diffusers' names.
#[derive(Debug)]
pub(crate) struct PartFiles {
    pub config: FileData,
    pub weights: Checkpoint,
}

/// The safety checker and its image processor.
#[derive(Debug)]
pub(crate) struct SafetyCheckerFiles {
    pub checker: PartFiles,
    pub feature_extractor: FileData,
}

impl PartFiles {
    /// Finds a part in a model in folders.
    fn of(source: &ModelSource, config: &str, folder: &str) -> Result<Self> {
        Ok(Self { config: source.read(config)?, weights: Checkpoint::open(source, folder)? })
    }
}

impl SafetyCheckerFiles {
    /// Finds it in a model in folders, if there is one.
    fn of(source: &ModelSource) -> Result<Option<Self>> {
        let Some(config) = source.read_optional(SAFETY_CHECKER_CONFIG)? else { return Ok(None) };
        let weights = Checkpoint::open(source, SAFETY_CHECKER)?;
        Ok(Some(Self {
            checker: PartFiles { config, weights },
            feature_extractor: source.read(FEATURE_EXTRACTOR_CONFIG)?,
        }))
    }
}

impl ModelParts {
    /// Finds the parts of a model in folders: `tokenizer`, `text_encoder`, `unet`, `vae` and `scheduler`.
    /// `model_index.json` is ignored, since published ones name code that no longer exists.
    ///
    /// # Errors
    /// If a part is missing or damaged.
    pub fn in_folders(source: &ModelSource) -> Result<Self> {
        let part = |config, folder| PartFiles::of(source, config, folder);
        let optional_part = |config, folder| -> Result<Option<PartFiles>> {
            let Some(config) = source.read_optional(config)? else { return Ok(None) };
            Ok(Some(PartFiles { config, weights: Checkpoint::open(source, folder)? }))
        };
        Ok(Self {
            name: source.to_string(),
            scheduler: source.read(SCHEDULER_CONFIG)?,
            text_encoder: part(TEXT_ENCODER_CONFIG, "text_encoder")?,
            unet: part(UNET_CONFIG, "unet")?,
            vae: part(VAE_CONFIG, VAE)?,
            upscaler: optional_part(UPSCALER_CONFIG, UPSCALER)?,
            safety: SafetyCheckerFiles::of(source)?,
            image_encoder: optional_part(IMAGE_ENCODER_CONFIG, IMAGE_ENCODER)?,
            tokenizer: Some(source.clone()),
            single: None,
            not_in_int8: BTreeSet::new(),
            quantizes_vae: false,
            hashed: None,
        })
    }

    /// Finds the parts of a model in one file, `.safetensors`, `.gguf` or `.ckpt`, in latent diffusion's naming:
    /// `model.diffusion_model.*`, `first_stage_model.*` and `cond_stage_model.*`: AltDiffusion, Stable Diffusion 1 and 2,
    /// and Taiyi.
    ///
    /// Configurations come from the file itself, if it was converted by this crate, or from `beside`, a model in
    /// folders, or else from the tensors' shapes. The tokenizer and the safety checker always come from `beside`, and the
    /// autoencoder if the file has none.
    ///
    /// # Errors
    /// If the file is damaged, or not such a model.
    pub fn in_single_file(path: &Path, beside: Option<&ModelSource>) -> Result<Self> {
        let (checkpoint, origin) = in_pytorch_names(Checkpoint::from_file(path)?);
        let has_vae = checkpoint.names().any(|name| name.starts_with(vae_names::PREFIX));
        let text_encoder_names = check_is_model(&checkpoint, origin, beside)?;
        let own = checkpoint.metadata();
        let known = |relative: &str| -> Result<Option<FileData>> {
            match (own_config(&checkpoint, &own, relative), beside) {
                (Some(config), _) => Ok(Some(config)),
                (None, Some(source)) => Ok(source.read_optional(relative)?),
                (None, None) => Ok(None),
            }
        };
        let unet_config = match known(UNET_CONFIG)? {
            Some(config) => config,
            None => inferred_config(&checkpoint, UNET_CONFIG, &inferred::unet(&checkpoint, origin)?)?,
        };
        let vae = match beside {
            Some(source) if !has_vae => PartFiles::of(source, VAE_CONFIG, VAE)?,
            _ => {
                let config = match known(VAE_CONFIG)? {
                    Some(config) => config,
                    None => inferred_config(&checkpoint, VAE_CONFIG, &inferred::vae(&checkpoint)?)?,
                };
                let names = VaeNames::new(&parse_json(&config)?)?;
                let weights = checkpoint.part(vae_names::PREFIX, move |name| {
                    Some(format!("{}{}", vae_names::PREFIX, names.to_ldm(name)?))
                });
                PartFiles { config, weights }
            }
        };
        let text_encoder_config = match known(TEXT_ENCODER_CONFIG)? {
            Some(config) => config,
            None => inferred_config(
                &checkpoint,
                TEXT_ENCODER_CONFIG,
                &inferred::text_encoder(&checkpoint, text_encoder_names, origin)?,
            )?,
        };
        let text_encoder_names = text_encoder_names.with_layers_of(&text_encoder_config)?;
        let scheduler = match known(SCHEDULER_CONFIG)? {
            Some(config) => config,
            None => {
                inferred_config(&checkpoint, SCHEDULER_CONFIG, &inferred::scheduler(&checkpoint, origin)?)?
            }
        };

        let unet_names = UNetNames::new(&parse_json(&unet_config)?)?;
        // The other parts have tensors that no image depends on.
        warn_of_unused(checkpoint.file_name(), &unknown_to_unet(&checkpoint, &unet_names));
        let unet = checkpoint.part(unet_names::PREFIX, move |name| {
            Some(format!("{}{}", unet_names::PREFIX, unet_names.to_ldm(name)?))
        });
        let text_encoder =
            checkpoint.part(text_encoder_names::PREFIX, move |name| text_encoder_names.to_file(name));
        Ok(Self {
            name: checkpoint.file_name().to_owned(),
            scheduler,
            text_encoder: PartFiles { config: text_encoder_config, weights: text_encoder },
            unet: PartFiles { config: unet_config, weights: unet },
            vae,
            upscaler: None,
            safety: beside.map(SafetyCheckerFiles::of).transpose()?.flatten(),
            image_encoder: None,
            tokenizer: beside.cloned(),
            single: Some(SingleFile { checkpoint, text_encoder_names, has_vae }),
            not_in_int8: BTreeSet::new(),
            quantizes_vae: false,
            hashed: None,
        })
    }

    /// Quantizes the autoencoder too, when these parts are written in a quantized type.
    #[must_use]
    pub fn with_quantized_autoencoder(mut self) -> Self {
        self.quantizes_vae = true;
        self
    }

    /// Whether a file holds a whole model, rather than the weights of one part.
    ///
    /// # Errors
    /// If the file cannot be read, or is damaged.
    pub fn are_in(path: &Path) -> Result<bool> {
        let checkpoint = Checkpoint::from_file(path)?;
        Ok(checkpoint.names().any(|name| name.starts_with(unet_names::PREFIX)))
    }

    /// The weights that images depend on: the one file, with an autoencoder that it lacks, or that of each part.
    pub fn weights(&self) -> Vec<Checkpoint> {
        let upscaler = self.upscaler.as_ref().map(|upscaler| &upscaler.weights);
        let safety = self.safety.as_ref().map(|safety| &safety.checker.weights);
        match &self.single {
            Some(SingleFile { checkpoint, has_vae: true, .. }) => vec![checkpoint.clone()],
            Some(SingleFile { checkpoint, .. }) => vec![checkpoint.clone(), self.vae.weights.clone()],
            None => {
                let parts = [&self.text_encoder.weights, &self.unet.weights, &self.vae.weights];
                parts.into_iter().chain(upscaler).chain(safety).cloned().collect()
            }
        }
    }

    /// The text encoder's configuration, which tells its family.
    pub fn text_encoder_config(&self) -> &FileData {
        &self.text_encoder.config
    }

    /// Prepares the computation of the hash by which an image names its model, which takes a moment per gigabyte and
    /// can run on another thread.
    ///
    /// ```
    /// # fn main() -> altdiffusion_pipeline::Result<()> {
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji");
    /// # let source = altdiffusion_pipeline::ModelSource::open(model)?;
    /// let parts = altdiffusion_pipeline::ModelParts::in_folders(&source)?;
    /// let hash = std::thread::spawn(parts.hasher());
    /// # drop(hash);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hasher(&self) -> impl FnOnce() -> Result<String> + Send + 'static {
        let weights = self.hashed.clone().unwrap_or_else(|| self.weights());
        move || hash::of(&weights)
    }

    /// Where the tokenizer is.
    ///
    /// # Errors
    /// If the model is a single file, and no other model was given with it.
    pub(crate) fn tokenizer(&self) -> Result<&ModelSource> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let problem = "a single file holds no tokenizer, expected beside it a model in folders that does, such as \
                           BAAI/AltDiffusion-m9";
            Error::content(&self.name, problem)
        })
    }
}

/// Maps the names of the UNet's tensors from diffusers to latent diffusion, without its prefix.
pub(crate) fn unet_name_in_latent_diffusion(
    config: &UNet2DConditionConfig,
) -> Result<impl Fn(&str) -> Option<String> + Send + Sync + use<>> {
    let names = UNetNames::new(config)?;
    Ok(move |name: &str| names.to_ldm(name))
}

/// A configuration in a file's metadata, where this crate writes it.
fn own_config(
    checkpoint: &Checkpoint,
    metadata: &BTreeMap<String, String>,
    relative: &str,
) -> Option<FileData> {
    let json = metadata.get(relative).or_else(|| metadata.get(&gguf_key(relative)))?;
    let name = format!("{}: {relative}", checkpoint.file_name());
    Some(FileData::owned(name, json.clone().into_bytes()))
}

/// A configuration inferred from the tensors, as a file.
fn inferred_config(checkpoint: &Checkpoint, relative: &str, config: &impl Serialize) -> Result<FileData> {
    let name = format!("{}: {relative} as its tensors tell", checkpoint.file_name());
    match serde_json::to_vec_pretty(config) {
        Ok(json) => Ok(FileData::owned(name, json)),
        Err(error) => Err(Error::content(name, error.to_string())),
    }
}

/// The library that wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    PyTorch,
    MindSpore,
}

/// A file's tensors under the names of PyTorch's files, and with those apart that diffusers has apart.
fn in_pytorch_names(file: Checkpoint) -> (Checkpoint, Origin) {
    if !mindspore_names::are_in(file.names()) {
        return (file.with_rows_split(other_names::usual_names), Origin::PyTorch);
    }
    let names = |stored: &str| {
        let name = mindspore_names::to_pytorch(stored);
        let parts = fused_parts(&name);
        if parts.is_empty() { vec![name] } else { parts }
    };
    (file.with_rows_split(names), Origin::MindSpore)
}

/// The tensors of a file's UNet that no UNet of this shape has.
fn unknown_to_unet(checkpoint: &Checkpoint, names: &UNetNames) -> Vec<String> {
    let is_unknown = |stored: &&str| {
        let name = stored.strip_prefix(unet_names::PREFIX);
        name.is_some_and(|name| names.to_diffusers(name).is_none())
    };
    checkpoint.names().filter(is_unknown).map(str::to_owned).collect()
}
