//! The training of the emoji model from its one configuration file: tokenizer, autoencoder, dual encoder, its image side
//! once more, diffusion.

use crate::emoji::{CaptionSampler, Dataset};
use crate::error::{Error, Result};
use crate::evaluate::{Taught, training_pictures};
use crate::export::{export, scheduler_config, text_encoder_config};
use crate::parameters::frozen;
use crate::run::{Observer, Run};
use crate::settings::{self, Change};
use crate::stages::clip::{ClipInputs, ClipStage, TrainedDualEncoder};
use crate::stages::diffusion::{DiffusionInputs, DiffusionStage};
use crate::stages::image::{ImageInputs, ImageStage};
use crate::stages::vae::{TrainedVae, VaeStage};
use crate::unigram::train_unigram;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::vae::AutoencoderKl;
use altdiffusion_pipeline::write_whole;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Every setting of the emoji model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of all weights and all draws.
    pub seed: u64,
    /// Languages of the captions, by their codes.
    pub languages: Vec<String>,
    /// Drawing styles to learn, such as `google`.
    pub vendors: Vec<String>,
    /// Pieces of the tokenizer.
    pub vocab_size: usize,
    pub vae: VaeStage,
    pub contrastive: ClipStage,
    pub image: ImageStage,
    pub diffusion: DiffusionStage,
}

/// A part of the recipe that can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Vae,
    Contrastive,
    /// Finishes the two before it where they are not.
    Image,
    /// Finishes all stages before it where they are not.
    Diffusion,
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "vae" => Ok(Self::Vae),
            "contrastive" => Ok(Self::Contrastive),
            "image" => Ok(Self::Image),
            "diffusion" => Ok(Self::Diffusion),
            _ => {
                Err(Error::Setting(format!("stage `{name}`: expected vae, contrastive, image or diffusion")))
            }
        }
    }
}

impl Recipe {
    /// Reads a recipe from a TOML file, with changes made to it.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a setting, or has one that is unknown.
    pub fn load(path: &Path, changes: &[Change]) -> Result<Self> {
        settings::load(path, changes)
    }

