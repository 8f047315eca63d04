//! Converts models between layouts and number types.

use std::collections::BTreeMap;
use std::path::Path;

use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite, write_gguf, write_safetensors};
use model_files::config::parse_json;
use model_files::source::FileData;
use serde_json::Value;

use super::entries::unreadable;
use super::number_types::choose_int8;
use super::output::{ARCHITECTURE, OnTensor, format_metadata, report_progress, write_file};
use super::{ModelParts, PartKind, SCHEDULER_CONFIG, TEXT_ENCODER_CONFIG, UNET_CONFIG, VAE_CONFIG, gguf_key};
use crate::Result;

/// The result of a conversion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// The number of tensors.
    pub tensors: usize,
    /// Tensors of the source that were left out: those that are not part of the model (optimizer states, averaged
    /// weights), and those that cannot be read, with the reason.
    pub left_out: Vec<String>,
    /// For a GGUF file, how many weights could not be quantized as requested because their rows are not a multiple of
    /// the block size, keyed by the type used instead.
    pub fell_back: BTreeMap<String, usize>,
}

impl ModelParts {
    /// Writes the model as one safetensors file in latent diffusion's naming, with its configurations in the header.
    /// Floating-point numbers are converted to `dtype`; `None` leaves them as they are. int8 is for the weights of linear
    /// layers in the UNet and the text encoder.
    ///
    /// # Errors
    /// If a tensor cannot be read or converted, or the file cannot be written; nothing is left behind then. Also
    /// [`Error::Cancelled`](crate::Error::Cancelled), if `on_tensor` breaks.
    pub fn write_single_file(
        &self,
        path: &Path,
        dtype: Option<NumberType>,
        on_tensor: OnTensor,
    ) -> Result<Converted> {
        let (entries, left_out) = self.single_file_entries()?;
        let tensors = self.to_write(entries.into_iter(), dtype, &mut BTreeMap::new());
        let mut metadata = format_metadata();
        metadata.extend(self.configurations()?);
        let total = tensors.len();
        write_file(path, path, |to, name| {
            write_safetensors(to, name, &tensors, &metadata, |done| report_progress(on_tensor, done, total))
        })?;
        Ok(Converted { tensors: total, left_out, ..Converted::default() })
    }

    /// Writes the model as one GGUF file in latent diffusion's naming, with its configurations in the metadata. If
    /// `dtype` is a quantized type, it applies to the UNet and the text encoder, except for their small and sensitive
    /// weights; the autoencoder is not quantized, unless [asked for](Self::with_quantized_autoencoder). Otherwise like [`write_single_file`](Self::write_single_file).
    ///
    /// # Errors
    /// Like [`write_single_file`](Self::write_single_file).
    pub fn write_gguf(
        &self,
        path: &Path,
        dtype: Option<NumberType>,
        on_tensor: OnTensor,
    ) -> Result<Converted> {
        let (entries, left_out) = self.single_file_entries()?;
        let mut fell_back = BTreeMap::new();
        let tensors = self.to_write(entries.into_iter(), dtype, &mut fell_back);
        let configurations = self.configurations()?;
        let metadata = configurations.iter().map(|(relative, json)| (gguf_key(relative), json.clone()));
        let metadata = metadata.collect();
        let total = tensors.len();
        write_file(path, path, |to, name| {
            write_gguf(to, name, ARCHITECTURE, &tensors, &metadata, |done| {
                report_progress(on_tensor, done, total)
            })
        })?;
        Ok(Converted { tensors: total, left_out, fell_back })
    }

    /// The parts' configurations, keyed by their file names in a model in folders.
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
}

/// Converts the weights in one file, of any model, to a safetensors file with the same names.
///
/// # Errors
/// Like [`ModelParts::write_single_file`].
pub fn convert_weights(
    from: &Checkpoint,
    path: &Path,
    dtype: Option<NumberType>,
    on_tensor: OnTensor,
) -> Result<Converted> {
    let tensor = |name: &str| {
        let shape = from.shape(name)?.to_vec();
        let dtype = match dtype {
            Some(NumberType::Int8) => Some(choose_int8(PartKind::TextEncoder, name, &shape)),
            dtype => dtype,
        };
        let (source, name) = (name.to_owned(), name.to_owned());
        Some(TensorToWrite { checkpoint: from, source, name, shape, dtype })
    };
    let tensors: Vec<_> = from.names().filter_map(tensor).collect();
    let total = tensors.len();
    let mut metadata = from.metadata();
    metadata.extend(format_metadata());
    write_file(path, path, |to, name| {
        write_safetensors(to, name, &tensors, &metadata, |done| report_progress(on_tensor, done, total))
    })?;
    Ok(Converted { tensors: total, left_out: unreadable(from).collect(), ..Converted::default() })
}
