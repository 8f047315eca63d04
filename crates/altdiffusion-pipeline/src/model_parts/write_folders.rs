//! Writes a model in diffusers' folders.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use altclip_encoder::conditioner::ConditionerConfig;
use model_files::Temporary;
use model_files::checkpoint::{NumberType, TensorToWrite, write_gguf, write_safetensors};
use model_files::config::parse_json;
use serde_json::{Value, json};

use super::convert::Converted;
use super::entries::{Entries, FileEntry, in_folder};
use super::output::{ARCHITECTURE, OnTensor, format_metadata, report_progress, write_file};
use super::{
    FEATURE_EXTRACTOR_CONFIG, IMAGE_ENCODER, ModelParts, PartKind, SAFETY_CHECKER, SCHEDULER_CONFIG,
    SafetyCheckerFiles, UPSCALER, unet_names, vae_names,
};
use crate::unet::UNet2DConditionConfig;
use crate::{Error, Result};

/// The files of a tokenizer.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer/sentencepiece.bpe.model",
    "tokenizer/vocab.txt",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/added_tokens.json",
];
/// How many of them hold a vocabulary; the class of tokenizers of each, the last of which does not tell.
const VOCABULARIES: usize = 4;
const TOKENIZER_CLASSES: [&str; VOCABULARIES - 1] = ["XLMRobertaTokenizer", "BertTokenizer", "CLIPTokenizer"];

impl ModelParts {
    /// Writes the model in diffusers' folders, into the directory `path`, which must not exist yet. If `dtype` is a
    /// quantized type, quantized parts are GGUF files such as `unet/diffusion_pytorch_model.gguf`, which diffusers
    /// does not read. Otherwise like [`write_single_file`](Self::write_single_file).
    ///
    /// # Errors
    /// Also if there is no tokenizer, since none was given with a single file.
    pub fn write_folders(
        &self,
        path: &Path,
        dtype: Option<NumberType>,
        on_tensor: OnTensor,
    ) -> Result<Converted> {
        if path.exists() {
            let problem = "cannot be written: it is there already, expected the name of a new directory";
            return Err(Error::content(path.display().to_string(), problem));
        }
        let tokenizer = self.tokenizer()?;
        let unet_config: UNet2DConditionConfig = parse_json(&self.unet.config)?;
        let Entries { text_encoder, unet, vae, left_out } = self.entries()?;
        let mut parts = vec![
            (PartKind::TextEncoder, "text_encoder", &self.text_encoder, text_encoder),
            (PartKind::UNet, "unet", &self.unet, unet),
            (PartKind::Vae, "vae", &self.vae, vae),
        ];
        if let Some(part) = &self.image_encoder {
            parts.push((PartKind::ImageEncoder, IMAGE_ENCODER, part, in_folder(part, str::to_owned)));
        }
        if let Some(part) = &self.upscaler {
            parts.push((PartKind::Upscaler, UPSCALER, part, in_folder(part, str::to_owned)));
        }
        if let Some(SafetyCheckerFiles { checker, .. }) = &self.safety {
            parts.push((PartKind::SafetyChecker, SAFETY_CHECKER, checker, in_folder(checker, str::to_owned)));
        }
        let total = parts.iter().map(|(.., entries)| entries.len()).sum();

        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let temporary = Temporary::folder(directory).map_err(|error| Error::io(path, error))?;
        let write = |relative: &str, content: &[u8]| -> Result<()> {
            let file = temporary.path().join(relative);
            let made = file.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::write(&file, content))
                .map_err(|error| Error::io(&path.join(relative), error))
        };

