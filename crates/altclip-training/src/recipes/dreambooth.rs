//! Trains by DreamBooth (Ruiz et al., arXiv 2208.12242): a model learns one thing from a few images of it, all under one prompt with
//! a rare word, and beside it goes on drawing_parts its own images of the thing's class, so that it forgets nothing.

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
/// Folder of the images of the class that the model draws.
const CLASS_IMAGES: &str = "class-images";

/// Every setting of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DreamBoothRecipe {
    /// Seed of all draws.
    pub seed: u64,
    /// Seconds between two checkpoints.
    pub save_every: u64,
    /// The model, in the layout of diffusers: a directory, or a repository on the hub.
    pub model: String,
    /// What the model computes in.
    #[serde(default)]
    pub precision: Precision,
    /// The thing's images: a folder, or whatever else [`ImagePairs::read`] knows.
    #[serde(alias = "pictures")]
    pub images: PathBuf,
    /// What transparent images are laid on: `white`, `black`, `#rrggbb`, or `none` for the colours under the transparency.
    /// As the model's `preprocessor_config.json` says, where it is left out.
    pub background: Option<Background>,
    /// What stands for the thing, such as `a photo of sks dog`.
    pub prompt: String,
    /// What keeps the model from forgetting; without it the few images are all that it sees.
    pub prior: Option<PriorPreservation>,
    /// Trains a LoRA in place of the whole UNet.
    pub lora: Option<LowRankConfig>,
    /// How it is trained.
    pub stage: FineTuningStage,
    /// Images that are drawn during the training.
    pub sample: Option<SampleSheet>,
}

/// Images of the thing's class, which the model draws itself before the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorPreservation {
    /// What stands for the class, such as `a photo of a dog`.
    pub prompt: String,
    /// How many images are drawn.
    pub count: usize,
    /// Weight of their loss beside that of the thing's images.
    pub weight: f64,
    /// Steps of each drawing_parts.
    pub steps: usize,
    /// Factor of classifier-free guidance.
    pub guidance_scale: f64,
}

impl TrainingRecipe for DreamBoothRecipe {
    /// Draws the class's images, as far as they are not there, and trains, going on where an earlier run stopped. Writes
    /// the model to `output/model`, or the LoRA to `output/pytorch_lora_weights.safetensors`.
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

    /// Draws those of the class's images that are not in `folder` yet.
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
