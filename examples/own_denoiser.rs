//! Runs your own denoiser and scheduler in this project's sampling loop, with its text encoder and autoencoder.
//!
//! ```sh
//! cargo run --release --example own_denoiser -- memory.png
//! ```
//!
//! This denoiser has no weights. It memorizes a few captioned images, and predicts what a perfect model of exactly
//! these would: the mean of all images that a noisy latent can come from, weighted by the prompt.

use altdiffusion_pipeline::schedulers::NoiseSchedule;
use altdiffusion_pipeline::unet::{AdditionalResiduals, ImageContext};
use altdiffusion_pipeline::{
    AltDiffusion, Components, Denoiser, DenoiserSpec, GenerateOptions, Noise, PreparedDenoiser,
    PromptReading, Result, Scheduler, SchedulerConfig, SchedulerFactory, TextStates,
};
use anyhow::Context;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::softmax;

const CAPTIONS: [&str; 3] = ["一只猫", "a red apple", "a fire engine"];

/// How strongly captions similar to the prompt are preferred.
const SHARPNESS: f64 = 100.0;

/// Memorized images.
struct Memory {
    /// (images, channels, height, width)
    latents: Tensor,
    /// The direction of each caption's hidden states, (images, width).
    captions: Tensor,
    schedule: NoiseSchedule,
}

impl Denoiser for Memory {
    fn spec(&self) -> DenoiserSpec {
        let (_, channels, height, width) = self.latents.dims4().unwrap_or_default();
        DenoiserSpec::new(channels).sample_size(height, width)
    }

    fn prepare<'a>(
        &'a self,
        texts: &TextStates,
        _images: Vec<ImageContext>,
    ) -> Result<Box<dyn PreparedDenoiser + 'a>> {
        let likeness = direction(texts)?.matmul(&self.captions.t()?)?; // (batch, images)
        Ok(Box::new(Recall { memory: self, likeness: (likeness * SHARPNESS)? }))
    }
}

/// The memory, prepared with a run's prompts.
struct Recall<'a> {
    memory: &'a Memory,
    /// The log-likelihood of each image for each prompt, (batch, images), up to a constant.
    likeness: Tensor,
}

impl PreparedDenoiser for Recall<'_> {
    fn predict(
        &mut self,
        sample: &Tensor,
        timestep: f64,
        _residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor> {
        let signal = f64::from(self.memory.schedule.alphas_cumprod()[timestep as usize]);
        let variance = 1.0 - signal;
        let known = self.memory.latents.flatten_from(1)?; // (images, values)
        let noisy = sample.flatten_from(1)?; // (batch, values)
        // The log-likelihood of each image is −‖noisy − √ᾱ known‖² / 2 (1 − ᾱ); ‖noisy‖² is the same for all.
        let products = (noisy.matmul(&known.t()?)? * (2.0 * signal.sqrt()))?;
        let squares = (known.sqr()?.sum(1)?.unsqueeze(0)? * signal)?;
        let likelihoods = (products.broadcast_sub(&squares)? / (2.0 * variance))?;
        let clean = softmax(&(likelihoods + &self.likeness)?, D::Minus1)?.matmul(&known)?;
        let noise = ((noisy - (clean * signal.sqrt())?)? / variance.sqrt())?;
        Ok(noise.reshape(sample.shape())?)
    }
}

/// Euler's method between noise levels σ, on samples `x₀ + σ ε`, for a model that predicts the noise ε.
struct Euler {
    timesteps: Vec<f64>,
    /// One more than the number of steps: the last is 0.
    sigmas: Vec<f64>,
}

impl Euler {
    fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        let levels = schedule.sigmas();
        let timesteps: Vec<usize> =
            (0..steps).map(|step| (levels.len() - 1) * (steps - step) / steps).collect();
        let sigmas = timesteps.iter().map(|timestep| f64::from(levels[*timestep])).chain([0.0]).collect();
        Self { sigmas, timesteps: timesteps.into_iter().map(|timestep| timestep as f64).collect() }
    }
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.sigmas[0]
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        Ok((sample / (self.sigmas[index].powi(2) + 1.0).sqrt())?)
    }

    fn step(&mut self, output: &Tensor, index: usize, sample: &Tensor, _: &mut dyn Noise) -> Result<Tensor> {
        Ok((sample + (output * (self.sigmas[index + 1] - self.sigmas[index]))?)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        Ok((original + (noise * self.sigmas[index])?)?)
    }
}

/// The normalised mean of each text's hidden states: (texts, width).
fn direction(texts: &TextStates) -> Result<Tensor> {
    let mean = texts.hidden_states().to_dtype(DType::F32)?.mean(1)?;
    Ok(mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)?)
}

fn main() -> anyhow::Result<()> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "memory.png".to_owned());
    let device = Device::Cpu;

    // Memorizes images drawn by the model in this repository.
    let model = AltDiffusion::from_pretrained("models/emoji", DType::F32, &device)?;
    let drawn = model
        .generate(&GenerateOptions::default().prompts(CAPTIONS).steps(12).guidance_scale(2.25).seed(3))?
        .latents;
    let states = CAPTIONS
        .iter()
        .map(|caption| direction(&model.encode_texts(PromptReading::Plain, &[caption])?))
        .collect::<Result<Vec<_>>>()?;
    let schedule = NoiseSchedule::new(&SchedulerConfig::default());
    let memory =
        Memory { latents: drawn.clone(), captions: Tensor::cat(&states, 0)?, schedule: schedule.clone() };

    let components = Components::new(memory, model.vae()?.into_owned(), &device)
        .text_encoder(model.tokenizer()?.clone(), model.text_encoder()?)
        .scheduler_factory(SchedulerFactory::new(move |steps| {
            Ok(Box::new(Euler::new(&schedule, steps.count())))
        }));
    let pipeline = AltDiffusion::from_parts(components)?;

    for (prompt, caption) in [("a cat", 0), ("一个红苹果", 1), ("消防车", 2)] {
        let options = GenerateOptions::new(prompt).steps(10).guidance_scale(1.0).seed(1);
        let found = pipeline.generate(&options)?;
        let distances =
            (found.latents.broadcast_sub(&drawn)?).sqr()?.flatten_from(1)?.mean(1)?.to_vec1::<f32>()?;
        let nearest = (0..distances.len()).min_by(|a, b| distances[*a].total_cmp(&distances[*b]));
        println!(
            "{prompt}: {:?}, mean squared distances {distances:.3?}",
            nearest.map(|index| CAPTIONS[index])
        );
        anyhow::ensure!(nearest == Some(caption), "expected {:?}", CAPTIONS[caption]);
        found.images.first().context("one image was asked for")?.save(&output)?;
    }
    // Options that this denoiser does not support are errors that name them.
    let options = GenerateOptions::new("a cat").guess_mode(true);
    println!("{}", pipeline.generate(&options).err().context("expected an error")?);
    println!("{output}");
    Ok(())
}
