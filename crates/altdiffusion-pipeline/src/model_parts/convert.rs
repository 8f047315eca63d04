//! Models from one layout and number type to another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use model_files::WholeFile;
use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite, write_gguf, write_safetensors};
use model_files::config::parse_json;
use model_files::source::FileData;
use serde_json::{Value, json};

use super::number_types::choose;
use super::unet_names::{self, UNetNames};
use super::vae_names::{self, VaeNames, name_of_today, shape_in_diffusers, shape_in_ldm};
use super::{
    FEATURE_EXTRACTOR_CONFIG, IMAGE_ENCODER, ModelParts, Part, PartKind, SAFETY_CHECKER, SCHEDULER_CONFIG,
    SafetyParts, TEXT_ENCODER_CONFIG, TEXT_ENCODER_PREFIX, UNET_CONFIG, VAE_CONFIG, gguf_key,
};
use crate::{Error, Result};

/// What a tokenizer may consist of.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer/sentencepiece.bpe.model",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/added_tokens.json",
];

/// What a conversion has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// The number of tensors.
    pub tensors: usize,
    /// The names of the tensors in the source that are not part of the model, and were left out: of its training, or of
    /// averages over it. And those that cannot be read, with the reason.
    pub left_out: Vec<String>,
    /// Of a GGUF file, the number of weights whose rows are no whole number of blocks of the type that was asked for, by the
    /// name of the type that they have in its stead.
    pub fell_back: BTreeMap<String, usize>,
}

/// What a GGUF file says it is of. Only part of what it holds is known to other programs.
const ARCHITECTURE: &str = "altdiffusion";

/// Told how many tensors of how many are done; may end the work.
type OnTensor<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// One tensor of a part.
struct Entry<'a> {
    checkpoint: &'a Checkpoint,
    /// The name that the part is asked for it by.
    source: String,
    /// The name that diffusers has for it.
    name: String,
    shape: &'a [usize],
}

/// One tensor of a file.
struct FileEntry<'a> {
    part: PartKind,
    entry: Entry<'a>,
    /// The name and the shape that it has in the file.
    name: String,
    shape: Vec<usize>,
}

impl<'a> FileEntry<'a> {
    fn to_write(&self, dtype: Option<NumberType>) -> TensorToWrite<'a> {
        self.entry.renamed(self.name.clone(), self.shape.clone(), dtype)
    }
}

/// The tensors of a model, by parts.
struct Entries<'a> {
    text_encoder: Vec<Entry<'a>>,
    unet: Vec<Entry<'a>>,
    vae: Vec<Entry<'a>>,
    left_out: Vec<String>,
}

impl ModelParts {
    /// Writes the model as one safetensors file in the naming of latent diffusion, with its configurations in the header.
    /// `dtype` is what floating-point numbers are converted to; `None` leaves them as they are.
    ///
    /// # Errors
    /// When a tensor cannot be read or converted, or the file not be written; then nothing is left behind. And
    /// [`Error::Cancelled`], when `on_tensor` breaks.
    pub fn write_single_file(
        &self,
        path: &Path,
        dtype: Option<NumberType>,
        on_tensor: OnTensor,
    ) -> Result<Converted> {
        let (entries, left_out) = self.single_file_entries()?;
        let tensors: Vec<_> = entries.into_iter().map(|entry| entry.to_write(dtype)).collect();
        let mut metadata = format_metadata();
        metadata.extend(self.configurations()?);
        let total = tensors.len();
        write_file(path, |to, name| {
            write_safetensors(to, name, &tensors, &metadata, |done| told(on_tensor, done, total))
        })?;
        Ok(Converted { tensors: total, left_out, ..Converted::default() })
    }

    /// Writes the model as one GGUF file in the naming of latent diffusion, with its configurations in the metadata. Where
    /// `dtype` is a type of blocks, the weights of the UNet and the text encoder are in such; the autoencoder and what else
    /// is small and delicate is not. The rest is as in [`write_single_file`](Self::write_single_file).
    ///
    /// # Errors
    /// As [`write_single_file`](Self::write_single_file).
    pub fn write_gguf(
        &self,
        path: &Path,
        dtype: Option<NumberType>,
        on_tensor: OnTensor,
    ) -> Result<Converted> {
        let (entries, left_out) = self.single_file_entries()?;
        let mut fell_back = BTreeMap::new();
        let tensors = to_write(entries.into_iter(), dtype, &mut fell_back);
        let configurations = self.configurations()?;
        let metadata = configurations.iter().map(|(relative, json)| (gguf_key(relative), json.clone()));
        let metadata = metadata.collect();
        let total = tensors.len();
        write_file(path, |to, name| {
            write_gguf(to, name, ARCHITECTURE, &tensors, &metadata, |done| told(on_tensor, done, total))
        })?;
        Ok(Converted { tensors: total, left_out, fell_back })
    }

