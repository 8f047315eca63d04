//! Parses the options for what is added to a model: LoRAs, textual inversions and another autoencoder.

use std::path::Path;

use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::{LoadOptions, Lora, ModelParts, TextualInversion};
use anyhow::{Context, Result, ensure};
use clap::Args;
use model_files::hex;
use model_files::source::FileData;
use sha2::{Digest, Sha256};

use crate::recorded::{add_file, recorded_source};

/// The options that add LoRAs and learned words, and exchange the autoencoder.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Adapters")]
pub struct Adapters {
    /// Add a LoRA, with its strength after a colon.
    ///
    /// A file, a directory, or a repository on the hub: ink.safetensors:0.7 applies 0.7 times what was trained; without a number, 1. Repeat the option for several.
    /// Where a directory or repository has several files, name one: loras/ink.safetensors,
    /// org/name/ink.safetensors. Reads files of diffusers, PEFT, kohya's scripts and LyCORIS, for the UNet and the
    /// text encoder: LoRA, DoRA, LoHa, LoKr, GLoRA, OFT, BOFT, (IA)³, and whole differences. Words in a LoRA's file are
    /// added under their names.
    #[arg(long, value_name = "FILE[:X]")]
    lora: Vec<String>,

    /// Ignore the text encoder's part of LoRAs, and their words.
    ///
    /// For LoRAs of Stable Diffusion 1.x with AltDiffusion and AltDiffusion-m9, which have its UNet, re-aligned, but
    /// another text encoder.
    #[arg(long, requires = "lora", hide_short_help = true)]
    lora_unet_only: bool,

    /// Add a word learned by textual inversion: a file, a directory, or a repository on the hub.
    ///
    /// The word stands in the file, or is the file's name, and may be chosen: my-cat.safetensors:<cat>. Write it in the
    /// prompt. It has to be learned for the model's own text encoder. Where a directory or a repository has several files,
    /// name one: words/cat.pt, org/name/cat.pt.
    // Its brackets are for the command's help; they are not markup.
    #[allow(rustdoc::invalid_html_tags)]
    #[arg(long, alias = "textual-inversion", value_name = "FILE[:WORD]", hide_short_help = true)]
    embedding: Vec<String>,

    /// Use another autoencoder: a file, a directory, or a repository on the hub, such as stabilityai/sd-vae-ft-mse.
    ///
    /// A directory or repository in the layout of diffusers, of an autoencoder alone or of a whole model, or a file
    /// (.safetensors, .ckpt) in the naming of latent diffusion or diffusers. Its latents must have the shape of the model's
    /// own. The factor of the latents is that of its configuration, or else the model's.
    #[arg(long, value_name = "FILE_OR_DIR_OR_HUB_ID", hide_short_help = true)]
    vae: Option<String>,
}

impl Adapters {
    /// Records these options in an image.
    ///
    /// # Errors
    /// If a strength is invalid, or a file cannot be read.
    pub fn record(&self, fields: &mut ParameterFields) -> Result<()> {
        let Self { lora, lora_unet_only, embedding, vae } = self;
        let (mut lora_hashes, mut word_hashes) = (ParameterFields::default(), ParameterFields::default());
        let mut record =
            |option: &str, number: usize, file: &str, more: (&str, Option<String>)| -> Result<()> {
                let mut adapter = ParameterFields::default();
                adapter.add("Model", recorded_source(file));
                adapter.add_some(more.0, more.1);
                let path = Path::new(file);
                if path.is_file() {
                    let hash = short_hash(path)?;
                    adapter.add("Hash", &hash);
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                    if option == "LoRA" { &mut lora_hashes } else { &mut word_hashes }.add(stem, hash);
                }
                fields.add(format!("{option} {number}"), adapter.to_text());
                Ok(())
            };
        for (number, given) in lora.iter().enumerate() {
            let (name, strength) = name_and_strength(given)?;
            record("LoRA", number, name, ("Weight", Some(strength.to_string())))?;
        }
        for (number, given) in embedding.iter().enumerate() {
            let (file, word) =
                named_file(given).map_or((given.as_str(), None), |(file, word)| (file, Some(word)));
            record("Embedding", number, file, ("Word", word.map(str::to_owned)))?;
        }
        fields.add_flag("LoRA UNet only", *lora_unet_only);
        match vae.as_deref() {
            Some(name) if Path::new(name).is_file() => add_file(fields, "VAE", Path::new(name))?,
            name => fields.add_some("VAE", name.map(recorded_source)),
        }
        for (name, hashes) in [("Lora hashes", lora_hashes), ("TI hashes", word_hashes)] {
            fields.add_some(name, (!hashes.is_empty()).then(|| hashes.to_text()));
        }
        Ok(())
    }

