//! Times the model that ships with the program, with weights in f16: loading, and drawing an image.

use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, Result};
use candle_core::{DType, Device};
use criterion::{Criterion, criterion_group, criterion_main};
use model_files::source::ModelSource;
use std::hint::black_box;

fn emoji(criterion: &mut Criterion) -> Result<()> {
    let source = ModelSource::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji"))?;
    let load = || AltDiffusion::from_source(&source, DType::F32, &Device::Cpu);
    let mut group = criterion.benchmark_group("emoji");
    group.sample_size(10);
    group.bench_function("load", |b| b.iter(|| black_box(load())));
    let pipeline = load()?;
    let options = GenerateOptions::new("一只猫").steps(20).guidance_scale(3.0);
    group.bench_function("20 guided steps", |b| b.iter(|| black_box(pipeline.generate(&options))));
    group.finish();
    Ok(())
}

fn run(criterion: &mut Criterion) {
    if let Err(error) = emoji(criterion) {
        panic!("{error}");
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