    /// All tensors as they are called in a single file, and the names of those that have no place there.
    fn single_file_entries(&self) -> Result<(Vec<FileEntry<'_>>, Vec<String>)> {
        let unet_names = UNetNames::new(&parse_json(&self.unet.config)?)?;
        let vae_names = VaeNames::new(&parse_json(&self.vae.config)?);
        let Entries { text_encoder, unet, vae, mut left_out } = self.entries()?;
        let mut entries = Vec::new();
        for entry in text_encoder {
            let (name, shape) = (format!("{TEXT_ENCODER_PREFIX}{}", entry.name), entry.shape.to_vec());
            entries.push(FileEntry { part: PartKind::TextEncoder, entry, name, shape });
        }
        for entry in unet {
            match unet_names.to_ldm(&entry.name) {
                Some(name) => {
                    let (name, shape) = (format!("{}{name}", unet_names::PREFIX), entry.shape.to_vec());
                    entries.push(FileEntry { part: PartKind::UNet, entry, name, shape });
                }
                None => left_out.push(format!("unet: {}", entry.name)),
            }
        }
        for entry in vae {
            match vae_names.to_ldm(&entry.name) {
                Some(name) => {
                    let name = format!("{}{name}", vae_names::PREFIX);
                    let shape = shape_in_ldm(&entry.name, entry.shape);
                    entries.push(FileEntry { part: PartKind::Vae, entry, name, shape });
                }
                None => left_out.push(format!("vae: {}", entry.name)),
            }
        }
        if self.safety.is_some() {
            // No file in this naming has one.
            left_out.push(format!("{SAFETY_CHECKER}.*"));
        }
        Ok((entries, left_out))
    }

    /// The configurations of the parts, by their files' names in a model in folders.
    fn configurations(&self) -> Result<BTreeMap<String, String>> {
        let files = [
            (TEXT_ENCODER_CONFIG, &self.text_encoder.config),
            (UNET_CONFIG, &self.unet.config),
            (VAE_CONFIG, &self.vae.config),
            (SCHEDULER_CONFIG, &self.scheduler),
        ];
        let text = |(relative, config): (&str, &FileData)| -> Result<_> {
            let json: Value = parse_json(config)?;
            Ok((relative.to_owned(), json.to_string()))
        };
        files.into_iter().map(text).collect()
    }

