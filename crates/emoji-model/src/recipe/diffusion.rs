//! Trains the recipe's UNet: first on English captions, then re-aligned to all languages.

use super::conditions::{CaptionConditioning, style_sides};
use super::corpus::Corpus;
use super::settings::EmojiRecipe;
use crate::captions::is_everyday;
use crate::dataset::{ENGLISH, LargeImages};
use crate::error::{Error, Result};
use crate::export::{TrainedUnet, export_model, scheduler_config, text_encoder_config};
use crate::known::KnownConcepts;
use crate::stages::autoencoder::{Autoencoder, scaled_latents};
use crate::stages::dual_encoder::TrainedDualEncoder;
use crate::stages::upscaler::{TrainedUpscaler, UpscalerStage};
use altclip_encoder::conditioner::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use altclip_training::stages::ObjectiveFunctions;
use altclip_training::stages::realign::{RealignStage, Realignment};
use altclip_training::stages::sheet::DrawingParts;
use altclip_training::{Batch, Objective, Observer, Optimizer, Parameters, frozen};
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// How often an epoch has the image of a concept that people ask for first; once for the others.
const EVERYDAY_TIMES: usize = 2;

/// What all diffusion stages share.
pub(super) struct DiffusionStages<'a> {
    pub recipe: &'a EmojiRecipe,
    pub corpus: &'a Corpus,
    pub vae: &'a Autoencoder,
    pub tokenizer: &'a Tokenizer,
    pub tokenizer_bytes: &'a [u8],
    pub output: &'a Path,
}

/// The images to learn to draw.
pub(super) struct DrawnImages {
    /// (n, size, size, 3), channels-last, from −1 to 1.
    pub images: Tensor,
    /// The concept of each image.
    pub owners: Vec<usize>,
    /// The drawing style of each image.
    pub styles: Vec<String>,
}

