//! Trains the decoder further on what the UNet draws: the last stage, which learns to see through the UNet's errors.

use super::diffusion::{DiffusionStages, DrawnImages};
use crate::dataset::ENGLISH;
use crate::error::Result;
use crate::export::{TrainedUnet, scheduler_config};
use crate::stages::autoencoder::{Autoencoder, TrainedVae};
use crate::stages::decoder::DecoderStage;
use altclip_encoder::conditioner::TextEncoder;
use altclip_training::{Cache, Observer, frozen};
use altdiffusion_pipeline::random::{Noise, TorchCpu};
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use altdiffusion_pipeline::{
    Conditioning, DenoiseOptions, Guidance, PROMPT_TOKENS, Start, TextStates, denoise,
};
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Prompts drawn at a time.
const CHUNK: usize = 32;

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawnStage {
    /// Drawings of each image to learn from, beside its own latents.
    pub drawings: usize,
    /// Steps per drawing.
    pub steps: usize,
    /// The scale of classifier-free guidance, which takes twice the time; 1 or less means no guidance.
    #[serde(default = "without_guidance")]
    pub guidance_scale: f64,
    /// The training.
    pub decoder: DecoderStage,
}

fn without_guidance() -> f64 {
    1.
}

impl DrawnStage {
    /// Trains the autoencoder's decoder on drawings of the images to draw, and on the latents of them all.
    pub(super) fn train(
        &self,
        stages: &DiffusionStages,
        drawn: &DrawnImages,
        unet: &TrainedUnet,
        text_encoder: &TextEncoder,
        observer: &mut dyn Observer,
    ) -> Result<Autoencoder> {
        let recipe = stages.recipe;
        let run = recipe.open_run(stages.output, "drawn")?;
        let device = drawn.images.device();
        let own = stages.vae.clone().with_latents(&stages.corpus.images)?;
        let Self { drawings, steps, guidance_scale, .. } = *self;
        let key = format!(
            "{drawings} drawings of {steps} steps with guidance {guidance_scale} and seed {}",
            recipe.seed
        );
        let cache = Cache::at(&run.folder().join("drawings.safetensors"));
        let drawings = cache.of(&key, || {
            observer.note(&run.stage(), &format!("draws {} images", drawings * drawn.owners.len()));
            Ok(BTreeMap::from([(
                "latents".to_owned(),
                self.draw(stages, drawn, unet, text_encoder, &own.latents)?,
            )]))
        })?;
        let drawings = cache.tensor(drawings, "latents")?;
        let originals = stages.vae.clone().with_latents(&drawn.images)?.latents;
        let right = right_drawings(&drawings, &originals, &drawn.owners)?;
        let share = 100. * right.len() as f64 / drawings.dim(0)? as f64;
        observer.note(&run.stage(), &format!("{share:.1} % of the drawings are of the right concept"));
        let n = drawn.owners.len() as u32;
        let chosen = Tensor::new(right.as_slice(), &Device::Cpu)?;
        let drawings = drawings.index_select(&chosen, 0)?.to_device(device)?;
        let of = Tensor::new(right.iter().map(|drawing| drawing % n).collect::<Vec<_>>(), device)?;
        let images = Tensor::cat(&[&stages.corpus.images, &drawn.images.index_select(&of, 0)?], 0)?;
        let mut vae = TrainedVae { latents: Tensor::cat(&[&own.latents, &drawings], 0)?, model: own.model };
        self.decoder.train(&mut vae, &images, &run, recipe.seed, observer)?;
        Ok(vae.model)
    }