    /// Writes the model as the folders of diffusers, into the directory `path`, which must not be there yet. Where `dtype`
    /// is a type of blocks, parts with such are GGUF files, `unet/diffusion_pytorch_model.gguf` and the like, which diffusers
    /// does not read. The rest is as in [`write_single_file`](Self::write_single_file).
    ///
    /// # Errors
    /// Also when there is no tokenizer, because nothing was given beside a single file.
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
        let Entries { text_encoder, unet, vae, left_out } = self.entries()?;
        let mut parts = vec![
            (PartKind::TextEncoder, "text_encoder", &self.text_encoder, text_encoder),
            (PartKind::UNet, "unet", &self.unet, unet),
            (PartKind::Vae, "vae", &self.vae, vae),
        ];
        if let Some(part) = &self.image_encoder {
            parts.push((PartKind::ImageEncoder, IMAGE_ENCODER, part, in_folder(part, str::to_owned)));
        }
        if let Some(SafetyParts { checker, .. }) = &self.safety {
            parts.push((PartKind::SafetyChecker, SAFETY_CHECKER, checker, in_folder(checker, str::to_owned)));
        }
        let total = parts.iter().map(|(.., entries)| entries.len()).sum();

        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        // Temporary directories are private to their owner by default; this one stays, so the umask alone decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary = builder.tempdir_in(directory).map_err(|error| Error::io(path, error))?;
        let write = |relative: &str, content: &[u8]| -> Result<()> {
            let file = temporary.path().join(relative);
            let made = file.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::write(&file, content)).map_err(|error| Error::io(&file, error))
        };

        let mut found_tokenizer = false;
        for relative in TOKENIZER_FILES {
            if let Some(file) = tokenizer.read_optional(relative)? {
                write(relative, &file)?;
                found_tokenizer = true;
            }
        }
        if !found_tokenizer {
            let problem = format!("no file {} or {}", TOKENIZER_FILES[0], TOKENIZER_FILES[1]);
            return Err(Error::content(tokenizer.to_string(), problem));
        }
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
                    PartKind::Vae => shape_in_diffusers(&entry.name, entry.shape),
                    _ => entry.shape.to_vec(),
                };
                let name = entry.name.clone();
                FileEntry { part: kind, entry, name, shape }
            });
            let tensors = to_write(of_file, dtype, &mut fell_back);
            let is_in_blocks = |tensor: &TensorToWrite| match tensor.dtype {
                Some(dtype) => matches!(dtype, NumberType::Blocks(_)),
                None => tensor.checkpoint.block_type(&tensor.source).is_some(),
            };
            let in_blocks = tensors.iter().any(is_in_blocks);
            let stem = match kind {
                PartKind::UNet | PartKind::Vae => "diffusion_pytorch_model",
                PartKind::TextEncoder | PartKind::ImageEncoder | PartKind::SafetyChecker => "model",
            };
            let file = temporary
                .path()
                .join(folder)
                .join(format!("{stem}.{}", if in_blocks { "gguf" } else { "safetensors" }));
            let mut on_tensor = |done| told(on_tensor, written + done, total);
            write_file(&file, |to, name| match in_blocks {
                true => write_gguf(to, name, ARCHITECTURE, &tensors, &BTreeMap::new(), &mut on_tensor),
                false => write_safetensors(to, name, &tensors, &format_metadata(), &mut on_tensor),
            })?;
            written += tensors.len();
        }
        let index = serde_json::to_vec_pretty(&self.model_index()?)
            .map_err(|error| Error::content("model_index.json", error.to_string()))?;
        write("model_index.json", &index)?;

        fs::rename(temporary.path(), path).map_err(|error| Error::io(path, error))?;
        // It has its name, and is not to be removed.
        let _ = temporary.keep();
        Ok(Converted { tensors: total, left_out, fell_back })
    }

    /// The tensors of all parts, and the names of those that belong to none.
    fn entries(&self) -> Result<Entries<'_>> {
        let Some(single) = &self.single else {
            let parts = [&self.text_encoder, &self.unet, &self.vae];
            return Ok(Entries {
                text_encoder: in_folder(&self.text_encoder, str::to_owned),
                unet: in_folder(&self.unet, str::to_owned),
                vae: in_folder(&self.vae, name_of_today),
                left_out: parts.iter().flat_map(|part| unreadable(&part.weights)).collect(),
            });
        };
        let unet_names = UNetNames::new(&parse_json(&self.unet.config)?)?;
        let vae_names = VaeNames::new(&parse_json(&self.vae.config)?);
        let left_out = unreadable(single).collect();
        let mut entries = Entries { text_encoder: Vec::new(), unet: Vec::new(), vae: Vec::new(), left_out };
        for stored in single.names() {
            let (part, list, name) = if let Some(name) = stored.strip_prefix(unet_names::PREFIX) {
                (&self.unet, &mut entries.unet, unet_names.to_diffusers(name))
            } else if let Some(name) = stored.strip_prefix(vae_names::PREFIX) {
                (&self.vae, &mut entries.vae, vae_names.to_diffusers(name))
            } else {
                let name = stored.strip_prefix(TEXT_ENCODER_PREFIX).map(str::to_owned);
                (&self.text_encoder, &mut entries.text_encoder, name)
            };
            match (name, single.shape(stored)) {
                (Some(name), Some(shape)) => {
                    list.push(Entry { checkpoint: &part.weights, source: name.clone(), name, shape });
                }
                _ => entries.left_out.push(stored.to_owned()),
            }
        }
        Ok(entries)
    }

    /// `model_index.json`, as diffusers writes it.
    fn model_index(&self) -> Result<Value> {
        let scheduler: Value = parse_json(&self.scheduler)?;
        let part = |is_there: bool, library: &str, class: &str| match is_there {
            true => json!([library, class]),
            false => json!([null, null]),
        };
        let (has_checker, has_encoder) = (self.safety.is_some(), self.image_encoder.is_some());
        let feature_extractor = part(has_checker || has_encoder, "transformers", "CLIPImageProcessor");
        let safety_checker = part(has_checker, "stable_diffusion", "StableDiffusionSafetyChecker");
        let image_encoder = part(has_encoder, "transformers", "CLIPVisionModelWithProjection");
        Ok(json!({
            "_class_name": "AltDiffusionPipeline",
            "feature_extractor": feature_extractor,
            "image_encoder": image_encoder,
            "requires_safety_checker": self.safety.is_some(),
            "safety_checker": safety_checker,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["alt_diffusion", "RobertaSeriesModelWithTransformation"],
            "tokenizer": ["transformers", "XLMRobertaTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }))
    }
}

impl<'a> Entry<'a> {
    fn renamed(&self, name: String, shape: Vec<usize>, dtype: Option<NumberType>) -> TensorToWrite<'a> {
        TensorToWrite { checkpoint: self.checkpoint, source: self.source.clone(), name, shape, dtype }
    }
}

/// What is written of the tensors of a file, where `dtype` is asked for. Counts those that have another type for want of whole
/// blocks in their rows.
fn to_write<'a>(
    entries: impl Iterator<Item = FileEntry<'a>>,
    dtype: Option<NumberType>,
    fell_back: &mut BTreeMap<String, usize>,
) -> Vec<TensorToWrite<'a>> {
    let to_write = |FileEntry { part, entry, name, shape }: FileEntry<'a>| {
        let chosen = dtype.map(|dtype| choose(part, &entry.name, &shape, dtype));
        if let Some(chosen) = chosen.filter(|chosen| chosen.fell_back) {
            *fell_back.entry(chosen.number.to_string()).or_insert(0) += 1;
        }
        entry.renamed(name, shape, chosen.map(|chosen| chosen.number))
    };
    entries.map(to_write).collect()
}

