//! Times the parts of a full-size model: text encoder, UNet, VAE, and a whole image.
//!
//! ```sh
//! scripts/make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
//! ALTDIFFUSION_BENCH_MODEL=MODEL cargo bench --bench full_size
//! ```

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, PROMPT_TOKENS, Result};
use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use model_files::source::ModelSource;
use std::hint::black_box;

const VARIABLE: &str = "ALTDIFFUSION_BENCH_MODEL";
/// A prompt of typical length.
const PROMPT: &str = "一只戴着红色帽子的小狗坐在海边的沙滩上";

fn full_size(criterion: &mut Criterion, model: &str) -> Result<()> {
    let device = Device::Cpu;
    let pipeline = AltDiffusion::from_source(&ModelSource::open(model)?, DType::F32, &device)?;
    let mut group = criterion.benchmark_group("full size");
    group.sample_size(10);

    let (text_encoder, unet, vae) = (pipeline.text_encoder()?, pipeline.unet()?, pipeline.vae()?);

    for (batch, tokens) in [(1, PROMPT_TOKENS), (8, PROMPT_TOKENS), (32, 16)] {
        let ids = Tensor::rand(4f32, 250_000., (batch, tokens), &device)?.to_dtype(DType::U32)?;
        let mask = ids.ones_like()?;
        group.bench_function(format!("text encoder, {batch} x {tokens}"), |b| {
            b.iter(|| black_box(text_encoder.forward(&ids, &mask)))
        });
    }
    let width = pipeline.text_encoder_spec()?.width;
    for (batch, size) in [(2, 256), (1, 512)] {
        let sample =
            Tensor::randn(0f32, 1., (batch, unet.config().in_channels, size / 8, size / 8), &device)?;
        let timesteps = Tensor::full(500f32, batch, &device)?;
        let states = Tensor::randn(0f32, 1., (batch, PROMPT_TOKENS, width), &device)?;
        group.bench_function(format!("UNet, {batch} x {size}"), |b| {
            b.iter(|| black_box(unet.forward_with_hidden_states(&sample, &timesteps, &states)))
        });
    }
    for size in [256, 512] {
        let latents = Tensor::randn(0f32, 1., (1, 4, size / 8, size / 8), &device)?;
        group.bench_function(format!("VAE decode, {size}"), |b| b.iter(|| black_box(vae.decode(&latents))));
    }
    let options = GenerateOptions::new(PROMPT).steps(4).width(256).height(256);
    group.bench_function("generate, 4 guided steps at 256", |b| {
        b.iter(|| black_box(pipeline.generate(&options)))
    });
    group.finish();
    Ok(())
}

fn run(criterion: &mut Criterion) {
    match std::env::var(VARIABLE) {
        Ok(model) => {
            if let Err(error) = full_size(criterion, &model) {
                panic!("{error}");
            }
        }
        Err(_) => println!("skipped: {VARIABLE} names no checkpoint"),
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