    /// Reads a recipe from the text of a TOML file; `path` is for the errors.
    ///
    /// # Errors
    /// If the text lacks a setting, or has one that is unknown.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        settings::parse(text, path, &[])
    }

    /// What the model learns to draw.
    pub fn taught(&self) -> Taught {
        let exclude = self.diffusion.exclude.clone();
        let (languages, vendors) = (self.languages.clone(), self.vendors.clone());
        Taught { languages, vendors, exclude, skin_tones: true }
    }

    /// Trains up to and including a stage, going on where an earlier run stopped. After the last one the model lies in
    /// `output/model`, in the published layout. The autoencoder and the dual encoder do not need each other: two
    /// processes can train them side by side.
    ///
    /// # Errors
    /// If a setting describes no model, a file cannot be read or written, or a loss is not finite.
    pub fn train(
        &self,
        data: &Dataset,
        output: &Path,
        last: Stage,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (pictures, owners) = training_pictures(data, &self.vendors, device)?;
        let corpus = Corpus { pictures, owners };
        match last {
            Stage::Vae => self.train_vae(&corpus, output, observer).map(|_| ()),
            Stage::Contrastive => self.train_contrastive(data, &corpus, output, observer).map(|_| ()),
            Stage::Image | Stage::Diffusion => {
                let vae = self.train_vae(&corpus, output, observer)?;
                let mut dual_encoder = self.train_contrastive(data, &corpus, output, observer)?;
                self.train_image(data, &corpus, output, &vae, &mut dual_encoder, observer)?;
                if last == Stage::Image {
                    return Ok(());
                }
                self.train_diffusion(data, &corpus, output, &vae, &dual_encoder, observer)
            }
        }
    }

    fn train_vae(&self, corpus: &Corpus, output: &Path, observer: &mut dyn Observer) -> Result<TrainedVae> {
        let run = Run::open(output.join("vae"), self.seed)?;
        self.vae.train(&corpus.pictures, &run, self.seed, observer)
    }

    fn train_contrastive(
        &self,
        data: &Dataset,
        corpus: &Corpus,
        output: &Path,
        observer: &mut dyn Observer,
    ) -> Result<TrainedDualEncoder> {
        let tokenizer = self.tokenizer(data, output)?.0;
        let run = Run::open(output.join("contrastive"), self.seed)?;
        let Corpus { pictures, owners } = corpus;
        let (tokenizer, languages) = (&tokenizer, self.languages.as_slice());
        let inputs = ClipInputs { data, pictures, owners, tokenizer, languages };
        self.contrastive.train(&inputs, &run, self.seed, observer)
    }

    fn train_image(
        &self,
        data: &Dataset,
        corpus: &Corpus,
        output: &Path,
        trained_vae: &TrainedVae,
        dual_encoder: &mut TrainedDualEncoder,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let tokenizer = self.tokenizer(data, output)?.0;
        let device = corpus.pictures.device();
        let vae = AutoencoderKl::new(&trained_vae.model.config, frozen(&trained_vae.model.weights, device))?;
        let inputs = ImageInputs {
            data,
            pictures: &corpus.pictures,
            latents: &trained_vae.latents,
            owners: &corpus.owners,
            languages: &self.languages,
            tokenizer: &tokenizer,
            vae: &vae,
        };
        let run = Run::open(output.join("image"), self.seed)?;
        self.image.train(&inputs, dual_encoder, &run, self.seed, observer)
    }

    fn train_diffusion(
        &self,
        data: &Dataset,
        corpus: &Corpus,
        output: &Path,
        trained_vae: &TrainedVae,
        dual_encoder: &TrainedDualEncoder,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (tokenizer, tokenizer_bytes) = self.tokenizer(data, output)?;
        let device = corpus.pictures.device();
        let text_encoder =
            TextEncoder::new(&text_encoder_config(dual_encoder), frozen(&dual_encoder.text_weights, device))?;
        let vae = AutoencoderKl::new(&trained_vae.model.config, frozen(&trained_vae.model.weights, device))?;
        let scheduler = SchedulerConfig::from_json(scheduler_config().to_string(), "scheduler_config.json")?;
        let inputs = DiffusionInputs {
            data,
            latents: &trained_vae.latents,
            owners: &corpus.owners,
            languages: &self.languages,
            tokenizer: &tokenizer,
            text_encoder: &text_encoder,
            vae: &vae,
            scheduler: &scheduler,
        };
        let run = Run::open(output.join("diffusion"), self.seed)?;
        let unet = self.diffusion.train(&inputs, &run, self.seed, observer)?;
        export(&output.join("model"), &tokenizer_bytes, dual_encoder, &trained_vae.model, &unet)
    }

    /// The tokenizer of the captions and its file, trained on first use.
    fn tokenizer(&self, data: &Dataset, output: &Path) -> Result<(Tokenizer, Vec<u8>)> {
        let path: PathBuf = output.join("sentencepiece.bpe.model");
        let bytes = if path.exists() {
            std::fs::read(&path).map_err(Error::io(&path))?
        } else {
            let captions = CaptionSampler::new(data);
            let texts = (0..data.concepts().len()).flat_map(|concept| {
                let of_language = |language: &String| captions.captions(concept, language);
                self.languages.iter().flat_map(of_language).map(|caption| caption.text).collect::<Vec<_>>()
            });
            let bytes = train_unigram(texts, self.vocab_size).map_err(|e| Error::Setting(e.to_string()))?;
            std::fs::create_dir_all(output).map_err(Error::io(output))?;
            write_whole(&path, |temporary| std::fs::write(temporary, &bytes))?;
            bytes
        };
        Ok((Tokenizer::from_sentencepiece_bytes(&bytes, &path.display().to_string())?, bytes))
    }
}

/// The pictures of the chosen drawing styles.
struct Corpus {
    /// (n, size, size, 3), from −1 to 1.
    pictures: Tensor,
    /// The concept that each shows.
    owners: Vec<usize>,
}
