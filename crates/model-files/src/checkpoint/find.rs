//! Finds the file with the weights of one folder of a model.

use crate::error::{Error, Result};
use crate::relative_path::in_folder;
use crate::source::ModelSource;

/// The names that weights go by, in the order in which they are looked for. `pytorch_model` is transformers' name and
/// `diffusion_pytorch_model` diffusers'.
const FILE_NAMES: [&str; 10] = [
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
];

/// The variant that is taken when there is nothing else: half precision.
const HALF_PRECISION: &str = "fp16";

/// The file with the weights in `folder`, which may be an index of shards.
pub(crate) fn weights_file(source: &ModelSource, folder: &str) -> Result<Option<String>> {
    let [plain, variants] = names(source, folder);
    // One list after the other: of the hub's files the first takes one that was downloaded before, and that is
    // no reason to prefer a variant.
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
pub(super) fn no_weights(source: &ModelSource, folder: &str) -> Error {
    let [plain, variants] = names(source, folder);
    let [first, _, _, _, pickle, ..] = if source.variant().is_some() { &variants } else { &plain };
    source.missing(&format!("{first} (nor another of the names that weights go by, such as {pickle})"))
}

/// The names that weights in `folder` may have, without a variant and with the one that is asked for or half precision.
fn names(source: &ModelSource, folder: &str) -> [[String; FILE_NAMES.len()]; 2] {
    let plain = FILE_NAMES.map(|name| in_folder(folder, name));
    let variant = source.variant().unwrap_or(HALF_PRECISION);
    let variants = plain.each_ref().map(|name| with_variant(name, variant));
    [plain, variants]
}

/// The name of a variant's file, as diffusers and transformers make it: `model.safetensors` becomes
/// `model.fp16.safetensors`, and `model.safetensors.index.json` becomes `model.safetensors.index.fp16.json`.
fn with_variant(file: &str, variant: &str) -> String {
    match file.rsplit_once('.') {
        Some((stem, ending)) => format!("{stem}.{variant}.{ending}"),
        None => format!("{file}.{variant}"),
    }
}
