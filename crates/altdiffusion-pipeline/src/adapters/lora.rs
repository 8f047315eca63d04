//! Low-rank changes of weights, from the files that carry them.

use std::collections::BTreeMap;
use std::path::Path;

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::config::parse_json;
use altclip_encoder::source::ModelSource;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::lora_names::{Part, Role, parse};
use super::small_file;
use crate::latents::all_finite;
use crate::{Error, Result};

/// The names that a LoRA has in a directory or a repository: diffusers' and PEFT's.
const FILE_NAMES: [&str; 4] = [
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
];
const PEFT_NAME: &str = "adapter_model";
/// What PEFT writes beside its weights.
const PEFT_CONFIG: &str = "adapter_config.json";

/// The largest rank that is believed; a layer of the published models has 10 240 columns.
const LARGEST_RANK: usize = 1 << 14;

/// A LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>): what it adds to the weights of the layers of an AltDiffusion
/// model, as `scale · up · down` for each.
///
/// Files of diffusers, PEFT and kohya's scripts are read, for the UNet and the text encoder, with linear layers and
/// convolutions.
#[derive(Debug, Clone)]
pub struct Lora {
    name: String,
    unet: BTreeMap<String, LowRank>,
    text_encoder: BTreeMap<String, LowRank>,
    /// Layers of which the file does not say the part.
    unknown: BTreeMap<String, LowRank>,
}

/// The change of one layer.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// (rank, in, …), f32.
    pub down: Tensor,
    /// (rank, rank, height, width), f32, in a convolution that was split in three.
    pub mid: Option<Tensor>,
    /// (out, rank, …), f32.
    pub up: Tensor,
    /// alpha / rank.
    pub scale: f64,
}

/// What is gathered of one layer until it is whole.
#[derive(Default)]
struct Pieces {
    down: Option<Tensor>,
    mid: Option<Tensor>,
    up: Option<Tensor>,
    alpha: Option<f64>,
}

/// What PEFT says about a LoRA beside its tensors.
#[derive(Deserialize)]
struct PeftConfig {
    lora_alpha: Option<f64>,
    #[serde(default)]
    use_rslora: bool,
}

impl Lora {
    /// Reads a LoRA called `name`: a file, `.safetensors` or a pickle; or a directory or a repository on the hub that holds
    /// one under a name of diffusers (`pytorch_lora_weights`) or PEFT (`adapter_model`).
    ///
    /// # Errors
    /// When there is none, or it is damaged, or another kind of change than LoRA.
    pub fn open(name: &str) -> Result<Self> {
        let (file, beside) = small_file::open(name, &FILE_NAMES, "a LoRA")?;
        // Beside a single file, PEFT's configuration is about a file of PEFT's name alone.
        let path = Path::new(name);
        let is_other = path.is_file() && path.file_stem().is_none_or(|stem| stem != PEFT_NAME);
        Self::read(name, &file, beside.filter(|_| !is_other).as_ref())
    }

    fn read(name: &str, file: &Checkpoint, beside: Option<&ModelSource>) -> Result<Self> {
        let peft = match beside.map(|source| source.read_optional(PEFT_CONFIG)).transpose()?.flatten() {
            Some(config) => Some(parse_json::<PeftConfig>(&config)?),
            None => None,
        };
        let mut pieces: BTreeMap<(Part, String), Pieces> = BTreeMap::new();
        for tensor in file.names() {
            let Some(understood) = parse(tensor) else { return Err(no_lora(name, tensor)) };
            let pieces = pieces.entry((understood.part, understood.layer)).or_default();
            let value = file.tensor(tensor, DType::F32, &Device::Cpu)?;
            match understood.role {
                Role::Down => pieces.down = Some(value),
                Role::Mid => pieces.mid = Some(value),
                Role::Up => pieces.up = Some(value),
                Role::Alpha => pieces.alpha = Some(single(name, tensor, &value)?),
            }
        }
        let mut lora = Self {
            name: name.to_owned(),
            unet: BTreeMap::new(),
            text_encoder: BTreeMap::new(),
            unknown: BTreeMap::new(),
        };
        for ((part, layer), pieces) in pieces {
            let change = pieces.join(name, &layer, peft.as_ref())?;
            let layers = match part {
                Part::UNet => &mut lora.unet,
                Part::TextEncoder => &mut lora.text_encoder,
                Part::Unknown => &mut lora.unknown,
            };
            layers.insert(layer, change);
        }
        if lora.layers() == 0 {
            return Err(Error::content(name, "expected a LoRA, found no tensors"));
        }
        Ok(lora)
    }

