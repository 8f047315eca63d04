//! Finds the weight file in a folder of a model.

use crate::error::{Error, Result};
use crate::relative_path::in_folder;
use crate::source::ModelSource;

/// The names of weight files, in search order. `pytorch_model` is transformers' name, `diffusion_pytorch_model`
/// diffusers', and `open_clip_model` OpenCLIP's.
const FILE_NAMES: [&str; 12] = [
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin.index.json",
    "model.gguf",
    "diffusion_pytorch_model.gguf",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
];

/// The variant used if there is nothing else: half precision.
const HALF_PRECISION: &str = "fp16";

/// The weight file in `folder`, which may be an index of shards.
pub(crate) fn weights_file(source: &ModelSource, folder: &str) -> Result<Option<String>> {
    let [plain, variants] = names(source, folder);
    // One list after the other: on the hub, a list prefers files already downloaded, which must not decide between
    // variants.
    match source.variant() {
        Some(_) => source.first_of(&variants),
        None => match source.first_of(&plain)? {
            Some(file) => Ok(Some(file)),
            None => source.first_of(&variants),
        },
    }
}

#[cfg(feature = "hub")]
/// The files in `folder` that [`weights_file`] looks for.
pub(crate) fn candidates(source: &ModelSource, folder: &str) -> Vec<String> {
    let [plain, variants] = names(source, folder);
    let plain = if source.variant().is_some() { Vec::new() } else { plain.to_vec() };
    plain.into_iter().chain(variants).collect()
}

/// The error for a folder without weights.
pub(crate) fn no_weights(source: &ModelSource, folder: &str) -> Error {
    let [plain, variants] = names(source, folder);
    let [first, _, _, _, pickle, ..] = if source.variant().is_some() { &variants } else { &plain };
    source.missing(&format!("{first} (nor another of the names that weights go by, such as {pickle})"))
}

/// The names of weights in `folder`, without a variant, and with the requested one or half precision.
fn names(source: &ModelSource, folder: &str) -> [[String; FILE_NAMES.len()]; 2] {
    let plain = FILE_NAMES.map(|name| in_folder(folder, name));
    let variant = source.variant().unwrap_or(HALF_PRECISION);
    let variants = plain.each_ref().map(|name| with_variant(name, variant));
    [plain, variants]
}

/// The name of a variant's file in diffusers and transformers: `model.safetensors` becomes `model.fp16.safetensors`,
/// and `model.safetensors.index.json` becomes `model.safetensors.index.fp16.json`.
fn with_variant(file: &str, variant: &str) -> String {
    match file.rsplit_once('.') {
        Some((stem, ending)) => format!("{stem}.{variant}.{ending}"),
        None => format!("{file}.{variant}"),
    }
}