fn in_folder(part: &Part, name_of_today: impl Fn(&str) -> String) -> Vec<Entry<'_>> {
    let checkpoint = &part.weights;
    let entry = |stored: &str| {
        let shape = checkpoint.shape(stored)?;
        Some(Entry { checkpoint, source: stored.to_owned(), name: name_of_today(stored), shape })
    };
    checkpoint.names().filter_map(entry).collect()
}

/// Writes the weights of one file, whatever model they are of, as one safetensors file under the same names.
///
/// # Errors
/// As [`ModelParts::write_single_file`].
pub fn convert_weights(
    from: &Checkpoint,
    path: &Path,
    dtype: Option<NumberType>,
    on_tensor: OnTensor,
) -> Result<Converted> {
    let tensor = |name: &str| {
        let shape = from.shape(name)?.to_vec();
        let (source, name) = (name.to_owned(), name.to_owned());
        Some(TensorToWrite { checkpoint: from, source, name, shape, dtype })
    };
    let tensors: Vec<_> = from.names().filter_map(tensor).collect();
    let total = tensors.len();
    let mut metadata = from.metadata();
    metadata.extend(format_metadata());
    write_file(path, |to, name| {
        write_safetensors(to, name, &tensors, &metadata, |done| told(on_tensor, done, total))
    })?;
    Ok(Converted { tensors: total, left_out: unreadable(from).collect(), ..Converted::default() })
}

/// The tensors that cannot be read, with the reasons.
fn unreadable(checkpoint: &Checkpoint) -> impl Iterator<Item = String> {
    checkpoint.unreadable().map(|(name, problem)| format!("{name} ({problem})"))
}

/// Without it transformers refuses a safetensors file.
fn format_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// Tells how many tensors are done, and ends the work where that is wanted.
fn told(on_tensor: OnTensor, done: usize, total: usize) -> Result<()> {
    match on_tensor(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled { completed: done, total }),
    }
}

/// Writes a file that is there whole or not at all. `write` is also told what errors call it.
fn write_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>, &str) -> Result<()>) -> Result<()> {
    let whole = WholeFile::create(path)?;
    let name = path.display().to_string();
    let mut file = BufWriter::new(File::create(whole.path()).map_err(|error| Error::io(path, error))?);
    write(&mut file, &name)?;
    file.flush().map_err(|error| Error::io(path, error))?;
    Ok(whole.finish()?)
}