impl DiffusionStages<'_> {
    /// Trains a new UNet with this configuration on English captions, encoded by the teacher, and returns its
    /// weights.
    pub(super) fn train_base(
        &self,
        config: &UNet2DConditionConfig,
        teacher: &TrainedDualEncoder,
        observer: &mut dyn Observer,
    ) -> Result<BTreeMap<String, Tensor>> {
        let drawn = self.drawn()?;
        let text_encoder = self.text_encoder(teacher)?;
        let english = [ENGLISH.to_owned()];
        let inputs = StageInputs { drawn: &drawn, languages: &english, text_encoder: &text_encoder };
        self.train_stage(&self.recipe.base, config, None, &inputs, observer)
    }

    /// Re-aligns the UNet with these weights to the student, up to and including the stage `last`, and writes the
    /// model as it is then.
    pub(super) fn realign(
        &self,
        config: &UNet2DConditionConfig,
        mut weights: BTreeMap<String, Tensor>,
        student: &TrainedDualEncoder,
        last: Option<&str>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let EmojiRecipe { realign, languages, drawn: drawn_stage, upscaler, .. } = self.recipe;
        let drawn = self.drawn()?;
        let text_encoder = self.text_encoder(student)?;
        let inputs = StageInputs { drawn: &drawn, languages, text_encoder: &text_encoder };
        for stage in realign {
            weights = self.train_stage(stage, config, Some(&weights), &inputs, observer)?;
            if last == Some(stage.name.as_str()) {
                let unet = TrainedUnet { config: config.clone(), weights };
                return self.export(student, self.vae, &unet, None);
            }
        }
        let unet = TrainedUnet { config: config.clone(), weights };
        let vae = match drawn_stage {
            None => self.vae.clone(),
            Some(stage) => stage.train(self, &drawn, &unet, &text_encoder, observer)?,
        };
        let upscaler = upscaler.as_ref().filter(|_| last != Some("drawn"));
        let upscaler = upscaler.map(|stage| self.train_upscaler(stage, &vae, observer)).transpose()?;
        self.export(student, &vae, &unet, upscaler.as_ref())
    }

    /// Writes the model, with the names of what it draws.
    fn export(
        &self,
        student: &TrainedDualEncoder,
        vae: &Autoencoder,
        unet: &TrainedUnet,
        upscaler: Option<&TrainedUpscaler>,
    ) -> Result<()> {
        let folder = self.output.join("model");
        export_model(&folder, self.tokenizer_bytes, student, vae, unet, upscaler)?;
        let (known, _) = KnownConcepts::of(&self.corpus.data, &self.recipe.coverage())?;
        known.save(&folder).map(|_| ())
    }

    fn train_upscaler(
        &self,
        stage: &UpscalerStage,
        vae: &Autoencoder,
        observer: &mut dyn Observer,
    ) -> Result<TrainedUpscaler> {
        let Corpus { folder, data, images, .. } = self.corpus;
        let EmojiRecipe { seed, vendors, .. } = self.recipe;
        let run = self.recipe.open_run(self.output, "upscaler")?;
        let large = LargeImages::read(&stage.folder(folder)?, data, vendors)?;
        Ok(stage.train(vae, images, &large, &run, *seed, observer)?)
    }

    fn text_encoder(&self, model: &TrainedDualEncoder) -> Result<TextEncoder> {
        let weights = frozen(&model.text_weights, self.corpus.images.device());
        Ok(TextEncoder::new(&text_encoder_config(model), weights)?)
    }

    /// The images of the styles and concepts to draw.
    fn drawn(&self) -> Result<DrawnImages> {
        let Corpus { data, images, owners, styles, .. } = self.corpus;
        let coverage = self.recipe.coverage();
        let mut chosen = Vec::new();
        // In the order of the corpus.
        let all = data.concepts().iter().flat_map(|concept| {
            let styles = concept.images.iter().filter(|p| self.recipe.vendors.contains(&p.vendor));
            styles.map(move |image| (concept, image))
        });
        for (place, (concept, image)) in (0u32..).zip(all) {
            if coverage.includes(concept) && coverage.vendors.contains(&image.vendor) {
                let times = if is_everyday(concept) { EVERYDAY_TIMES } else { 1 };
                chosen.extend(std::iter::repeat_n(place, times));
            }
        }
        if chosen.is_empty() {
            let problem = "expected images to be left, found none";
            return Err(Error::Setting(format!("drawn_vendors, not_drawn: {problem}")));
        }
        let owners = chosen.iter().filter_map(|&place| owners.get(place as usize).copied()).collect();
        let styles = chosen.iter().filter_map(|&place| styles.get(place as usize).cloned()).collect();
        let images = images.index_select(&Tensor::new(chosen, images.device())?, 0)?;
        Ok(DrawnImages { images, owners, styles })
    }

    fn train_stage(
        &self,
        stage: &RealignStage,
        config: &UNet2DConditionConfig,
        initial: Option<&BTreeMap<String, Tensor>>,
        inputs: &StageInputs,
        observer: &mut dyn Observer,
    ) -> Result<BTreeMap<String, Tensor>> {
        let EmojiRecipe { seed, parts, sample: sheet, unet: shape, .. } = self.recipe;
        let DrawnImages { images, owners, styles } = inputs.drawn;
        let device = images.device();
        let run = self.recipe.open_run(self.output, &stage.name)?;
        let vae = AutoencoderKl::new(&self.vae.config, frozen(&self.vae.weights, device))?;
        let latents = scaled_latents(&vae, &at_resolution(images, stage.resolution)?)?;

        let train = stage.train;
        let mut parameters = Parameters::new(*seed).training(move |name| train.has(name));
        if let Some(initial) = initial {
            parameters = parameters.starting_from(frozen(initial, device));
        }
        let unet = UNet2DConditionModel::new(config, parameters.var_builder(device))?;
        if initial.is_none() {
            shape.scale_residuals(&parameters)?;
        }
        observer.note(&stage.name, &format!("trains {} of the UNet's values", parameters.count()));
        let mut optimizer = Optimizer::new(stage.optimizer.clone(), &parameters)?;
        let scheduler = scheduler()?;
        let conditions = CaptionConditioning {
            captions: &self.corpus.captions,
            languages: inputs.languages,
            tokenizer: self.tokenizer,
            text_encoder: inputs.text_encoder,
            owners,
            styles,
            sides: style_sides(owners, styles),
        };
        let realignment =
            Realignment::new(stage.batches(), &unet, &scheduler, &latents, &conditions, *parts)?;
        let drawing = DrawingParts {
            tokenizer: self.tokenizer,
            text_encoder: inputs.text_encoder,
            vae: &vae,
            scheduler: &scheduler,
        };
        let gradients = |batch: &mut Batch| realignment.gradients(batch);
        let sample = || sheet.draw(&drawing, &unet, &latents, *seed).map(Some);
        run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;
        Ok(parameters.with(optimizer.averages()))
    }
}

/// The inputs of a stage.
struct StageInputs<'a> {
    drawn: &'a DrawnImages,
    languages: &'a [String],
    text_encoder: &'a TextEncoder,
}

/// The noise levels that the model is written with.
fn scheduler() -> Result<SchedulerConfig> {
    Ok(SchedulerConfig::from_json(scheduler_config().to_string(), "scheduler_config.json")?)
}

/// Downsamples channels-last square images by averaging squares of pixels.
fn at_resolution(images: &Tensor, resolution: usize) -> Result<Tensor> {
    let (n, size, _, channels) = images.dims4()?;
    if resolution == size {
        return Ok(images.clone());
    }
    if resolution == 0 || !size.is_multiple_of(resolution) {
        return Err(Error::Setting(format!("resolution: expected a divisor of {size}, found {resolution}")));
    }
    let square = size / resolution;
    let rows = images.reshape((n, resolution, square, size * channels))?.mean(2)?;
    Ok(rows.reshape((n, resolution, resolution, square, channels))?.mean(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn squares_of_pixels_become_their_means() -> Result<()> {
        let images = Tensor::arange(0f32, 2. * 16. * 3., &Device::Cpu)?.reshape((2, 4, 4, 3))?;
        let small = at_resolution(&images, 2)?;
        assert_eq!(small.dims(), [2, 2, 2, 3]);
        // Pixels 0 and 1 of the first two rows of four: the first channel has 0, 3, 12 and 15.
        assert_eq!(small.flatten_all()?.to_vec1::<f32>()?[..3], [7.5, 8.5, 9.5]);
        assert_eq!(small.get(1)?.get(1)?.get(1)?.to_vec1::<f32>()?, [85.5, 86.5, 87.5]);
        assert!(at_resolution(&images, 3).is_err());
        Ok(())
    }
}
