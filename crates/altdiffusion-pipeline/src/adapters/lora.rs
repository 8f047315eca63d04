//! Reads LoRA and its relatives: changes of weights, from the files that carry them.

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

/// The names that a LoRA has in a directory or a repository: diffusers' and PEFT's.
const FILE_NAMES: [&str; 4] = [
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
];
const PEFT_NAME: &str = "adapter_model";

/// A LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) or one of its relatives: what it changes in the weights of an
/// AltDiffusion model, and the words that it may bring.
///
/// Files of diffusers, PEFT, kohya's scripts and LyCORIS are read, for the UNet and the text encoder: LoRA of linear layers,
/// convolutions and embeddings, DoRA, LoHa, LoKr, GLoRA, (IA)³, and whole differences of weights, biases and norms.
#[derive(Debug, Clone)]
pub struct Lora {
    name: String,
    unet: BTreeMap<String, LayerChanges>,
    text_encoder: BTreeMap<String, LayerChanges>,
    /// Layers of which the file does not say the part.
    unknown: BTreeMap<String, LayerChanges>,
    words: Vec<TextualInversion>,
    /// What the file says that it is for.
    made_for: Option<String>,
}

impl Lora {
    /// Reads a LoRA called `name`: a file, `.safetensors` or a pickle; or a directory or a repository on the hub that holds
    /// one, under a name of diffusers (`pytorch_lora_weights`) or PEFT (`adapter_model`), or alone under any; or a file in a
    /// repository, `org/name/file.safetensors`.
    ///
    /// # Errors
    /// When there is none, or several, or it is damaged, for a model that is no AltDiffusion, or of a kind that is not
    /// supported.
    pub fn open(name: &str) -> Result<Self> {
        let Found { file, beside, .. } = adapter_file::open(name, &FILE_NAMES, "a LoRA")?;
        // Beside a single file, PEFT's configuration is about a file of PEFT's name alone.
        let path = Path::new(name);
        let is_other = path.is_file() && path.file_stem().is_none_or(|stem| stem != PEFT_NAME);
        Self::read(name, &file, beside.filter(|_| !is_other).as_ref())
    }

    fn read(name: &str, file: &Checkpoint, beside: Option<&ModelSource>) -> Result<Self> {
        let metadata = file.metadata();
        if let Some(model) = unsupported::model_of(&file.names().collect::<Vec<_>>()) {
            return Err(Error::content(
                name,
                format!("the LoRA is for {model}, expected one for an AltDiffusion"),
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
            unknown: BTreeMap::new(),
            words: in_bundle(name, file)?,
            made_for: unsupported::said_model(&metadata),
        };
        for ((target, layer), tensors) in read_layers(name, file, &configs)? {
            let changes = tensors.combine(name, configs.of(target))?;
            let layers = match target {
                TargetModel::UNet => &mut lora.unet,
                TargetModel::TextEncoder => &mut lora.text_encoder,
                TargetModel::Unknown => &mut lora.unknown,
            };
            layers.insert(layer, changes);
        }
        if lora.layers() == 0 && lora.words.is_empty() {
            return Err(Error::content(name, "expected a LoRA, found no tensors"));
        }
        Ok(lora)
    }

    /// The same without what it changes in the text encoder, and without its words: for a LoRA that was made for a model with
    /// another one, such as Stable Diffusion, whose UNet AltDiffusion shares.
    #[must_use]
    pub fn without_text_encoder(mut self) -> Self {
        self.text_encoder.clear();
        self.words.clear();
        self
    }

    /// Its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many layers it changes.
    pub fn layers(&self) -> usize {
        self.unet.len() + self.text_encoder.len() + self.unknown.len()
    }

    /// The words that were learned with it and are in its file.
    pub fn words(&self) -> &[TextualInversion] {
        &self.words
    }

    /// What its file says that it is for, in the words of the program that wrote it.
    pub(super) fn made_for(&self) -> Option<&str> {
        self.made_for.as_deref()
    }

    /// What it changes in the UNet. A file that does not say which part it is for is for the UNet, as in diffusers, unless
    /// all its layers are those of XLM-R.
    pub(super) fn of_unet(&self) -> impl Iterator<Item = (&String, &LayerChanges)> {
        let unknown = (!self.unknown_is_text_encoder()).then_some(&self.unknown);
        self.unet.iter().chain(unknown.into_iter().flatten())
    }

    /// What it changes in the text encoder.
    pub(super) fn of_text_encoder(&self) -> impl Iterator<Item = (&String, &LayerChanges)> {
        let unknown = self.unknown_is_text_encoder().then_some(&self.unknown);
        self.text_encoder.iter().chain(unknown.into_iter().flatten())
    }

    fn unknown_is_text_encoder(&self) -> bool {
        self.unknown.keys().all(|layer| layer.starts_with("roberta_") || layer.starts_with("transformation"))
    }
}

/// The configurations that come with a file.
struct PeftConfigs {
    /// In its metadata.
    by_target: BTreeMap<String, PeftConfig>,
    /// In a file beside it.
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

/// The tensors of a file by the layers that they change.
fn read_layers(name: &str, file: &Checkpoint, configs: &PeftConfigs) -> Result<TensorsByLayer> {
    let understood: Vec<(&str, AdapterName)> = file
        .names()
        .filter(|tensor| !super::textual_inversion::is_bundled(tensor))
        .map(|tensor| match parse(tensor) {
            Some(understood) if unsupported::kind_of(tensor).is_none() => Ok((tensor, understood)),
            _ => Err(no_lora(name, tensor)),
        })
        .collect::<Result<_>>()?;
    // Before anything is read: the file may be a whole model.
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

/// Says what a file is that holds a tensor of this name.
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