    /// These options, with those of an image as the default.
    pub fn or(self, image: Self) -> Self {
        let is_own = !self.lora.is_empty();
        Self {
            lora: if is_own { self.lora } else { image.lora },
            lora_unet_only: self.lora_unet_only || (image.lora_unet_only && !is_own),
            embedding: if self.embedding.is_empty() { image.embedding } else { self.embedding },
            vae: self.vae.or(image.vae),
        }
    }

    /// Whether an option with a file is given.
    pub fn has(&self, option: &str) -> bool {
        match option {
            "lora" => !self.lora.is_empty(),
            "embedding" => !self.embedding.is_empty(),
            "vae" => self.vae.is_some(),
            _ => false,
        }
    }

    /// Exchanges the autoencoder, if another is named.
    ///
    /// # Errors
    /// If it is missing or invalid, or does not fit the model.
    pub fn exchange_vae(&self, parts: ModelParts) -> Result<ModelParts> {
        match &self.vae {
            Some(name) => parts.with_vae(name).context("--vae"),
            None => Ok(parts),
        }
    }

    /// Adds these adapters to `options`.
    ///
    /// # Errors
    /// If a file is missing or invalid.
    pub fn apply(&self, mut options: LoadOptions) -> Result<LoadOptions> {
        for given in &self.lora {
            let (name, strength) = name_and_strength(given)?;
            let lora = Lora::open(name).context("--lora")?;
            let lora = if self.lora_unet_only { lora.without_text_encoder() } else { lora };
            ensure!(
                lora.layers() > 0 || !self.lora_unet_only,
                "--lora-unet-only: {name} changes nothing in the UNet"
            );
            options = options.lora(lora, strength);
        }
        for given in &self.embedding {
            let words = match named_file(given) {
                Some((file, word)) => TextualInversion::open(file)
                    .and_then(|learned| learned.called(word))
                    .map(|word| vec![word]),
                None => TextualInversion::open_all(given),
            };
            options = words.context("--embedding")?.into_iter().fold(options, LoadOptions::word);
        }
        Ok(options)
    }
}

/// The hash that web interfaces use for an adapter: the SHA-256 of its tensors, without the safetensors header, in 12
/// digits.
///
/// # Errors
/// If the file cannot be read.
pub fn short_hash(path: &Path) -> Result<String> {
    const DIGITS: usize = 12;
    let bytes = FileData::open(path)?;
    let is_safetensors = path.extension().is_some_and(|ending| ending == "safetensors");
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length).saturating_add(8));
    let tensors =
        usize::try_from(header).ok().filter(|_| is_safetensors).and_then(|start| bytes.get(start..));
    let mut hash = hex(&Sha256::digest(tensors.unwrap_or(&bytes)));
    hash.truncate(DIGITS);
    Ok(hash)
}

/// Splits `FILE:0.7` into a file and a strength; a colon without a number belongs to the name.
fn name_and_strength(given: &str) -> Result<(&str, f64)> {
    match given.rsplit_once(':').map(|(name, strength)| (name, strength.parse::<f64>())) {
        Some((name, Ok(strength))) => {
            ensure!(strength.is_finite(), "--lora {name}: {strength}, expected a number");
            Ok((name, strength))
        }
        _ => Ok((given, 1.0)),
    }
}

/// Splits `FILE:WORD` into a file that exists, or is on the hub, and a word.
fn named_file(given: &str) -> Option<(&str, &str)> {
    let is_there = |name: &str| Path::new(name).exists();
    let is_word = |word: &str| !word.is_empty() && !word.contains(['/', '\\']);
    let (file, word) = given.rsplit_once(':').filter(|_| !is_there(given))?;
    (is_there(file) || file.contains('/') && is_word(word)).then_some((file, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_follow_names() {
        for (given, name, strength) in [
            ("ink.safetensors", "ink.safetensors", 1.0),
            ("ink.safetensors:0.7", "ink.safetensors", 0.7),
            (r"C:\ink.safetensors", r"C:\ink.safetensors", 1.0),
            (r"C:\ink.safetensors:-1", r"C:\ink.safetensors", -1.0),
        ] {
            assert_eq!(name_and_strength(given).ok(), Some((name, strength)));
        }
        assert!(name_and_strength("ink.safetensors:inf").is_err());
    }

    #[test]
    fn words_follow_names() {
        for (given, expected) in [
            ("org/name", None),
            ("org/name:<cat>", Some(("org/name", "<cat>"))),
            ("org/name/cat.pt:cat", Some(("org/name/cat.pt", "cat"))),
            ("org/name:", None),
            (r"C:\cat.pt", None),
            ("C:/cat.pt", None),
        ] {
            assert_eq!(named_file(given), expected, "{given}");
        }
    }
}
