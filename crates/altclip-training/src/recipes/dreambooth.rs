//! Trains with DreamBooth (Ruiz et al., arXiv 2208.12242): the model learns a subject from a few images of it, all
//! under one prompt with a rare word, and keeps training on its own images of the subject's class, so that it does
//! not forget the class.

use super::diffusion_model::DiffusionModel;
use super::encoded_pairs::EncodedPairs;
use super::fine_tuning::{FineTuning, FineTuningStage};
use super::output::{LORA_FILE, open_run};
use super::precision::Precision;
use super::recipe::TrainingRecipe;
use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::low_rank::{LowRankAdapter, LowRankConfig, unet_file};
use crate::parallel::Communicator;
use crate::parameters::Parameters;
use crate::png_file::save_png;
use crate::run::{Batch, Observer};
use crate::stages::realign::Realignment;
use crate::stages::sheet::SampleSheet;
use crate::tensor_file::save_weights;
use altclip_encoder::images::Background;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use candle_core::{DType, Device};
use embedding_index::readers::ImagePairs;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const STAGE: &str = "dreambooth";
/// The folder of class images, which the model draws.
const CLASS_IMAGES: &str = "class-images";

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DreamBoothRecipe {
    /// Seed of all random draws.
    pub seed: u64,
    /// Seconds between checkpoints.
    pub save_every: u64,
    /// The model, in diffusers' layout: a directory or a hub repository.
    pub model: String,
    /// The dtype that the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Images of the subject: a folder, or anything that [`ImagePairs::read`] accepts.
    #[serde(alias = "pictures")]
    pub images: PathBuf,
    /// The background of transparent images: `white`, `black`, `#rrggbb`, or `none` to use the hidden colours. The
    /// default is that of the model's `preprocessor_config.json`.
    pub background: Option<Background>,
    /// The prompt for the subject, such as `a photo of sks dog`.
    pub prompt: String,
    /// Prior preservation, which keeps the model from forgetting; without it, it only sees the few images.
    pub prior: Option<PriorPreservation>,
    /// Trains a LoRA instead of the whole UNet.
    pub lora: Option<LowRankConfig>,
    /// The settings of the training.
    pub stage: FineTuningStage,
    /// Images drawn during training.
    pub sample: Option<SampleSheet>,
}

/// Images of the subject's class, drawn by the model before training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorPreservation {
    /// The prompt for the class, such as `a photo of a dog`.
    pub prompt: String,
    /// The number of images.
    pub count: usize,
    /// The weight of their loss, relative to that of the subject's images.
    pub weight: f64,
    /// Steps per image.
    pub steps: usize,
    /// The scale of classifier-free guidance.
    pub guidance_scale: f64,
}

impl TrainingRecipe for DreamBoothRecipe {
    /// Draws the missing class images and trains, resuming an earlier run. Writes the model to `output/model`, or the
    /// LoRA to `output/pytorch_lora_weights.safetensors`.
    ///
    /// # Errors
    /// If a file cannot be read or written, a setting does not fit the model, a loss is not finite, or a rank is lost.
    fn train(
        &self,
        output: &Path,
        device: &Device,
        ranks: &dyn Communicator,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let dtype = self.precision.dtype(device)?;
        let run = open_run(ranks, output, STAGE, self.seed, self.save_every)?;
        if let Some(prior) = &self.prior {
            let folder = output.join(CLASS_IMAGES);
            ranks.after_first(|| self.draw_class(prior, &folder, device, observer))?;
        }
        let model = DiffusionModel::open(&self.model, self.background, device)?;
        let own = ranks.after_first(|| {
            self.examples(&self.images, &self.prompt, &model, (output, "thing-"), observer)
        })?;
        let class = self.prior.as_ref().map(|prior| {
            let folder = output.join(CLASS_IMAGES);
            let examples = ranks.after_first(|| {
                self.examples(&folder, &prior.prompt, &model, (output, "class-"), observer)
            })?;
            Ok::<_, Error>((examples, prior.weight))
        });
        let class = class.transpose()?;

        let adapted = match &self.lora {
            Some(config) => Some(LowRankAdapter::beside(model.unet_weights(dtype)?, config, self.seed)?),
            None => None,
        };
        let whole =
            Parameters::new(self.seed).starting_from(model.unet_weights(DType::F32)?).computing_in(dtype);
        let vb = match &adapted {
            Some(adapted) => adapted.var_builder(),
            None => whole.var_builder(device),
        };
        let unet = UNet2DConditionModel::new(&model.unet_config, vb)?;
        let parameters = match &adapted {
            Some(adapted) => adapted.matrices()?,
            None => &whole,
        };

        let tuning = FineTuning {
            run: &run,
            stage: &self.stage,
            parameters,
            unet: &unet,
            drawing_parts: model.drawing_parts(),
            sample: self.sample.as_ref(),
            latents: &own.latents,
            seed: self.seed,
        };
        let (batches, scheduler) = (self.stage.batches(), &model.scheduler);
        let thing = Realignment::new(batches, &unet, scheduler, &own.latents, &own.captions, 1)?;
        let class = class.as_ref().map(|(class, weight)| {
            let class = Realignment::new(batches, &unet, scheduler, &class.latents, &class.captions, 1)?;
            Ok::<_, Error>((class, *weight))
        });
        let class = class.transpose()?;
        let gradients = |batch: &mut Batch| {
            let mut loss = thing.loss(&mut batch.rng)?;
            if let Some((class, weight)) = &class {
                loss = (loss + (class.loss(&mut batch.rng)? * *weight)?)?;
            }
            Gradients::of(&loss)
        };
        let trained = tuning.train(gradients, observer)?;
        if !ranks.is_first() {
            return Ok(());
        }
        match adapted {
            Some(_) => save_weights(&output.join(LORA_FILE), &unet_file(trained)?),
            None => model.write(output, whole.with(trained)),
        }
    }
}

impl DreamBoothRecipe {
    /// The images of a folder or an archive, all under one prompt.
    fn examples(
        &self,
        folder: &Path,
        prompt: &str,
        model: &DiffusionModel,
        caches: (&Path, &str),
        observer: &mut dyn Observer,
    ) -> Result<EncodedPairs> {
        let mut pairs = ImagePairs::read(folder, None, &[])?;
        pairs.captions = vec![vec![prompt.to_owned()]; pairs.captions.len()];
        EncodedPairs::of(&pairs, self.stage.resolution, model, caches, observer)
    }

    /// Draws the class images that are not in `folder` yet.
    fn draw_class(
        &self,
        prior: &PriorPreservation,
        folder: &Path,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let path = |number: usize| folder.join(format!("{number:04}.png"));
        let missing: Vec<usize> = (0..prior.count).filter(|&number| !path(number).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        observer.note(
            CLASS_IMAGES,
            &format!("draws {} of {} images of {:?}", missing.len(), prior.count, prior.prompt),
        );
        let pipeline = AltDiffusion::from_pretrained(&self.model, DType::F32, device)?;
        for number in missing {
            let options = GenerateOptions::new(&prior.prompt)
                .width(self.stage.resolution)
                .height(self.stage.resolution)
                .steps(prior.steps)
                .guidance_scale(prior.guidance_scale)
                .seed(self.seed.wrapping_add(number as u64));
            for image in pipeline.generate(&options)?.images {
                save_png(&path(number), &image)?;
            }
            if observer.is_over() {
                let stage = CLASS_IMAGES.to_owned();
                return Err(Error::Interrupted { stage, step: number + 1, steps: prior.count });
            }
        }
        Ok(())
    }
}
