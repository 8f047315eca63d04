//! Trains the emoji model with AltCLIP's and AltDiffusion's whole recipe from one configuration file: an English
//! CLIP; a multilingual text tower that learns from it without images, and then a little with images; and diffusion,
//! re-aligned to the new tower.
//!
//! Each stage has its own folder and resumes from its checkpoint. Held-out data ([`DataSplit`]) is used in none.

use super::corpus::Corpus;
use super::diffusion::DiffusionStages;
use super::encoders::EncoderStages;
use super::held_out::HeldOutReport;
use super::settings::EmojiRecipe;
use super::start::StartModel;
use crate::dataset::{DataSplit, Dataset, IMAGE_SIZE};
use crate::error::{Error, Result};
use crate::export::export_autoencoder;
use crate::stages::autoencoder::{Autoencoder, TrainedVae};
use crate::tokenizer::train_unigram;
use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::Observer;
use candle_core::Device;
use model_files::write_whole;
use std::path::Path;

/// The folder of a model with only the autoencoder.
const AUTOENCODER: &str = "autoencoder";

impl EmojiRecipe {
    /// Trains up to and including the stage `last`, or all, resuming an earlier run. Two processes can work in
    /// parallel: `vae` and `clip` are independent, and so are `base` and `teacher`.
    ///
    /// If the stage `last` is one of re-alignment or a later one, the model is in `output/model` afterwards, in the
    /// published layout. The intermediate dual encoders are in `output/english`, `output/distilled` and
    /// `output/contrastive-model`. The autoencoder is in `output/autoencoder`, for another run's `vae.start`, after the
    /// stage `vae`, and after `decoder` of a run with `start` if that is the last one.
    ///
    /// # Errors
    /// If a setting is invalid, a file cannot be read or written, or a loss is not finite.
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
        // Before hours of work.
        if let Some(stage) = &self.upscaler {
            stage.folder(folder)?;
        }
        let whole = Dataset::load(folder)?;
        let split = DataSplit::load(folder)?;
        let corpus = Corpus::of(self, folder, &whole, &split, device)?;
        let held_out = HeldOutReport::new(&whole, &split, device)?;

        if let Some(start) = &self.start {
            let mut model = StartModel::open(start, self.vae.start.as_deref())?;
            if self.renew_tokenizer {
                model.renew_tokenizer(self.tokenizer(&corpus, output)?)?;
            }
            let StartModel { tokenizer, tokenizer_bytes, mut student, vae, unet_config, unet } = model;
            let tokenizer = (&tokenizer, tokenizer_bytes.as_slice());
            let mut vae = vae.with_latents(&corpus.images)?;
            self.train_decoder(&mut vae, &corpus, output, observer)?;
            if is_last("decoder") {
                return export_autoencoder(&output.join(AUTOENCODER), IMAGE_SIZE, &vae.model);
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
            let diffusion = self.diffusion(&corpus, &vae.model, tokenizer, output);
            return diffusion.realign(&unet_config, unet, &student, last, observer);
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
            let diffusion = self.diffusion(&corpus, &vae.model, of_all, output);
            return diffusion.train_base(&config, &teacher, observer).map(|_| ());
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
        let diffusion = self.diffusion(&corpus, &vae.model, of_all, output);
        let base = diffusion.train_base(&config, &teacher, observer)?;
        diffusion.realign(&config, base, &student, last, observer)
    }

    /// The dual encoders' stages, with a tokenizer and its file.
    fn encoders<'a>(
        &'a self,
        corpus: &'a Corpus,
        held_out: &'a HeldOutReport,
        (tokenizer, tokenizer_bytes): (&'a Tokenizer, &'a [u8]),
        output: &'a Path,
    ) -> EncoderStages<'a> {
        EncoderStages { recipe: self, corpus, held_out, tokenizer, tokenizer_bytes, output }
    }

    /// The diffusion stages, with a tokenizer and its file.
    fn diffusion<'a>(
        &'a self,
        corpus: &'a Corpus,
        vae: &'a Autoencoder,
        (tokenizer, tokenizer_bytes): (&'a Tokenizer, &'a [u8]),
        output: &'a Path,
    ) -> DiffusionStages<'a> {
        DiffusionStages { recipe: self, corpus, vae, tokenizer, tokenizer_bytes, output }
    }

    fn train_vae(
        &self,
        corpus: &Corpus,
        held_out: &HeldOutReport,
        output: &Path,
        observer: &mut dyn Observer,
    ) -> Result<TrainedVae> {
        let run = self.open_run(output, "vae")?;
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
        let run = self.open_run(output, "decoder")?;
        Ok(self.decoder.train(vae, &corpus.images, &run, self.seed, observer)?)
    }

    /// The tokenizer for all languages and its file, trained on first use.
    fn tokenizer(&self, corpus: &Corpus, output: &Path) -> Result<(Tokenizer, Vec<u8>)> {
        let path = output.join("sentencepiece.bpe.model");
        let bytes = if path.exists() {
            std::fs::read(&path).map_err(Error::io(&path))?
        } else {
            let languages: Vec<&str> = self.languages.iter().map(String::as_str).collect();
            let texts = corpus.captions.tokenizer_texts(&languages);
            let bytes = train_unigram(texts, self.vocab_size)?;
            std::fs::create_dir_all(output).map_err(Error::io(output))?;
            write_whole(&path, |temporary| std::fs::write(temporary, &bytes))?;
            bytes
        };
        Ok((Tokenizer::from_sentencepiece_bytes(&bytes, &path.display().to_string())?, bytes))
    }
}
