//! Feeds hidden states to another implementation of a UNet, that of candle-transformers' Stable Diffusion. The text
//! encoder and the UNet only share a tensor, (texts, tokens, width), as in diffusers.
//!
//! ```sh
//! cargo run --release --example another_unet
//! cargo run --release --example another_unet -- 一只猫 cat.png BAAI/AltDiffusion-m9
//! ```
//!
//! Without a model, the model in this repository encodes the texts, and the UNet is a small one with random weights.
//! Its prediction is meaningless, and is compared with that of `altdiffusion-pipeline`'s UNet with the same weights.
//!
//! candle-transformers 0.11.1 ignores `norm_num_groups` in the down blocks and always uses 32 groups. That is right
//! for models with 32, such as the published AltDiffusions; others are refused. Its GELU is the tanh approximation,
//! where diffusers and this project use the exact one: predictions differ in the fourth digit.

use altclip_encoder::{Checkpoint, ModelSource, PromptEncoder};
use altdiffusion_pipeline::to_images;
use altdiffusion_pipeline::unet::UNet2DConditionModel as OwnUNet;
use altdiffusion_pipeline::vae::AutoencoderKl;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use serde::Deserialize;
use serde_json::{Value, json};

const STEPS: usize = 20;
const GUIDANCE_SCALE: f64 = 7.5;
const TRAINING_TIMESTEPS: usize = 1000;
/// The largest relative distance between predictions with either GELU.
const TOLERANCE: f32 = 1e-3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "一只猫".to_owned());
    let output = arguments.next().unwrap_or_else(|| "out.png".to_owned());
    match arguments.next() {
        Some(model) => draw(&model, &prompt, &output),
        None => compare(&prompt),
    }
}

/// Predicts once with each UNet, with random weights.
fn compare(prompt: &str) -> Result<()> {
    let device = Device::Cpu;
    let encoder = PromptEncoder::from_pretrained("models/emoji", DType::F32, &device)?;
    let hidden_states = encoder.encode(&["", prompt])?.hidden_states; // (2, 77, width)
    println!("hidden states: {:?}", hidden_states.dims());

    let config = json!({
        "in_channels": 4, "out_channels": 4, "block_out_channels": [32, 64], "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": 4, "cross_attention_dim": encoder.width(), "norm_num_groups": 32, "norm_eps": 1e-5,
    });
    let weights = VarMap::new();
    let vb = || VarBuilder::from_varmap(&weights, DType::F32, &device);
    let unet = unet(&config, vb())?;
    let own = OwnUNet::new(&serde_json::from_value(config)?, vb())?;

    let (latents, timestep) = (Tensor::randn(0f32, 1., (2, 4, 16, 16), &device)?, 500.);
    let predicted = unet.forward(&latents, timestep, &hidden_states)?;
    let timesteps = Tensor::full(timestep as f32, 2, &device)?;
    let expected = own.forward_with_hidden_states(&latents, &timesteps, &hidden_states)?;
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
    let difference = norm(&(&predicted - &expected)?)? / norm(&expected)?;
    println!("prediction: {:?}, {difference:.1e} from that of altdiffusion-pipeline", predicted.dims());
    ensure!(difference < TOLERANCE, "expected the same prediction of both, up to {TOLERANCE:e}");
    Ok(())
}

/// Draws with a published model's UNet and an explicit sampling loop.
fn draw(model: &str, prompt: &str, output: &str) -> Result<()> {
    let device = Device::Cpu;
    let source = ModelSource::open(model)?;
    let weights = |part: &str| Checkpoint::open(&source, part)?.var_builder(DType::F32, &device);
    let unet = unet(&source.read_json("unet/config.json")?, weights("unet")?)?;
    let vae = AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?;

    // The negative prompt, then the prompt.
    let hidden_states =
        PromptEncoder::from_source(&source, DType::F32, &device)?.encode(&["", prompt])?.hidden_states;

    // DDIM with epsilon prediction (Song et al. 2021, arXiv 2010.02502), with guidance.
    let mut latents = Tensor::randn(0f32, 1., (1, 4, 64, 64), &device)?;
    for step in 0..STEPS {
        let timestep = |step: usize| TRAINING_TIMESTEPS * (STEPS - step) / STEPS;
        let (alpha, sigma) = signal_and_noise(timestep(step));
        let (next_alpha, next_sigma) = signal_and_noise(timestep(step + 1));
        let both = Tensor::cat(&[&latents, &latents], 0)?;
        let noise = unet.forward(&both, (timestep(step) - 1) as f64, &hidden_states)?;
        let (away, towards) = (noise.narrow(0, 0, 1)?, noise.narrow(0, 1, 1)?);
        let noise = (&away + ((towards - &away)? * GUIDANCE_SCALE)?)?;
        let image = ((&latents - (&noise * sigma)?)? / alpha)?;
        latents = ((image * next_alpha)? + (noise * next_sigma)?)?;
    }

    let pixels = vae.decode(&(latents / vae.scaling_factor())?)?;
    to_images(&pixels)?.first().context("one image was asked for")?.save(output)?;
    println!("{output}");
    Ok(())
}

/// The shares of image and noise in latents after this many training timesteps ("scaled_linear").
fn signal_and_noise(steps: usize) -> (f64, f64) {
    let (first, last) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let beta = |step: usize| first + (last - first) * step as f64 / (TRAINING_TIMESTEPS - 1) as f64;
    let alpha: f64 = (0..steps).map(|step| 1.0 - beta(step).powi(2)).product();
    (alpha.sqrt(), (1.0 - alpha).sqrt())
}

/// The fields of a `unet/config.json` that candle-transformers supports.
#[derive(Deserialize)]
struct UNetFields {
    in_channels: usize,
    out_channels: usize,
    block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    /// The number of heads, despite its name: one number, or one per block.
    attention_head_dim: Value,
    layers_per_block: usize,
    cross_attention_dim: usize,
    norm_num_groups: usize,
    norm_eps: f64,
    #[serde(default)]
    use_linear_projection: bool,
}

/// Builds candle-transformers' UNet from a published configuration.
fn unet(config: &Value, vb: VarBuilder) -> Result<UNet2DConditionModel> {
    let fields = UNetFields::deserialize(config)?;
    let groups = fields.norm_num_groups;
    ensure!(
        groups == 32,
        "norm_num_groups is {groups}, and candle-transformers 0.11.1 is right for 32 alone"
    );
    let heads = |block: usize| {
        let heads = fields.attention_head_dim.get(block).unwrap_or(&fields.attention_head_dim);
        heads.as_u64().context("attention_head_dim: expected numbers")
    };
    let blocks = fields.block_out_channels.iter().zip(&fields.down_block_types).enumerate();
    let blocks = blocks.map(|(block, (&out_channels, kind))| {
        let use_cross_attn = kind.starts_with("CrossAttn").then_some(1);
        Ok(BlockConfig { out_channels, use_cross_attn, attention_head_dim: heads(block)? as usize })
    });
    let config = UNet2DConditionModelConfig {
        blocks: blocks.collect::<Result<_>>()?,
        layers_per_block: fields.layers_per_block,
        norm_num_groups: groups,
        norm_eps: fields.norm_eps,
        cross_attention_dim: fields.cross_attention_dim,
        use_linear_projection: fields.use_linear_projection,
        ..Default::default()
    };
    Ok(UNet2DConditionModel::new(vb, fields.in_channels, fields.out_channels, false, config)?)
}
