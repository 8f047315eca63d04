//! The emoji model by AltCLIP's whole recipe, from one configuration file: an English CLIP; a multilingual text tower
//! that learns from it with no image; a touch-up with images; and diffusion that is re-aligned to the new tower.
//!
//! Each stage has a folder and goes on from its own checkpoint. What is held out ([`Split`]) is seen by none of them.

mod conditions;
mod diffusion;
mod encoders;
mod report;
mod start;

use model_files::write_whole;

use crate::emoji::{CaptionSampler, Dataset, IMAGE_SIZE, Split};
use crate::error::{Error, Result};
use crate::evaluate::{Taught, training_images};
use crate::export::export_autoencoder;
use crate::run::{Observer, Run};
use crate::settings::{self, Change};
use crate::stages::clip::ClipStage;
use crate::stages::contrastive::ContrastiveStage;
use crate::stages::decoder::DecoderStage;
use crate::stages::image::ImageStage;
use crate::stages::realign::RealignStage;
use crate::stages::sheet::SampleSheet;
use crate::stages::teacher::TeacherStage;
use crate::stages::unet_shape::UnetShape;
use crate::stages::vae::{Autoencoder, TrainedVae, VaeStage};
use crate::unigram::train_unigram;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The language of the teacher.
const ENGLISH: &str = "en";
/// Folder of the model that is the autoencoder alone.
const AUTOENCODER: &str = "autoencoder";

/// Every setting of the emoji model's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmojiRecipe {
    /// Seed of all weights and all draws.
    pub seed: u64,
    /// Seconds between two checkpoints.
    pub save_every: u64,
    /// A model that an earlier run wrote, which is trained further: its autoencoder takes the place of the first one, its
    /// encoders that of teacher and student, and its UNet that of the base.
    pub start: Option<String>,
    /// Languages of the captions, by their codes; English among them.
    pub languages: Vec<String>,
    /// Drawing styles that the encoders and the autoencoder learn.
    pub vendors: Vec<String>,
    /// Drawing styles that are drawn.
    pub drawn_vendors: Vec<String>,
    /// Categories and subcategories of concepts that are not drawn: a small model draws fewer things better.
    pub not_drawn: Vec<String>,
    /// Whether people in each skin tone are drawn, beside those without one.
    pub draw_skin_tones: bool,
    /// Pieces of the tokenizer.
    pub vocab_size: usize,
    /// Parts of a batch of diffusion that are computed at the same time on the CPU, each by its share of the cores.
    pub parts: usize,
    pub vae: VaeStage,
    /// Its decoder, trained further to decode what diffusion draws.
    pub decoder: DecoderStage,
    /// The teacher: an English CLIP.
    pub clip: ClipStage,
    /// Its image side, trained further to know rough drawings.
    pub image: ImageStage,
    pub teacher: TeacherStage,
    pub contrastive: ContrastiveStage,
    pub unet: UnetShape,
    /// Drawing, learned from English captions as the teacher reads them.
    pub base: RealignStage,
    /// Re-alignment to the multilingual text tower, stage after stage.
    pub realign: Vec<RealignStage>,
    pub sample: SampleSheet,
}

/// What is trained on.
struct Corpus {
    /// Without what is held out.
    data: Dataset,
    captions: CaptionSampler,
    /// (n, size, size, 3), channels-last, from −1 to 1.
    images: Tensor,
    /// The concept that each shows.
    owners: Vec<usize>,
}

