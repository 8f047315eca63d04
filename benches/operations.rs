//! Times the operations of a full-size model at its own shapes. Linear layers, attention and convolutions report
//! operations per second, the others values per second.

use candle_core::{DType, Device, Result, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fused_ops::{
    Activation, Conv2d, Conv2dOptions, Epilogue, GroupNorm, INT8, INT8_SCALE, Int8Rows, LayerNorm, Linear,
    Padding, attention,
};
use std::hint::black_box;
use test_support::{normal, var_builder};

/// Rows, inputs and outputs: XLM-R's with 8 × 77 tokens, and those of SD 1.x at 512 × 512 by level.
const LINEAR: [(usize, usize, usize); 9] = [
    (616, 1024, 1024),
    (616, 1024, 4096),
    (616, 4096, 1024),
    (77, 1024, 4096),
    (4096, 320, 320),
    (4096, 1280, 320),
    (1024, 640, 640),
    (1024, 2560, 640),
    (256, 1280, 1280),
];
/// Those of XLM-R again, in types of 8 and 16 bits.
const SHORT_TYPES: [(usize, usize, usize); 4] =
    [(616, 1024, 1024), (616, 1024, 4096), (616, 4096, 1024), (77, 1024, 4096)];
/// Rows and channels of the GEGLU layers in SD 1.x.
const GATED: [(usize, usize); 3] = [(4096, 320), (1024, 640), (256, 1280)];
/// Batch, queries, keys, heads and head dimension.
const ATTENTION: [(usize, usize, usize, usize, usize); 6] = [
    (1, 4096, 4096, 8, 40),
    (1, 1024, 1024, 8, 80),
    (1, 256, 256, 8, 160),
    (1, 4096, 21, 8, 40),
    (1, 4096, 4096, 1, 512),
    (8, 77, 77, 16, 64),
];
/// Input and output channels, side of the result, and whether the image is doubled first, for the most frequent 3 × 3
/// convolutions of the UNet and the VAE.
const CONVOLUTION: [(usize, usize, usize, bool); 9] = [
    (320, 320, 64, false),
    (640, 320, 64, false),
    (640, 640, 32, false),
    (1280, 1280, 16, false),
    (1280, 1280, 8, false),
    (512, 512, 64, false),
    (128, 128, 256, false),
    (640, 640, 64, true),
    (512, 512, 128, true),
];
/// Pixels and channels of normalisations.
const NORMALIZED: [(usize, usize); 3] = [(4096, 320), (1024, 640), (256, 1280)];

fn linear(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("linear");
    for (rows, inputs, outputs) in LINEAR {
        let layer = Linear::from_tensors(normal(1, &[outputs, inputs]), Some(normal(1, &[outputs])))?;
        let x = normal(1, &[rows, inputs]);
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        group.bench_function(format!("{rows} x {inputs} to {outputs}"), |b| {
            b.iter(|| black_box(layer.forward(&x)))
        });
    }
    let layer = Linear::from_tensors(normal(1, &[4096, 1024]), Some(normal(1, &[4096])))?;
    let x = normal(1, &[616, 1024]);
    group.throughput(Throughput::Elements(2 * 616 * 1024 * 4096));
    let gelu = Epilogue::activation(Activation::Gelu);
    group.bench_function("616 x 1024 to 4096, GELU", |b| b.iter(|| black_box(layer.forward_with(&x, &gelu))));
    for (rows, channels) in GATED {
        let layer =
            Linear::from_tensors(normal(1, &[8 * channels, channels]), Some(normal(1, &[8 * channels])))?;
        let x = normal(1, &[rows, channels]);
        group.throughput(Throughput::Elements((2 * rows * channels * 8 * channels) as u64));
        group.bench_function(format!("{rows} x {channels} to {}, gated", 4 * channels), |b| {
            b.iter(|| black_box(layer.forward_geglu(&x)))
        });
    }
    group.finish();
    Ok(())
}

fn short_types(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("linear in short types");
    for (rows, inputs, outputs) in SHORT_TYPES {
        let (weight, bias) = (normal(1, &[outputs, inputs]), normal(1, &[outputs]));
        let x = normal(1, &[rows, inputs]);
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        let layers = [
            ("f32", Linear::from_tensors(weight.clone(), Some(bias.clone()))?),
            ("bf16", Linear::from_tensors(weight.to_dtype(DType::BF16)?, Some(bias.clone()))?),
            ("int8", in_int8(&weight, &bias)?),
        ];
        for (dtype, layer) in layers {
            group.bench_function(format!("{rows} x {inputs} to {outputs}, {dtype}"), |b| {
                b.iter(|| black_box(layer.forward(&x)))
            });
        }
    }
    group.finish();
    Ok(())
}

/// The layer as a checkpoint provides it in int8.
fn in_int8(weight: &Tensor, bias: &Tensor) -> Result<Linear> {
    let (outputs, inputs) = weight.dims2()?;
    let rows = Int8Rows::quantize(&weight.flatten_all()?.to_vec1::<f32>()?, inputs, None)?;
    let bytes: Vec<u8> = rows.values.into_iter().map(i8::cast_unsigned).collect();
    let bytes = Tensor::from_vec(bytes, (outputs, inputs), &Device::Cpu)?;
    let scales = Tensor::from_vec(rows.scales, outputs, &Device::Cpu)?;
    let vb = var_builder(&[(INT8, &bytes), (INT8_SCALE, &scales), ("bias", bias)]);
    Linear::new(inputs, outputs, true, vb)
}

fn attentions(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20);
    for (batch, queries, keys, heads, head_dim) in ATTENTION {
        let query = normal(1, &[batch, queries, heads * head_dim]);
        let (key, value) =
            (normal(1, &[batch, keys, heads * head_dim]), normal(1, &[batch, keys, heads * head_dim]));
        group.throughput(Throughput::Elements((4 * batch * queries * keys * heads * head_dim) as u64));
        group.bench_function(format!("{batch} x {queries} to {keys}, {heads} heads of {head_dim}"), |b| {
            b.iter(|| black_box(attention(&query, &key, &value, heads, None)))
        });
    }
    group.finish();
    Ok(())
}