    /// The same without what it changes in the text encoder: for a LoRA that was made for a model with another one, such as
    /// Stable Diffusion, whose UNet AltDiffusion shares.
    #[must_use]
    pub fn without_text_encoder(mut self) -> Self {
        self.text_encoder.clear();
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

    /// What it changes in the UNet. A file that does not say which part it is for is for the UNet, as in diffusers, unless
    /// all its layers are those of XLM-R.
    pub(super) fn of_unet(&self) -> impl Iterator<Item = (&String, &LowRank)> {
        let unknown = (!self.unknown_is_text_encoder()).then_some(&self.unknown);
        self.unet.iter().chain(unknown.into_iter().flatten())
    }

    /// What it changes in the text encoder.
    pub(super) fn of_text_encoder(&self) -> impl Iterator<Item = (&String, &LowRank)> {
        let unknown = self.unknown_is_text_encoder().then_some(&self.unknown);
        self.text_encoder.iter().chain(unknown.into_iter().flatten())
    }

    fn unknown_is_text_encoder(&self) -> bool {
        self.unknown.keys().all(|layer| layer.starts_with("roberta_") || layer.starts_with("transformation"))
    }
}

impl Pieces {
    fn join(self, file: &str, layer: &str, peft: Option<&PeftConfig>) -> Result<LowRank> {
        let lacks = |what| {
            Error::content(file, format!("layer {layer}: expected a LoRA's {what} matrix, found none"))
        };
        let (down, up) = (self.down.ok_or_else(|| lacks("down"))?, self.up.ok_or_else(|| lacks("up"))?);
        let rank = down.dims().first().copied().unwrap_or(0);
        let fits = down.rank() >= 2 && up.rank() >= 2 && up.dims().get(1) == Some(&rank);
        let mid_fits =
            self.mid.as_ref().is_none_or(|mid| mid.rank() == 4 && mid.dims().get(..2) == Some(&[rank, rank]));
        if !fits || !mid_fits || rank == 0 || rank > LARGEST_RANK {
            let problem = format!(
                "layer {layer}: expected matrices (rank, in) and (out, rank), found {:?} and {:?}",
                down.dims(),
                up.dims()
            );
            return Err(Error::content(file, problem));
        }
        for matrix in [Some(&down), self.mid.as_ref(), Some(&up)].into_iter().flatten() {
            if !all_finite(matrix)? {
                return Err(Error::content(
                    file,
                    format!("layer {layer}: holds NaN or infinity, expected numbers"),
                ));
            }
        }
        let root = if peft.is_some_and(|peft| peft.use_rslora) { (rank as f64).sqrt() } else { rank as f64 };
        let alpha = self.alpha.or(peft.and_then(|peft| peft.lora_alpha));
        Ok(LowRank { down, mid: self.mid, up, scale: alpha.map_or(1.0, |alpha| alpha / root) })
    }
}

/// Says what a file is that holds a tensor of this name.
fn no_lora(file: &str, tensor: &str) -> Error {
    let kind = if tensor.contains(".hada_") {
        "LoHa"
    } else if tensor.contains(".lokr_") {
        "LoKr"
    } else if tensor.contains("dora_scale") || tensor.contains("lora_magnitude_vector") {
        "DoRA"
    } else {
        return Error::content(file, format!("expected a LoRA, found the tensor {tensor}"));
    };
    Error::content(
        file,
        format!("expected a LoRA, found a {kind}: merge it into a model with the program that made it"),
    )
}

/// The one finite number that a tensor holds.
fn single(file: &str, name: &str, tensor: &Tensor) -> Result<f64> {
    let value = if tensor.elem_count() == 1 {
        tensor.flatten_all()?.to_vec1::<f32>()?.first().copied()
    } else {
        None
    };
    value.filter(|value| value.is_finite()).map(f64::from).ok_or_else(|| {
        Error::content(file, format!("{name}: expected one number, found shape {:?}", tensor.dims()))
    })
}