    /// Draws every image's caption, all in turn: scaled latents (drawings × n, channels, height, width), of the size of
    /// those of `like`.
    fn draw(
        &self,
        stages: &DiffusionStages,
        drawn: &DrawnImages,
        unet: &TrainedUnet,
        text_encoder: &TextEncoder,
        like: &Tensor,
    ) -> altclip_training::Result<Tensor> {
        let (_, channels, height, width) = like.dims4()?;
        let device = drawn.images.device();
        let model = UNet2DConditionModel::new(&unet.config, frozen(&unet.weights, device))?;
        let scheduler = SchedulerConfig::from_json(scheduler_config().to_string(), "scheduler_config.json")?;
        let languages = &stages.recipe.languages;
        let mut rng = ChaCha8Rng::seed_from_u64(stages.recipe.seed);
        let mut noise = TorchCpu::new(stages.recipe.seed);
        let mut latents = Vec::new();
        for drawing in 0..self.drawings {
            let captions: Vec<String> = (drawing..)
                .zip(drawn.owners.iter().zip(&drawn.styles))
                .map(|(turn, (&concept, style))| {
                    let language =
                        languages.get(turn % languages.len().max(1)).map_or(ENGLISH, String::as_str);
                    let captions = &stages.corpus.captions;
                    let caption = captions.sample_in_style(&mut rng, concept, language, style);
                    caption.unwrap_or_default()
                })
                .collect();
            for prompts in captions.chunks(CHUNK) {
                let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
                let states =
                    |texts: &[&str]| TextStates::encode(stages.tokenizer, text_encoder, texts, PROMPT_TOKENS);
                let mut conditioning = if self.guidance_scale > 1. {
                    let texts = [vec![""; prompts.len()].as_slice(), &prompts].concat();
                    Conditioning::guided(&model, &states(&texts)?, 1)?
                } else {
                    Conditioning::unguided(&model, &states(&prompts)?, 1)?
                };
                let mut scheduler = scheduler.build(self.steps)?;
                let shape = [prompts.len(), channels, height, width];
                let start = Start::from_noise(scheduler.as_ref(), &noise.normal(&shape)?)?;
                let options = DenoiseOptions { guidance: Guidance::new(self.guidance_scale), windows: None };
                let done =
                    denoise(&mut conditioning, scheduler.as_mut(), options, start, &mut noise, |_| {
                        ControlFlow::Continue(())
                    })?;
                latents.push(done.latents.detach());
            }
        }
        Ok(Tensor::cat(&latents, 0)?)
    }
}

/// The drawings (all images in turn, several times) that are nearest to an image of their own concept. From the others,
/// a decoder would learn blends of two concepts.
fn right_drawings(
    drawings: &Tensor,
    originals: &Tensor,
    owners: &[usize],
) -> altclip_training::Result<Vec<u32>> {
    let originals = originals.to_device(&Device::Cpu)?.flatten_from(1)?;
    let drawings = drawings.flatten_from(1)?;
    // Nearest: the squared distance without the drawing's own square.
    let products = drawings.matmul(&originals.t()?)?;
    let distances = originals.sqr()?.sum(1)?.broadcast_sub(&(products * 2.)?)?;
    let nearest = distances.argmin(1)?.to_vec1::<u32>()?;
    let right = |&(drawing, &nearest): &(usize, &u32)| {
        owners.get(nearest as usize) == owners.get(drawing % owners.len())
    };
    Ok(nearest.iter().enumerate().filter(right).map(|(drawing, _)| drawing as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_drawings_nearest_to_their_own_concept() {
        // Two styles of concept 7, one of concept 3; drawn twice.
        let originals = Tensor::new(&[[0f32, 0.], [0., 4.], [4., 0.]], &Device::Cpu).unwrap();
        let drawings = [[0.1f32, 0.], [3.9, 0.2], [4., 0.1], [0., 3.], [0., 4.5], [0.3, 0.1]];
        let drawings = Tensor::new(&drawings, &Device::Cpu).unwrap();
        let right = right_drawings(&drawings, &originals, &[7, 7, 3]).unwrap();
        // The second is of concept 3 instead of 7, the last of 7 instead of 3; the fourth is of the other style.
        assert_eq!(right, [0, 2, 3, 4]);
    }
}
