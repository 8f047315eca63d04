//! Reads LoRA and related adapters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::adapter_file::{self, Found};
use super::layer_tensors::{LayerChanges, LayerTensors};
use super::names::{AdapterName, TargetModel, TensorRole, parse};
use super::peft_config::{PEFT_CONFIG, PeftConfig};
use super::textual_inversion::{TextualInversion, in_bundle};
use super::unsupported;
use crate::{Error, Result};

/// diffusers' and PEFT's names for a LoRA in a directory or repository.
const FILE_NAMES: [&str; 4] = [
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
];
const PEFT_NAME: &str = "adapter_model";

/// Beginnings of layers in text encoders (XLM-R, CLIP and BERT), by which they are known in files that name no part.
const TEXT_ENCODER_LAYERS: [&str; 5] =
    ["roberta_", "transformation", "text_model_", "encoder_layer_", "embeddings_"];

/// A LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) or a relative of it: changes to the weights of an
/// AltDiffusion model, and the words that may come with them.
///
/// Reads files written by diffusers, PEFT, kohya's scripts and LyCORIS, for the UNet and the text encoder: LoRA of
/// linear layers, convolutions and embeddings, DoRA, LoHa, LoKr, GLoRA, OFT, BOFT, (IA)³, and full differences of weights,
/// biases and norms. PEFT's OFT and BOFT turn inputs, the others' OFT outputs.
#[derive(Debug, Clone)]
pub struct Lora {
    name: String,
    unet: BTreeMap<String, LayerChanges>,
    text_encoder: BTreeMap<String, LayerChanges>,
    words: Vec<TextualInversion>,
    /// The model it was made for, according to the file.
    made_for: Option<String>,
}

impl Lora {
    /// Reads the LoRA called `name`: a `.safetensors` file or a pickle; a directory or hub repository that holds one
    /// under a name of diffusers (`pytorch_lora_weights`) or PEFT (`adapter_model`), or as its only file; or a file
    /// in a repository, `org/name/file.safetensors`.
    ///
    /// # Errors
    /// If there is none, or several; if the file is damaged, was made for another architecture, or is of a kind that
    /// is not supported.
    pub fn open(name: &str) -> Result<Self> {
        let Found { file, beside, .. } = adapter_file::open(name, &FILE_NAMES, "a LoRA")?;
        // Beside a single file, PEFT's configuration applies only if the file has PEFT's name.
        let path = Path::new(name);
        let is_other = path.is_file() && path.file_stem().is_none_or(|stem| stem != PEFT_NAME);
        Self::read(name, &file, beside.filter(|_| !is_other).as_ref())
    }

    fn read(name: &str, file: &Checkpoint, beside: Option<&ModelSource>) -> Result<Self> {
        let metadata = file.metadata();
        if let Some(model) = unsupported::model_of(&file.names().collect::<Vec<_>>()) {
            return Err(Error::content(
                name,
                format!(
                    "the LoRA is for {model}, expected one for Stable Diffusion 1 or 2, AltDiffusion or Taiyi"
                ),
            ));
        }
        let configs = PeftConfigs {
            by_target: PeftConfig::from_metadata(name, &metadata)?,
            beside: match beside.map(|source| source.read_optional(PEFT_CONFIG)).transpose()?.flatten() {
                Some(file) => Some(PeftConfig::from_file(&file)?),
                None => None,
            },
        };
        let mut lora = Self {
            name: name.to_owned(),
            unet: BTreeMap::new(),
            text_encoder: BTreeMap::new(),
            words: in_bundle(name, file)?,
            made_for: unsupported::said_model(&metadata),
        };
        for ((target, layer), tensors) in read_layers(name, file, &configs)? {
            let changes = tensors.combine(name, configs.of(target))?;
            let layers = match target {
                TargetModel::UNet => &mut lora.unet,
                TargetModel::TextEncoder => &mut lora.text_encoder,
                // As PEFT saves a text encoder.
                TargetModel::Unknown if is_of_text_encoder(&layer) => &mut lora.text_encoder,
                // As diffusers reads a file without prefixes.
                TargetModel::Unknown => &mut lora.unet,
            };
            if layers.insert(layer.clone(), changes).is_some() {
                let problem =
                    format!("layer {layer}: found changes with the name of a part and without, expected one");
                return Err(Error::content(name, problem));
            }
        }
        if lora.layers() == 0 && lora.words.is_empty() {
            return Err(Error::content(name, "expected a LoRA, found no tensors"));
        }
        Ok(lora)
    }

