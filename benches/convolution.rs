//! Times a 3 × 3 convolution, forward and backward, against candle's.
//!
//! The shapes are from training a small UNet and VAE: batch × channels × size.

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fused_ops::{Conv2d, Conv2dOptions, Padding, reference};
use std::collections::HashMap;
use std::hint::black_box;

const SHAPES: [(usize, usize, usize); 3] = [(32, 64, 16), (32, 128, 8), (16, 32, 64)];
const OPTIONS: Conv2dOptions = Conv2dOptions { stride: 1, padding: Padding::same(1), upsample: false };

fn convolution(criterion: &mut Criterion) -> Result<()> {
    let device = Device::Cpu;
    let mut group = criterion.benchmark_group("convolution");
    group.sample_size(20);
    for (batch, channels, size) in SHAPES {
        let x = Var::randn(0f32, 1., (batch, size, size, channels), &device)?;
        let weight = Var::randn(0f32, 1., (channels, channels, 3, 3), &device)?;
        let bias = Var::zeros(channels, candle_core::DType::F32, &device)?;
        let tensors = [("weight", &weight), ("bias", &bias)];
        let tensors: HashMap<String, Tensor> =
            tensors.into_iter().map(|(name, var)| (name.to_owned(), var.as_tensor().clone())).collect();
        let vb = VarBuilder::from_tensors(tensors, candle_core::DType::F32, &device);
        let layer = Conv2d::new(channels, channels, 3, OPTIONS, vb)?;

        let name = format!("{batch}x{channels}x{size}");
        let operations = (batch * size * size * channels * channels * 9 * 2) as u64;
        group.throughput(Throughput::Elements(operations));
        let fused = || layer.forward(&x);
        let candle = || reference::conv2d(&x, &weight, Some(&bias), OPTIONS);
        group.bench_function(BenchmarkId::new("fused forward", &name), |b| b.iter(|| black_box(fused())));
        group.bench_function(BenchmarkId::new("candle forward", &name), |b| b.iter(|| black_box(candle())));
        // forward and backward are three products of the same size
        group.throughput(Throughput::Elements(3 * operations));
        group.bench_function(BenchmarkId::new("fused training", &name), |b| {
            b.iter(|| black_box(fused().and_then(|y| y.sum_all()?.backward())))
        });
        group.bench_function(BenchmarkId::new("candle training", &name), |b| {
            b.iter(|| black_box(candle().and_then(|y| y.sum_all()?.backward())))
        });
    }
    group.finish();
    Ok(())
}

fn run(criterion: &mut Criterion) {
    if let Err(error) = convolution(criterion) {
        panic!("{error}");
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
