//! Text conditioning for a UNet of your own: all that passes between the text encoder and the UNet is a tensor of hidden
//! states, (texts, 77, width), as in diffusers. The sampling loop is written out, so that nothing else is hidden.
//!
//! ```sh
//! cargo run --release --example another_unet -- 一只猫 cat.png
//! ```
//!
//! Here the UNet is that of `altdiffusion-pipeline`. That of candle-transformers would be called in the same way:
//! `unet.forward(&latents, timestep, &hidden_states)`.

use altclip_encoder::PROMPT_TOKENS;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use altdiffusion_pipeline::vae::AutoencoderKl;
use altdiffusion_pipeline::{Result, to_images};
use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

const STEPS: usize = 20;
const GUIDANCE_SCALE: f64 = 2.25;
const TRAINING_TIMESTEPS: usize = 1000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "一只猫".to_owned());
    let output = arguments.next().unwrap_or_else(|| "out.png".to_owned());
    let device = Device::Cpu;
    let source = ModelSource::open("models/emoji")?;
    let weights = |part: &str| Checkpoint::open(&source, part)?.var_builder(DType::F32, &device);

    // From `altclip-encoder`: what to keep away from, and what to draw.
    let tokenizer = Tokenizer::from_source(&source, "tokenizer")?;
    let encoder = TextEncoder::new(&source.read_json("text_encoder/config.json")?, weights("text_encoder")?)?;
    let encoding = tokenizer.encode_padded(&["", &prompt], PROMPT_TOKENS)?;
    let hidden_states = encoder.forward(&encoding.input_ids, &encoding.attention_mask)?; // (2, 77, width)

    // The place for your own: noisy latents, a timestep and hidden states to a prediction.
    let unet = UNet2DConditionModel::new(&source.read_json("unet/config.json")?, weights("unet")?)?;
    let predict = |latents: &Tensor, timestep: usize| -> Result<Tensor> {
        let timesteps = Tensor::full(timestep as f32, latents.dim(0)?, &device)?;
        unet.forward_with_hidden_states(latents, &timesteps, &hidden_states)
    };

    // DDIM for velocities (Song et al. 2021; Salimans and Ho 2022), with guidance.
    let mut latents = Tensor::randn(0f32, 1., (1, 4, 16, 16), &device)?;
    for step in 0..STEPS {
        let timestep = |step: usize| TRAINING_TIMESTEPS * (STEPS - step) / STEPS;
        let (alpha, sigma) = signal_and_noise(timestep(step));
        let (next_alpha, next_sigma) = signal_and_noise(timestep(step + 1));
        let velocity = predict(&Tensor::cat(&[&latents, &latents], 0)?, timestep(step) - 1)?;
        let (away, towards) = (velocity.narrow(0, 0, 1)?, velocity.narrow(0, 1, 1)?);
        let velocity = (&away + ((towards - &away)? * GUIDANCE_SCALE)?)?;
        let image = ((&latents * alpha)? - (&velocity * sigma)?)?;
        let noise = ((&latents * sigma)? + (&velocity * alpha)?)?;
        latents = ((image * next_alpha)? + (noise * next_sigma)?)?;
    }

    let vae = AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?;
    let pixels = vae.decode(&(latents / vae.scaling_factor())?)?;
    for image in to_images(&pixels)? {
        image.save(&output)?;
    }
    println!("{output}");
    Ok(())
}

/// How much of the image and of noise is in latents after so many of the training's steps ("scaled_linear").
fn signal_and_noise(steps: usize) -> (f64, f64) {
    let (first, last) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let beta = |step: usize| first + (last - first) * step as f64 / (TRAINING_TIMESTEPS - 1) as f64;
    let alpha: f64 = (0..steps).map(|step| 1.0 - beta(step).powi(2)).product();
    (alpha.sqrt(), (1.0 - alpha).sqrt())
}
