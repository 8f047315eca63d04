//! Small files that change the model.

use std::path::Path;

use altdiffusion_pipeline::{LoadOptions, Lora, TextualInversion};
use anyhow::{Context, Result, ensure};
use clap::Args;

/// The options that add LoRAs and learned words.
#[derive(Debug, Args)]
#[command(next_help_heading = "Adapters")]
pub struct Adapters {
    /// Add a LoRA to the model: a file, a directory, or a repository on the hub, and with a colon how strongly.
    ///
    /// ink.safetensors:0.7 is 0.7 times what was trained; without a number, 1. Several can be given. Files of diffusers,
    /// PEFT and kohya's scripts are read, for the UNet and for the XLM-R text encoder.
    #[arg(long, value_name = "FILE[:X]")]
    lora: Vec<String>,

    /// Leave out what LoRAs change in the text encoder.
    ///
    /// So that those for Stable Diffusion 1.x, which has another text encoder, can be tried: AltDiffusion and
    /// AltDiffusion-m9 have its UNet, realigned.
    #[arg(long, requires = "lora")]
    lora_unet_only: bool,

    /// Add a word that was learned by textual inversion: a file, a directory, or a repository on the hub.
    ///
    /// The word stands in the file, or is the file's name, and may be chosen: my-cat.safetensors:<cat>. Write it in the
    /// prompt. It has to be learned for the model's own text encoder.
    // Its brackets are for the command line's help, and no markup.
    #[allow(rustdoc::invalid_html_tags)]
    #[arg(long, value_name = "FILE[:WORD]")]
    embedding: Vec<String>,
}

impl Adapters {
    /// The LoRAs as they were asked for, without the directories that they are in.
    pub fn lora_names(&self) -> Vec<String> {
        let name = |given: &String| Some(Path::new(given).file_name()?.to_str()?.to_owned());
        self.lora.iter().map(|given| name(given).unwrap_or_else(|| given.clone())).collect()
    }

    /// `options` with these.
    ///
    /// # Errors
    /// When a file is not there, or not what it should be.
    pub fn apply(&self, mut options: LoadOptions) -> Result<LoadOptions> {
        for given in &self.lora {
            let (name, strength) = name_and_strength(given)?;
            let lora = Lora::open(name).context("--lora")?;
            let lora = if self.lora_unet_only { lora.without_text_encoder() } else { lora };
            ensure!(lora.layers() > 0, "--lora-unet-only: {name} changes nothing in the UNet");
            options = options.lora(lora, strength);
        }
        for given in &self.embedding {
            let word = match named_file(given) {
                Some((file, word)) => TextualInversion::open(file).and_then(|learned| learned.called(word)),
                None => TextualInversion::open(given),
            };
            options = options.word(word.context("--embedding")?);
        }
        Ok(options)
    }
}

/// `FILE:0.7` as a file and how strongly; a colon that no number follows belongs to the name.
fn name_and_strength(given: &str) -> Result<(&str, f64)> {
    match given.rsplit_once(':').map(|(name, strength)| (name, strength.parse::<f64>())) {
        Some((name, Ok(strength))) => {
            ensure!(strength.is_finite(), "--lora {name}: {strength}, expected a number");
            Ok((name, strength))
        }
        _ => Ok((given, 1.0)),
    }
}

/// `FILE:WORD` as a file that is there and a word.
fn named_file(given: &str) -> Option<(&str, &str)> {
    let is_there = |name: &str| Path::new(name).exists();
    if is_there(given) { None } else { given.rsplit_once(':').filter(|(file, _)| is_there(file)) }
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
}
