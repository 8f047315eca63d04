//! Times training steps of a UNet on request, for `scripts/compare-training.py`, which compares them with PyTorch.
//!
//! ```sh
//! cargo run --release -p altclip-training --example training_step -- models/emoji 32 16
//! ```
//!
//! The arguments are a model in folders, the batch size and the number of tokens in a prompt; latents and hidden
//! states are random. Each line on standard input is a number of steps: drawing noise, the UNet's forward and
//! backward pass, clipping, AdamW and the moving average of the weights. The answer is a line on standard output with
//! the seconds taken. A line with the loading time comes before the first answer.

use altclip_training::stages::denoising::NoiseSettings;
use altclip_training::stages::realign::{BatchSettings, ConditioningRows, ConditioningSource, Realignment};
use altclip_training::{Batch, Objective, Optimizer, OptimizerConfig, Parameters, Schedule};
use altdiffusion_pipeline::PerBlock;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use rand_chacha::ChaCha8Rng;
use std::io::{BufRead, Write};
use std::time::Instant;

const IMAGES: usize = 256;

/// The hidden states of one prompt, used for every image.
struct OnePrompt {
    /// (1, tokens, width)
    rows: Tensor,
}

impl ConditioningSource for OnePrompt {
    fn draw(
        &self,
        _: &mut ChaCha8Rng,
        images: &[u32],
        _: &[bool],
    ) -> altclip_training::Result<ConditioningRows> {
        let rows = self.rows.repeat((images.len(), 1, 1))?;
        let key_bias = Tensor::zeros((images.len(), rows.dim(1)?), DType::F32, rows.device())?;
        Ok(ConditioningRows { rows, key_bias, sides: Vec::new() })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch_size, tokens] = arguments.as_slice() else {
        return Err("expected a model, the images of a batch and the tokens of a prompt".into());
    };
    let start = Instant::now();
    let (device, source) = (Device::Cpu, ModelSource::open(model)?);
    let config: UNet2DConditionConfig = source.read_json("unet/config.json")?;
    let (Some(PerBlock::Same(size)), PerBlock::Same(width)) =
        (config.sample_size.clone(), config.cross_attention_dim.clone())
    else {
        return Err("expected a UNet of one size and width".into());
    };
    let weights = Checkpoint::open(&source, "unet")?.var_builder(DType::F32, &device)?;
    let parameters = Parameters::new(0).starting_from(weights);
    let unet = UNet2DConditionModel::new(&config, parameters.var_builder(&device))?;
    let scheduler = source.read("scheduler/scheduler_config.json")?;
    let scheduler = SchedulerConfig::from_json(std::str::from_utf8(&scheduler)?, scheduler.name())?;
    let latents = Tensor::randn(0f32, 1., (IMAGES, config.in_channels, size, size), &device)?;
    let prompt = OnePrompt { rows: Tensor::randn(0f32, 1., (1, tokens.parse::<usize>()?, width), &device)? };
    let batches = BatchSettings {
        batch_size: batch_size.parse()?,
        caption_dropout: 0.,
        noise: NoiseSettings::default(),
    };
    let parts = std::thread::available_parallelism()?.get();
    let objective = Realignment::new(batches, &unet, &scheduler, &latents, &prompt, parts)?;
    let optimizer = OptimizerConfig {
        steps: usize::MAX,
        learning_rate: 1e-5,
        warmup_steps: 0,
        schedule: Schedule::Constant,
        weight_decay: 0.,
        beta1: 0.9,
        beta2: 0.99,
        max_grad_norm: 1.,
        ema_decay: 0.999,
        accumulate: 1,
    };
    let mut optimizer = Optimizer::new(optimizer, &parameters)?;
    answer(start)?;
    for line in std::io::stdin().lock().lines() {
        let steps: usize = line?.trim().parse()?;
        let start = Instant::now();
        for _ in 0..steps {
            let mut batch = Batch::new(0, optimizer.step_count());
            optimizer.step(&objective.gradients(&mut batch)?)?;
        }
        answer(start)?;
    }
    Ok(())
}

fn answer(start: Instant) -> std::io::Result<()> {
    println!("{}", start.elapsed().as_secs_f64());
    std::io::stdout().flush()
}