fn convolutions(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("convolution 3 x 3");
    group.sample_size(10);
    for (inputs, outputs, side, upsample) in CONVOLUTION {
        let options = Conv2dOptions { stride: 1, padding: Padding::same(1), upsample };
        let vb = var_builder(&[
            ("weight", &normal(1, &[outputs, inputs, 3, 3])),
            ("bias", &normal(1, &[outputs])),
        ]);
        let layer = Conv2d::new(inputs, outputs, 3, options, vb)?;
        let before = if upsample { side / 2 } else { side };
        let x = normal(1, &[1, before, before, inputs]);
        group.throughput(Throughput::Elements((2 * 9 * side * side * inputs * outputs) as u64));
        let doubled = if upsample { ", doubled" } else { "" };
        group.bench_function(format!("{inputs} to {outputs} at {side}{doubled}"), |b| {
            b.iter(|| black_box(layer.forward(&x)))
        });
    }
    group.finish();
    Ok(())
}

fn normalizations(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("normalization");
    for (pixels, channels) in NORMALIZED {
        let vb = var_builder(&[("weight", &normal(1, &[channels])), ("bias", &normal(1, &[channels]))]);
        let groups = GroupNorm::new(32, channels, 1e-5, vb.clone())?;
        let layer = LayerNorm::new(channels, 1e-5, vb)?;
        let x = normal(1, &[1, pixels, channels]);
        group.throughput(Throughput::Elements((pixels * channels) as u64));
        group.bench_function(format!("groups and SiLU, {pixels} x {channels}"), |b| {
            b.iter(|| black_box(groups.forward_silu(&x)))
        });
        group.bench_function(format!("layer, {pixels} x {channels}"), |b| {
            b.iter(|| black_box(layer.forward(&x)))
        });
    }
    group.finish();
    Ok(())
}

fn run(criterion: &mut Criterion) {
    for bench in [linear, short_types, attentions, convolutions, normalizations] {
        if let Err(error) = bench(criterion) {
            panic!("{error}");
        }
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