    /// Drops the words and the changes to the text encoder, to use a LoRA made for a model with the same UNet but
    /// another text encoder, such as Stable Diffusion.
    #[must_use]
    pub fn without_text_encoder(mut self) -> Self {
        self.text_encoder.clear();
        self.words.clear();
        self
    }

    /// The path of its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of layers that it changes.
    pub fn layers(&self) -> usize {
        self.unet.len() + self.text_encoder.len()
    }

    /// The words in its file, which were learned with it.
    pub fn words(&self) -> &[TextualInversion] {
        &self.words
    }

    /// The model it was made for, as the program that wrote the file names it.
    pub(super) fn made_for(&self) -> Option<&str> {
        self.made_for.as_deref()
    }

    /// The changes to the UNet.
    pub(super) fn of_unet(&self) -> impl Iterator<Item = (&String, &LayerChanges)> {
        self.unet.iter()
    }

    /// The changes to the text encoder.
    pub(super) fn of_text_encoder(&self) -> impl Iterator<Item = (&String, &LayerChanges)> {
        self.text_encoder.iter()
    }
}

fn is_of_text_encoder(layer: &str) -> bool {
    TEXT_ENCODER_LAYERS.iter().any(|beginning| layer.starts_with(beginning))
}

/// PEFT's configurations for a file.
struct PeftConfigs {
    /// From its metadata.
    by_target: BTreeMap<String, PeftConfig>,
    /// From a file beside it.
    beside: Option<PeftConfig>,
}

impl PeftConfigs {
    fn of(&self, target: TargetModel) -> Option<&PeftConfig> {
        let key = match target {
            TargetModel::UNet => "unet",
            TargetModel::TextEncoder => "text_encoder",
            TargetModel::Unknown => "",
        };
        self.by_target.get(key).or(self.beside.as_ref())
    }
}

type TensorsByLayer = BTreeMap<(TargetModel, String), LayerTensors>;

/// Groups the tensors of a file by the layer that they change.
fn read_layers(name: &str, file: &Checkpoint, configs: &PeftConfigs) -> Result<TensorsByLayer> {
    let understood: Vec<(&str, AdapterName)> = file
        .names()
        .filter(|tensor| !super::textual_inversion::is_bundled(tensor))
        .map(|tensor| match parse(tensor) {
            Some(understood) if unsupported::kind_of(tensor).is_none() => Ok((tensor, understood)),
            _ => Err(no_lora(name, tensor)),
        })
        .collect::<Result<_>>()?;
    // Check before reading anything: the file may be a whole model.
    let of_factors = understood.iter().filter(|(_, understood)| understood.role == TensorRole::Ia3OnInput);
    let factors: BTreeSet<(TargetModel, &str)> =
        of_factors.map(|(_, understood)| (understood.target, understood.path.as_str())).collect();
    let is_unexpected = |understood: &AdapterName| {
        matches!(understood.role, TensorRole::Weight | TensorRole::Bias)
            && !configs.of(understood.target).is_some_and(|config| config.has_whole_weights)
            && !factors.contains(&(understood.target, understood.path.as_str()))
    };
    if let Some((tensor, _)) = understood.iter().find(|(_, understood)| is_unexpected(understood)) {
        return Err(no_lora(name, tensor));
    }
    let mut layers = TensorsByLayer::new();
    for (tensor, understood) in &understood {
        let value: Tensor = file.tensor(tensor, DType::F32, &Device::Cpu)?;
        let tensors = layers.entry((understood.target, understood.layer())).or_default();
        let added = tensors.add(&understood.path, understood.role, tensor, value)?;
        added.map_err(|problem| Error::content(name, problem))?;
    }
    Ok(layers)
}

/// Says what a file with a tensor of this name is, if not a LoRA.
fn no_lora(file: &str, tensor: &str) -> Error {
    Error::content(
        file,
        match unsupported::kind_of(tensor) {
            Some(kind) => {
                format!(
                    "expected a LoRA, found a {kind}: merge it into a model with the program that made it"
                )
            }
            None => format!("expected a LoRA, found the tensor {tensor}"),
        },
    )
}