        let mut vocabulary = None;
        for (index, relative) in TOKENIZER_FILES.into_iter().enumerate() {
            if let Some(file) = tokenizer.read_optional(relative)? {
                write(relative, &file)?;
                vocabulary = vocabulary.or((index < VOCABULARIES).then_some(index));
            }
        }
        let Some(vocabulary) = vocabulary else {
            let (last, files) = TOKENIZER_FILES[..VOCABULARIES].split_last().unwrap_or((&"", &[]));
            let problem = format!("no file {} or {last}", files.join(", "));
            return Err(Error::content(tokenizer.to_string(), problem));
        };
        write(SCHEDULER_CONFIG, &self.scheduler)?;
        if let Some(feature_extractor) = tokenizer.read_optional(FEATURE_EXTRACTOR_CONFIG)? {
            write(FEATURE_EXTRACTOR_CONFIG, &feature_extractor)?;
        }
        let mut written = 0;
        let mut fell_back = BTreeMap::new();
        for (kind, folder, part, entries) in parts {
            write(&format!("{folder}/config.json"), &part.config)?;
            let of_file = entries.into_iter().map(|entry| {
                let shape = match kind {
                    PartKind::Vae => vae_names::shape_in_diffusers(&entry.name, entry.shape),
                    PartKind::UNet => {
                        let is_linear = unet_config.use_linear_projection;
                        unet_names::shape_in_diffusers(&entry.name, entry.shape, is_linear)
                    }
                    _ => entry.shape.to_vec(),
                };
                let name = entry.name.clone();
                FileEntry { part: kind, entry, name, shape }
            });
            let tensors = self.to_write(of_file, dtype, &mut fell_back);
            let is_quantized = |tensor: &TensorToWrite| match tensor.dtype {
                Some(dtype) => matches!(dtype, NumberType::Quantized(_)),
                None => tensor.checkpoint.block_type(&tensor.source).is_some(),
            };
            let is_quantized = tensors.iter().any(is_quantized);
            let stem = match kind {
                PartKind::UNet | PartKind::Vae | PartKind::Upscaler => "diffusion_pytorch_model",
                PartKind::TextEncoder | PartKind::ImageEncoder | PartKind::SafetyChecker => "model",
            };
            let relative = Path::new(folder)
                .join(format!("{stem}.{}", if is_quantized { "gguf" } else { "safetensors" }));
            let (file, name) = (temporary.path().join(&relative), path.join(&relative));
            let mut on_tensor = |done| report_progress(on_tensor, written + done, total);
            write_file(&file, &name, |to, name| match is_quantized {
                true => write_gguf(to, name, ARCHITECTURE, &tensors, &BTreeMap::new(), &mut on_tensor),
                false => write_safetensors(to, name, &tensors, &format_metadata(), &mut on_tensor),
            })?;
            written += tensors.len();
        }
        let index = serde_json::to_vec_pretty(&self.model_index(TOKENIZER_CLASSES.get(vocabulary).copied())?)
            .map_err(|error| Error::content("model_index.json", error.to_string()))?;
        write("model_index.json", &index)?;

        temporary.persist(path).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => {
                let problem = "cannot be written: another process made it in the meantime";
                Error::content(path.display().to_string(), problem)
            }
            _ => Error::io(path, error),
        })?;
        Ok(Converted { tensors: total, left_out, fell_back })
    }

    /// Builds `model_index.json` as diffusers does, for a tokenizer whose files tell this class.
    fn model_index(&self, tokenizer: Option<&str>) -> Result<Value> {
        let (pipeline, text_encoder, usual_tokenizer) =
            match ConditionerConfig::read(&self.text_encoder.config)? {
                ConditionerConfig::AltDiffusion(_) => (
                    "AltDiffusionPipeline",
                    ["alt_diffusion", "RobertaSeriesModelWithTransformation"],
                    "XLMRobertaTokenizer",
                ),
                ConditionerConfig::Clip(_) => {
                    ("StableDiffusionPipeline", ["transformers", "CLIPTextModel"], "CLIPTokenizer")
                }
                ConditionerConfig::Bert(_) => {
                    ("StableDiffusionPipeline", ["transformers", "BertModel"], "BertTokenizer")
                }
            };
        let scheduler: Value = parse_json(&self.scheduler)?;
        let part = |is_there: bool, library: &str, class: &str| match is_there {
            true => json!([library, class]),
            false => json!([null, null]),
        };
        let (has_checker, has_encoder) = (self.safety.is_some(), self.image_encoder.is_some());
        let feature_extractor = part(has_checker || has_encoder, "transformers", "CLIPImageProcessor");
        let safety_checker = part(has_checker, "stable_diffusion", "StableDiffusionSafetyChecker");
        let image_encoder = part(has_encoder, "transformers", "CLIPVisionModelWithProjection");
        let mut index = json!({
            "_class_name": pipeline,
            "feature_extractor": feature_extractor,
            "image_encoder": image_encoder,
            "requires_safety_checker": self.safety.is_some(),
            "safety_checker": safety_checker,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": text_encoder,
            "tokenizer": ["transformers", tokenizer.unwrap_or(usual_tokenizer)],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        // Models of other programs have no such part, and do not mention it.
        if self.upscaler.is_some() {
            index[UPSCALER] = json!(["altdiffusion", "PixelShuffleUpscaler"]);
        }
        Ok(index)
    }
}