impl EmojiRecipe {
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
        Taught {
            languages: self.languages.clone(),
            vendors: self.drawn_vendors.clone(),
            exclude: self.not_drawn.clone(),
            skin_tones: self.draw_skin_tones,
        }
    }

    /// The names of all stages, in their order.
    pub fn stages(&self) -> Vec<&str> {
        let mut stages = Vec::new();
        if self.start.is_none() {
            stages.extend(["vae", "clip", self.base.name.as_str(), "teacher"]);
        }
        stages.extend(["decoder", "image", "contrastive"]);
        stages.extend(self.realign.iter().map(|stage| stage.name.as_str()));
        stages
    }

    /// Trains up to and including the stage `last`, or all, going on where an earlier run stopped. Two processes can
    /// work side by side: the autoencoder and clip do not need each other, and neither do the base of diffusion and teacher.
    /// After the last stage the model lies in `output/model`, in the published layout; the dual encoders of the way there
    /// lie in `output/english`, `output/distilled` and `output/contrastive-model`, and the autoencoder as the stage `vae`
    /// leaves it, which another run's `vae.start` goes on from, in `output/autoencoder`.
    ///
    /// # Errors
    /// If a setting describes no model, a file cannot be read or written, or a loss is not finite.
    pub fn train(
        &self,
        folder: &Path,
        output: &Path,
        last: Option<&str>,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let stages = self.stages();
        if let Some(last) = last.filter(|last| !stages.contains(last)) {
            return Err(Error::Setting(format!("stage `{last}`: expected one of {}", stages.join(", "))));
        }
        let is_last = |stage: &str| last == Some(stage);
        let whole = Dataset::load(folder)?;
        let split = Split::load(folder)?;
        let corpus = self.corpus(&whole, &split, device)?;
        let held_out = report::HeldOut::new(&whole, &split, device)?;

        if let Some(start) = &self.start {
            let start::Start { tokenizer, tokenizer_bytes, mut student, vae, unet_config, unet } =
                start::Start::open(start)?;
            let tokenizer = (&tokenizer, tokenizer_bytes.as_slice());
            let mut vae = vae.with_latents(&corpus.images)?;
            self.train_decoder(&mut vae, &corpus, output, observer)?;
            if is_last("decoder") {
                return Ok(());
            }
            let trainer = self.encoders(&corpus, &held_out, tokenizer, output);
            trainer.train_image(&vae, &mut student, &self.languages, observer)?;
            if is_last("image") {
                return Ok(());
            }
            trainer.train_contrastive(&mut student, observer)?;
            if is_last("contrastive") {
                return Ok(());
            }
            let drawers = self.drawers(&corpus, &vae.model, tokenizer, output);
            return drawers.realign(&unet_config, unet, &student, last, observer);
        }
        if is_last("vae") {
            return self.train_vae(&corpus, &held_out, output, observer).map(|_| ());
        }
        let (tokenizer, tokenizer_bytes) = self.tokenizer(&corpus, output)?;
        let of_all = (&tokenizer, tokenizer_bytes.as_slice());
        let trainer = self.encoders(&corpus, &held_out, of_all, output);
        let mut teacher = trainer.train_clip(observer)?;
        if is_last("clip") {
            return Ok(());
        }
        if is_last(&self.base.name) {
            let vae = self.train_vae(&corpus, &held_out, output, observer)?;
            let config = self.unet.config(&vae.latents, teacher.text_config.project_dim)?;
            let drawers = self.drawers(&corpus, &vae.model, of_all, output);
            return drawers.train_base(&config, &teacher, observer).map(|_| ());
        }
        let mut student = trainer.train_teacher(&teacher, device, observer)?;
        if is_last("teacher") {
            return Ok(());
        }
        let mut vae = self.train_vae(&corpus, &held_out, output, observer)?;
        self.train_decoder(&mut vae, &corpus, output, observer)?;
        if is_last("decoder") {
            return Ok(());
        }
        trainer.train_image_of_both(&vae, &mut teacher, &mut student, observer)?;
        if is_last("image") {
            return Ok(());
        }
        trainer.train_contrastive(&mut student, observer)?;
        if is_last("contrastive") {
            return Ok(());
        }
        let config = self.unet.config(&vae.latents, student.text_config.project_dim)?;
        let drawers = self.drawers(&corpus, &vae.model, of_all, output);
        let base = drawers.train_base(&config, &teacher, observer)?;
        drawers.realign(&config, base, &student, last, observer)
    }

    /// The stages of the dual encoders, with a tokenizer and its file.
    fn encoders<'a>(
        &'a self,
        corpus: &'a Corpus,
        held_out: &'a report::HeldOut,
        (tokenizer, tokenizer_bytes): (&'a Tokenizer, &'a [u8]),
        output: &'a Path,
    ) -> encoders::Encoders<'a> {
        encoders::Encoders { recipe: self, corpus, held_out, tokenizer, tokenizer_bytes, output }
    }

    /// The stages of diffusion, with a tokenizer and its file.
    fn drawers<'a>(
        &'a self,
        corpus: &'a Corpus,
        vae: &'a Autoencoder,
        (tokenizer, tokenizer_bytes): (&'a Tokenizer, &'a [u8]),
        output: &'a Path,
    ) -> diffusion::Drawers<'a> {
        diffusion::Drawers { recipe: self, corpus, vae, tokenizer, tokenizer_bytes, output }
    }

    fn corpus(&self, whole: &Dataset, split: &Split, device: &Device) -> Result<Corpus> {
        if !self.languages.iter().any(|language| language == ENGLISH) {
            return Err(Error::Setting("languages: expected `en` among them, the teacher's".to_owned()));
        }
        let data = split
            .training(whole)
            .ok_or_else(|| Error::Setting("the data set has nothing that is not held out".to_owned()))?;
        let (images, owners) = training_images(&data, &self.vendors, device)?;
        let captions = CaptionSampler::new(&data);
        Ok(Corpus { data, captions, images, owners })
    }

    /// The folder of a stage.
    fn run(&self, output: &Path, stage: &str) -> Result<Run<'static>> {
        let run = Run::open(output.join(stage), self.seed)?;
        Ok(run.save_every(Duration::from_secs(self.save_every)))
    }

    fn train_vae(
        &self,
        corpus: &Corpus,
        held_out: &report::HeldOut,
        output: &Path,
        observer: &mut dyn Observer,
    ) -> Result<TrainedVae> {
        let run = self.run(output, "vae")?;
        let trained = self.vae.train(&corpus.images, &run, self.seed, observer)?;
        observer.note(&run.stage(), &held_out.fidelity(&trained.model)?);
        export_autoencoder(&output.join(AUTOENCODER), IMAGE_SIZE, &trained.model)?;
        Ok(trained)
    }

    fn train_decoder(
        &self,
        vae: &mut TrainedVae,
        corpus: &Corpus,
        output: &Path,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.decoder.train(vae, &corpus.images, &self.run(output, "decoder")?, self.seed, observer)
    }

    /// The tokenizer of all languages and its file, trained on first use.
    fn tokenizer(&self, corpus: &Corpus, output: &Path) -> Result<(Tokenizer, Vec<u8>)> {
        let path = output.join("sentencepiece.bpe.model");
        let bytes = if path.exists() {
            std::fs::read(&path).map_err(Error::io(&path))?
        } else {
            let languages: Vec<&str> = self.languages.iter().map(String::as_str).collect();
            let texts = corpus.captions.tokenizer_texts(&languages);
            let bytes = train_unigram(texts, self.vocab_size).map_err(|e| Error::Setting(e.to_string()))?;
            std::fs::create_dir_all(output).map_err(Error::io(output))?;
            write_whole(&path, |temporary| std::fs::write(temporary, &bytes))?;
            bytes
        };
        Ok((Tokenizer::from_sentencepiece_bytes(&bytes, &path.display().to_string())?, bytes))
    }
}
