//! Checks every CUDA kernel against f64 on the CPU and times it, for `scripts/gpu-check.sh`.
//!
//!     gpu_check check          every operation in f16 and bf16, at the shapes of the models and odd ones
//!     gpu_check check --small  the small shapes alone, for compute-sanitizer
//!     gpu_check check attention|convolution [--small]
//!                              the same of these alone
//!     gpu_check time           a line of JSON for each operation: median milliseconds, and what its floor is made of
//!     gpu_check time attention|convolution
//!                              the same of these alone
//!
//! With `FUSED_OPS_ATTENTION=hopper` attention over many keys takes the kernels for Hopper, and `time` has their shapes
//! alone. `FUSED_OPS_CONVOLUTION` says whose convolutions run.
//!
//! An operation that takes the reference path, because no kernel covers it, is a failure as well: events are read.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{
    Activation, Conv2d, Conv2dOptions, Epilogue, GroupNorm, LayerNorm, Linear, LinearStep, Padding,
    Recording, Sequences, Sinusoids, attention, causal_attention, cuda_device, geglu, packed_attention,
    reference, timestep_embedding, to_bytes,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const DTYPES: [DType; 2] = [DType::F16, DType::BF16];

/// Half of the distance from 1 to the next number.
fn unit(dtype: DType) -> f64 {
    if dtype == DType::F16 { 1. / 2048. } else { 1. / 256. }
}

fn name(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "f16" } else { "bf16" }
}

fn main() -> Result<()> {
    let misses = Misses::default();
    tracing::subscriber::set_global_default(misses.clone()).map_err(candle_core::Error::wrap)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = cuda_device(0)?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check(&device, &misses, false, check_everything),
        ["check", "--small"] => check(&device, &misses, true, check_everything),
        ["check", "attention"] => check(&device, &misses, false, check_attentions),
        ["check", "attention", "--small"] => check(&device, &misses, true, check_attentions),
        ["check", "convolution"] => check(&device, &misses, false, check_convolutions),
        ["check", "convolution", "--small"] => check(&device, &misses, true, check_convolutions),
        ["time"] => time_attention(&device, &misses)
            .and_then(|()| time_convolutions(&device, &misses))
            .and_then(|()| time_others(&device, &misses)),
        ["time", "attention"] => time_attention(&device, &misses),
        ["time", "convolution"] => time_convolutions(&device, &misses),
        _ => candle_core::bail!(
            "usage: gpu_check check [attention|convolution] [--small] | time [attention|convolution]"
        ),
    }
}

/// Counts the events that say that no kernel ran.
#[derive(Debug, Default, Clone)]
struct Misses(Arc<AtomicUsize>);

impl Subscriber for Misses {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.is_event() && metadata.fields().field("operation").is_some()
    }

    fn event(&self, _: &Event) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An attention of some shape: `keys` of its own, or of the queries.
#[derive(Debug, Clone, Copy)]
struct Shape {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
}

const fn own(batch: usize, tokens: usize, heads: usize, head_dim: usize) -> Shape {
    Shape { batch, queries: tokens, keys: tokens, heads, head_dim }
}

const fn cross(batch: usize, queries: usize, keys: usize, heads: usize, head_dim: usize) -> Shape {
    Shape { batch, queries, keys, heads, head_dim }
}

/// Stable Diffusion 1.x and 2.x at 512 × 512 with guidance, XLM-R large, CLIP ViT-L.
const MODEL_SHAPES: [Shape; 12] = [
    own(2, 4096, 8, 40),
    own(2, 1024, 8, 80),
    own(2, 256, 8, 160),
    own(2, 64, 8, 160),
    own(2, 4096, 5, 64),
    cross(2, 4096, 21, 8, 40),
    cross(2, 4096, 77, 8, 40),
    cross(2, 1024, 21, 8, 80),
    cross(2, 256, 21, 8, 160),
    cross(2, 4096, 21, 5, 64),
    own(8, 77, 16, 64),
    own(1, 257, 16, 64),
];

/// Lengths that no tile divides.
fn odd_shapes() -> impl Iterator<Item = Shape> {
    [40, 64, 80, 160].into_iter().flat_map(|head_dim| {
        [1, 2, 15, 16, 17, 63, 65, 77, 129].into_iter().flat_map(move |tokens| {
            [own(2, tokens, 2, head_dim), cross(1, tokens, 21, 2, head_dim), cross(1, 5, tokens, 2, head_dim)]
        })
    })
}

fn random(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    // Made on the CPU, so that both sides have the same rounded values.
    Tensor::randn(0f32, 1., shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

fn f64_on_cpu(x: &Tensor) -> Result<Tensor> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}

/// Attention in f64 on the CPU, one head after the other, so that there is room for their scores.
fn attention_f64(
    [query, key, value]: [&Tensor; 3],
    heads: usize,
    bias: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let (query, key, value) = (f64_on_cpu(query)?, f64_on_cpu(key)?, f64_on_cpu(value)?);
    let bias = bias.map(f64_on_cpu).transpose()?;
    let (batch, queries, width) = query.dims3()?;
    let (keys, head_dim) = (key.dim(1)?, width / heads);
    let hidden: Vec<f64> = (0..queries)
        .flat_map(|query| (0..keys).map(move |key| if key <= query { 0. } else { f64::NEG_INFINITY }))
        .collect();
    let hidden = Tensor::from_vec(hidden, (queries, keys), &Device::Cpu)?;
    let sequences = (0..batch).map(|b| {
        let head = |h: usize| {
            let part = |x: &Tensor| x.get(b)?.narrow(1, h * head_dim, head_dim)?.contiguous();
            let mut scores = (part(&query)?.matmul(&part(&key)?.t()?)? / (head_dim as f64).sqrt())?;
            if let Some(bias) = &bias {
                scores = scores.broadcast_add(&bias.narrow(0, b, 1)?)?;
            }
            if causal {
                scores = (scores + &hidden)?;
            }
            candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&part(&value)?)
        };
        Tensor::cat(&(0..heads).map(head).collect::<Result<Vec<_>>>()?, 1)
    });
    Tensor::stack(&sequences.collect::<Result<Vec<_>>>()?, 0)
}

/// Counts and prints what is further from f64 than it may be.
struct Checker<'a> {
    misses: &'a Misses,
    checked: usize,
    failed: usize,
}

impl Checker<'_> {
    /// ‖found − expected‖ / ‖expected‖ may be two roundings to the type: one of the weights or of what is added up, and
    /// one of the result.
    fn compare(&mut self, what: &str, dtype: DType, found: &Tensor, expected: &Tensor) -> Result<()> {
        let (found, expected) = (f64_on_cpu(found)?.flatten_all()?, f64_on_cpu(expected)?.flatten_all()?);
        let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>();
        let error = (norm(&(&found - &expected)?)? / norm(&expected)?).sqrt();
        let missed = self.misses.0.swap(0, Ordering::Relaxed);
        let allowed = 2. * unit(dtype);
        self.checked += 1;
        if missed > 0 || error.is_nan() || error > allowed {
            self.failed += 1;
            let reference = if missed > 0 { ", and not by its kernel" } else { "" };
            println!("FAILED {what} {}: {error:.2e}, allowed {allowed:.2e}{reference}", name(dtype));
        }
        Ok(())
    }
}

fn check(
    device: &Device,
    misses: &Misses,
    small: bool,
    what: impl Fn(&mut Checker, bool, DType, &Device) -> Result<()>,
) -> Result<()> {
    let mut checker = Checker { misses, checked: 0, failed: 0 };
    for dtype in DTYPES {
        what(&mut checker, small, dtype, device)?;
    }
    println!("{} comparisons with f64, {} failed", checker.checked, checker.failed);
    if checker.failed > 0 {
        candle_core::bail!("{} kernels are wrong", checker.failed);
    }
    Ok(())
}

fn check_attention(checker: &mut Checker, shape: Shape, dtype: DType, device: &Device) -> Result<()> {
    let Shape { batch, queries, keys, heads, head_dim } = shape;
    let width = heads * head_dim;
    // The parts of one projection's output, as the kernels read them.
    let query = random(&[batch, queries, width], dtype, device)?;
    let both = random(&[batch, keys, 2 * width], dtype, device)?;
    let (key, value) = (both.narrow(2, 0, width)?, both.narrow(2, width, width)?);
    let inputs = [&query, &key, &value];
    let bias = random(&[batch, keys], DType::F32, device)?;
    // Millions of scores in f64 take their time: one way is enough for those.
    let biases = if queries * keys > 1 << 20 { &[None][..] } else { &[None, Some(&bias)] };
    for &bias in biases {
        let what = format!("attention {shape:?}, biased {}", bias.is_some());
        let found = attention(&query, &key, &value, heads, bias)?;
        checker.compare(&what, dtype, &found, &attention_f64(inputs, heads, bias, false)?)?;
    }
    if queries == keys && queries <= 257 {
        let found = causal_attention(&query, &key, &value, heads, None)?;
        let expected = attention_f64(inputs, heads, None, true)?;
        checker.compare(&format!("causal attention {shape:?}"), dtype, &found, &expected)?;
    }
    Ok(())
}

fn check_everything(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
    check_attentions(checker, small, dtype, device)?;
    check_recording(checker, dtype, device)?;
    check_convolutions(checker, small, dtype, device)?;
    check_products(checker, small, dtype, device)?;
    check_normalisations(checker, small, dtype, device)?;
    check_elementwise(checker, dtype, device)
}

fn check_attentions(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
    let more = if small { &[][..] } else { &MODEL_SHAPES };
    for shape in odd_shapes().chain(more.iter().copied()) {
        check_attention(checker, shape, dtype, device)?;
    }
    check_packed(checker, dtype, device)
}

/// A recording does what is not recorded, on new values too.
fn check_recording(checker: &mut Checker, dtype: DType, device: &Device) -> Result<()> {
    let window = window(2, 16, 320, 320, 3);
    let layer = window.layer(&window.parameters(dtype, device)?, dtype, device)?;
    let norm = GroupNorm::new(32, 320, 1e-5, vb(&layers(320, dtype, device)?, dtype, device))?;
    let linear =
        Linear::from_tensors(random(&[320, 320], dtype, device)?, Some(random(&[320], dtype, device)?))?;
    let work = move |x: &Tensor| {
        let hidden = layer.forward(&norm.forward_silu(x)?)?.reshape((2, 256, 320))?;
        linear.forward(&attention(&hidden, &hidden, &hidden, 8, None)?)
    };
    let work = Arc::new(work);
    let input = random(&[2, 16, 16, 320], dtype, device)?;
    let (recorded_work, recorded_input) = (work.clone(), input.clone());
    let (recording, _) = Recording::new(move || recorded_work(&recorded_input))?;
    for turn in 0..3 {
        let x = random(&[2, 16, 16, 320], dtype, device)?;
        input.slice_set(&x, 0, 0)?;
        let found = recording.replay()?;
        checker.compare(&format!("replay {turn}"), dtype, &found, &work(&x)?.to_dtype(DType::F32)?)?;
    }
    Ok(())
}

fn check_packed(checker: &mut Checker, dtype: DType, device: &Device) -> Result<()> {
    for lengths in [&[1, 17, 77, 2, 64, 15][..], &[3, 200, 65, 1, 129]] {
        let rows: usize = lengths.iter().sum();
        let all = random(&[rows, 3 * 1024], dtype, device)?;
        let part = |i: usize| all.narrow(1, 1024 * i, 1024);
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let bias = random(&[rows], DType::F32, device)?;
        let sequences = Sequences::new(lengths.to_vec(), Some(&bias), device)?;
        let found = packed_attention(&query, &key, &value, 16, &sequences)?;
        let mut begin = 0;
        for &length in lengths {
            let part = |x: &Tensor| x.narrow(0, begin, length)?.unsqueeze(0);
            let inputs = [&part(&query)?, &part(&key)?, &part(&value)?];
            let expected = attention_f64(inputs, 16, Some(&part(&bias)?), false)?;
            checker.compare(&format!("packed attention {lengths:?}"), dtype, &part(&found)?, &expected)?;
            begin += length;
        }
    }
    Ok(())
}

/// A convolution of channels-last pictures, (batch, side, side, channels).
#[derive(Debug, Clone, Copy)]
struct Window {
    batch: usize,
    side: usize,
    channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    upsample: bool,
}

const fn window(batch: usize, side: usize, channels: usize, out_channels: usize, kernel: usize) -> Window {
    Window { batch, side, channels, out_channels, kernel, stride: 1, upsample: false }
}

impl Window {
    fn options(&self) -> Conv2dOptions {
        let padding = Padding::same(self.kernel / 2);
        Conv2dOptions { stride: self.stride, padding, upsample: self.upsample }
    }

    /// Weight and bias, so large that results are about 1.
    fn parameters(&self, dtype: DType, device: &Device) -> Result<[Tensor; 2]> {
        let Self { channels, out_channels, kernel, .. } = *self;
        let scale = 1. / ((kernel * kernel * channels) as f64).sqrt();
        let weight = random(&[out_channels, channels, kernel, kernel], DType::F32, &Device::Cpu)?;
        let weight = (weight * scale)?.to_dtype(dtype)?.to_device(device)?;
        Ok([weight, random(&[out_channels], dtype, device)?])
    }

    fn layer(&self, parameters: &[Tensor; 2], dtype: DType, device: &Device) -> Result<Conv2d> {
        let Self { channels, out_channels, kernel, .. } = *self;
        Conv2d::new(channels, out_channels, kernel, self.options(), vb(parameters, dtype, device))
    }
}

/// Of the UNet at 512 × 512 with guidance, and of the VAE.
const MODEL_WINDOWS: [Window; 8] = [
    window(2, 64, 320, 320, 3),
    window(2, 32, 640, 640, 3),
    window(2, 16, 1280, 1280, 3),
    window(2, 8, 1280, 1280, 3),
    window(2, 64, 960, 320, 3),
    window(2, 64, 960, 320, 1),
    Window { upsample: true, ..window(2, 32, 640, 640, 3) },
    window(1, 512, 128, 128, 3),
];

const SMALL_WINDOWS: [Window; 7] = [
    window(2, 9, 40, 24, 3),
    window(1, 1, 8, 8, 3),
    window(2, 8, 4, 320, 3),
    window(1, 16, 64, 3, 3),
    window(2, 4, 640, 160, 3),
    Window { stride: 2, ..window(2, 8, 32, 128, 3) },
    Window { upsample: true, ..window(1, 5, 24, 40, 3) },
];

/// Sums of some thousand products in f32 are as good as in f64 beside f16.
fn check_convolutions(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
    let on_cpu = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32);
    let more = if small { &[][..] } else { &MODEL_WINDOWS };
    for window in SMALL_WINDOWS.iter().chain(more) {
        let Window { batch, side, channels, out_channels, .. } = *window;
        let x = random(&[batch, side, side, channels], dtype, device)?;
        let parameters = window.parameters(dtype, device)?;
        let layer = window.layer(&parameters, dtype, device)?;
        let [weight, bias] = &parameters;
        let expected =
            reference::conv2d(&on_cpu(&x)?, &on_cpu(weight)?, Some(&on_cpu(bias)?), window.options())?;
        checker.compare(&format!("{window:?}"), dtype, &layer.forward(&x)?, &expected)?;
        let residual = random(expected.dims(), dtype, device)?;
        let expected = (expected + on_cpu(&residual)?)?;
        let found = layer.forward_with(&x, &Epilogue::residual(&residual))?;
        checker.compare(&format!("{window:?}, residual"), dtype, &found, &expected)?;
        let shift = random(&[batch, out_channels], dtype, device)?;
        let epilogue = Epilogue { shift: Some(&shift), residual: Some(&residual), activation: None };
        let expected = fused_ops::shift_channels(&expected, &on_cpu(&shift)?)?;
        let found = layer.forward_with(&x, &epilogue)?;
        checker.compare(&format!("{window:?}, shift, residual"), dtype, &found, &expected)?;
    }
    Ok(())
}

/// Linear layers, (rows, in, out), with what follows them.
fn check_products(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
    let on_cpu = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32);
    let shapes = [[1, 8, 8], [7, 72, 40], [21, 64, 192], [3, 5, 8], [1400, 1024, 3072], [8192, 1280, 320]];
    for [rows, in_features, out_features] in shapes {
        if small && rows > 100 {
            continue;
        }
        let x = random(&[rows, in_features], dtype, device)?;
        let weight = random(&[out_features, in_features], DType::F32, &Device::Cpu)?;
        let weight = (weight / (in_features as f64).sqrt())?.to_dtype(dtype)?.to_device(device)?;
        let bias = random(&[out_features], dtype, device)?;
        let residual = random(&[rows, out_features], dtype, device)?;
        let product = reference::linear(&on_cpu(&x)?, &on_cpu(&weight)?, None)?;
        let biased = product.broadcast_add(&on_cpu(&bias)?)?;
        let sum = (&biased + on_cpu(&residual)?)?;
        let bare = Linear::from_tensors(weight.clone(), None)?;
        let layer = Linear::from_tensors(weight, Some(bias))?;
        let what = |after: &str| format!("linear {rows} × {in_features} to {out_features}{after}");
        let after = Epilogue::residual(&residual);
        checker.compare(&what(""), dtype, &bare.forward(&x)?, &product)?;
        checker.compare(&what(", bias"), dtype, &layer.forward(&x)?, &biased)?;
        checker.compare(&what(", bias, residual"), dtype, &layer.forward_with(&x, &after)?, &sum)?;
        let expected = (product + on_cpu(&residual)?)?;
        checker.compare(&what(", residual"), dtype, &bare.forward_with(&x, &after)?, &expected)?;
        let after = Epilogue { activation: Some(Activation::Silu), ..after };
        let expected = sum.silu()?;
        checker.compare(&what(", silu"), dtype, &layer.forward_with(&x, &after)?, &expected)?;
        // Rows that begin at a multiple of 16 bytes, but of no more.
        let some = x.narrow(0, rows / 2, rows - rows / 2)?;
        let expected = biased.narrow(0, rows / 2, rows - rows / 2)?;
        checker.compare(&what(", some rows"), dtype, &layer.forward(&some)?, &expected)?;
    }
    Ok(())
}

fn layers(channels: usize, dtype: DType, device: &Device) -> Result<[Tensor; 2]> {
    Ok([random(&[channels], dtype, device)?, random(&[channels], dtype, device)?])
}

fn vb([weight, bias]: &[Tensor; 2], dtype: DType, device: &Device) -> VarBuilder<'static> {
    let tensors =
        [("weight", weight), ("bias", bias)].map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    VarBuilder::from_tensors(HashMap::from(tensors), dtype, device)
}

/// The deviation is computed from thousands of values, so f32 on the CPU is as good as f64 beside f16.
fn check_normalisations(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
    let on_cpu = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32);
    for (batch, side, channels, groups) in [
        (2, 64, 320, 32),
        (2, 32, 640, 32),
        (2, 8, 2560, 32),
        (1, 128, 512, 32),
        (1, 5, 24, 8),
        (3, 1, 64, 32),
    ] {
        if small && side > 8 {
            continue;
        }
        let x = random(&[batch, side, side, channels], dtype, device)?;
        let parameters = layers(channels, dtype, device)?;
        let norm = GroupNorm::new(groups, channels, 1e-5, vb(&parameters, dtype, device))?;
        let [weight, bias] = &parameters;
        for silu in [false, true] {
            let found = if silu { norm.forward_silu(&x)? } else { norm.forward(&x)? };
            let expected =
                reference::group_norm(&on_cpu(&x)?, &on_cpu(weight)?, &on_cpu(bias)?, groups, 1e-5, silu)?;
            checker.compare(&format!("group norm {:?}, silu {silu}", x.dims()), dtype, &found, &expected)?;
        }
        let shift = random(&[batch, channels], dtype, device)?;
        let found = norm.forward_shifted_silu(&x, &shift)?;
        let x = fused_ops::shift_channels(&on_cpu(&x)?, &on_cpu(&shift)?)?;
        let expected = reference::group_norm(&x, &on_cpu(weight)?, &on_cpu(bias)?, groups, 1e-5, true)?;
        checker.compare(&format!("shifted group norm {:?}", x.dims()), dtype, &found, &expected)?;
    }
    for (rows, size) in [(8192, 320), (616, 1024), (3, 1280), (1, 8), (7, 264), (2, 2048)] {
        if small && rows > 8 {
            continue;
        }
        let x = random(&[rows, size], dtype, device)?;
        let parameters = layers(size, dtype, device)?;
        let [weight, bias] = &parameters;
        let norm = LayerNorm::new(size, 1e-5, vb(&parameters, dtype, device))?;
        let found = norm.forward(&x)?;
        let expected = reference::layer_norm(&on_cpu(&x)?, &on_cpu(weight)?, &on_cpu(bias)?, 1e-5)?;
        checker.compare(&format!("layer norm {:?}", x.dims()), dtype, &found, &expected)?;
        // Behind a product that changes nothing, so that what is known of it is exact.
        let identity = Tensor::eye(size, dtype, device)?;
        let (residual, added) = (random(&[rows, size], dtype, device)?, random(&[size], dtype, device)?);
        let linear = Linear::from_tensors(identity, Some(added.clone()))?;
        let [sum, found] = linear.forward_then_norm(&x, &residual, &norm)?;
        let alone = linear.forward_normalised(&x, &residual, &norm)?;
        let x = (on_cpu(&x)?.broadcast_add(&on_cpu(&added)?)? + on_cpu(&residual)?)?;
        let expected = reference::layer_norm(&x, &on_cpu(weight)?, &on_cpu(bias)?, 1e-5)?;
        checker.compare(&format!("sum before layer norm {:?}", x.dims()), dtype, &sum, &x)?;
        checker.compare(&format!("layer norm of a sum {:?}", x.dims()), dtype, &found, &expected)?;
        checker.compare(&format!("layer norm of a sum alone {:?}", x.dims()), dtype, &alone, &expected)?;
    }
    Ok(())
}

fn check_elementwise(checker: &mut Checker, dtype: DType, device: &Device) -> Result<()> {
    let x = random(&[2, 77, 2560], dtype, device)?;
    checker.compare("geglu", dtype, &geglu(&x)?, &reference::geglu(&f64_on_cpu(&x)?)?)?;
    let found = fused_ops::quick_gelu(&x)?;
    let wide = f64_on_cpu(&x)?;
    let expected = (&wide / ((&wide * -1.702)?.exp()? + 1.)?)?;
    checker.compare("quick gelu", dtype, &found, &expected)?;

    let timesteps = Tensor::new(&[0f32, 1., 501., 999.], &Device::Cpu)?;
    let sinusoids = Sinusoids { channels: 320, flip_sin_to_cos: true, freq_shift: 0. };
    let found = timestep_embedding(&timesteps.to_device(device)?, sinusoids, dtype)?;
    let expected = reference::timestep_embedding(&timesteps, sinusoids, DType::F32)?;
    checker.compare("timestep embedding", dtype, &found, &expected)?;

    let output = random(&[4, 64, 64, 4], dtype, device)?;
    let sample = random(&[2, 4, 64, 64], DType::F32, device)?;
    let history: Vec<_> =
        (0..3).map(|_| random(&[2, 4, 64, 64], DType::F32, device)).collect::<Result<_>>()?;
    let coefficients = Tensor::new(&[7.5f32, 0.98, -0.4, 0.3, -0.2, 0.1, 0.9], device)?;
    let step = LinearStep {
        coefficients: &coefficients,
        history: &history.iter().collect::<Vec<_>>(),
        guided: true,
    };
    let found = step.apply(&output, &sample)?;
    let cpu = Device::Cpu;
    let history = history.iter().map(|earlier| earlier.to_device(&cpu)).collect::<Result<Vec<_>>>()?;
    let step = LinearStep {
        coefficients: &coefficients.to_device(&cpu)?,
        history: &history.iter().collect::<Vec<_>>(),
        guided: true,
    };
    let expected = reference::linear_step(&step, &output.to_device(&cpu)?, &sample.to_device(&cpu)?)?;
    checker.compare("linear step, sample", dtype, &found.sample, &expected.sample)?;
    checker.compare("linear step, output", dtype, &found.output, &expected.output)?;
    checker.compare("linear step, model input", dtype, &found.model_input, &expected.model_input)?;

    let expected = reference::to_bytes(&x.to_device(&cpu)?)?;
    checker.compare("bytes", dtype, &to_bytes(&x)?, &expected)
}

/// Different inputs that take turns, so that what was read before is not in the cache: 6 of the largest are 94 MB.
const INPUT_SETS: usize = 6;
/// Runs of all the input sets between two events, and how often that is measured.
const TURNS: usize = 4;
const MEASUREMENTS: usize = 15;

/// Milliseconds of one run on the device, on average between two CUDA events; the median of several measurements. The runs
/// are one CUDA graph, so that nothing waits for the host.
fn milliseconds(device: &Device, run: impl Fn(usize) -> Result<Tensor> + Send + 'static) -> Result<f64> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let event = || {
        let timed = candle_core::cuda::cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
        stream.record_event(Some(timed)).map_err(candle_core::Error::wrap)
    };
    let (all, _) = Recording::new(move || {
        for i in 1..TURNS * INPUT_SETS {
            run(i % INPUT_SETS)?;
        }
        // A recording hands out a copy of its result: not of all of it.
        run(0)?.flatten_all()?.narrow(0, 0, 8)
    })?;
    all.replay()?;
    let mut times = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        let begin = event()?;
        all.replay()?;
        let end = event()?;
        let milliseconds = begin.elapsed_ms(&end).map_err(candle_core::Error::wrap)?;
        times.push(f64::from(milliseconds) / (TURNS * INPUT_SETS) as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[MEASUREMENTS / 2])
}

/// Prints a line for `scripts/compare-kernels.py`, which does the same in PyTorch: `what` is the operation with its shape.
fn report(
    misses: &Misses,
    what: &str,
    dtype: DType,
    milliseconds: f64,
    flops: f64,
    bytes: f64,
) -> Result<()> {
    if misses.0.swap(0, Ordering::Relaxed) > 0 {
        candle_core::bail!("not its kernel ran for {what}");
    }
    let dtype = name(dtype);
    println!(
        r#"{{{what}, "dtype": "{dtype}", "ms": {milliseconds:.6}, "flops": {flops:.0}, "bytes": {bytes:.0}}}"#
    );
    Ok(())
}

fn sets(shape: &[usize], dtype: DType, device: &Device) -> Result<Vec<Tensor>> {
    (0..INPUT_SETS).map(|_| random(shape, dtype, device)).collect()
}

fn time_attention(device: &Device, misses: &Misses) -> Result<()> {
    let hopper = std::env::var_os("FUSED_OPS_ATTENTION").is_some_and(|way| way == "hopper");
    // What takes the usual kernels is timed without the variable.
    let takes_hopper = |shape: &Shape| matches!(shape.head_dim, 40 | 64) && shape.keys > 80;
    for dtype in DTYPES {
        let shapes = MODEL_SHAPES.into_iter().filter(|shape| !hopper || takes_hopper(shape));
        for Shape { batch, queries, keys, heads, head_dim } in shapes {
            let width = heads * head_dim;
            let query = sets(&[batch, queries, width], dtype, device)?;
            let key = sets(&[batch, keys, width], dtype, device)?;
            let value = sets(&[batch, keys, width], dtype, device)?;
            let time = milliseconds(device, move |i| attention(&query[i], &key[i], &value[i], heads, None))?;
            let what = format!(
                r#""op": "attention", "batch": {batch}, "queries": {queries}, "keys": {keys}, "heads": {heads}, "head_dim": {head_dim}, "hopper": {hopper}"#
            );
            let flops = (4 * batch * queries * keys * width) as f64;
            let bytes = (2 * batch * (2 * queries + 2 * keys) * width) as f64;
            report(misses, &what, dtype, time, flops, bytes)?;
        }
    }
    Ok(())
}

fn time_convolutions(device: &Device, misses: &Misses) -> Result<()> {
    let whose = std::env::var("FUSED_OPS_CONVOLUTION").unwrap_or_else(|_| "default".to_owned());
    for dtype in DTYPES {
        for window in MODEL_WINDOWS {
            let Window { batch, side, channels, out_channels, kernel, upsample, .. } = window;
            let x = sets(&[batch, side, side, channels], dtype, device)?;
            let layer = window.layer(&window.parameters(dtype, device)?, dtype, device)?;
            let time = milliseconds(device, move |i| layer.forward(&x[i]))?;
            let what = format!(
                r#""op": "conv2d", "batch": {batch}, "side": {side}, "channels": {channels}, "out_channels": {out_channels}, "kernel": {kernel}, "upsample": {upsample}, "whose": "{whose}"#
            );
            // Of a doubled picture's nine taps, those on the same pixel can be one.
            let (places, taps) = if upsample { (4, 4) } else { (1, kernel * kernel) };
            let (pixels, weights) = (batch * side * side, taps * channels * out_channels);
            let flops = (2 * pixels * places * weights) as f64;
            let bytes = (2 * (pixels * channels + pixels * places * out_channels + weights)) as f64;
            report(misses, &what, dtype, time, flops, bytes)?;
        }
    }
    Ok(())
}

fn time_others(device: &Device, misses: &Misses) -> Result<()> {
    for dtype in DTYPES {
        for (batch, side, channels) in [(2, 64, 320), (2, 32, 640), (2, 16, 1280), (1, 512, 128)] {
            let x = sets(&[batch, side, side, channels], dtype, device)?;
            let norm =
                GroupNorm::new(32, channels, 1e-5, vb(&layers(channels, dtype, device)?, dtype, device))?;
            let time = milliseconds(device, move |i| norm.forward_silu(&x[i]))?;
            let what = format!(
                r#""op": "group_norm_silu", "batch": {batch}, "side": {side}, "channels": {channels}"#
            );
            report(misses, &what, dtype, time, 0., (4 * batch * side * side * channels) as f64)?;
        }
        // Queries, keys and values of XLM-R large, and the ends of its feed-forward and of the UNet's.
        for [rows, in_features, out_features, residual] in
            [[1400, 1024, 3072, 0], [4928, 1024, 3072, 0], [4928, 4096, 1024, 1], [8192, 1280, 320, 1]]
        {
            let x = sets(&[rows, in_features], dtype, device)?;
            let weight = random(&[out_features, in_features], dtype, device)?;
            let layer = Linear::from_tensors(weight, Some(random(&[out_features], dtype, device)?))?;
            let added = (residual == 1).then(|| sets(&[rows, out_features], dtype, device)).transpose()?;
            let time = milliseconds(device, move |i| {
                let residual = added.as_ref().map(|added| &added[i]);
                layer.forward_with(&x[i], &Epilogue { residual, ..Epilogue::default() })
            })?;
            let what = format!(
                r#""op": "linear", "rows": {rows}, "in_features": {in_features}, "out_features": {out_features}, "residual": {residual}"#
            );
            let flops = (2 * rows * in_features * out_features) as f64;
            let weights = in_features * out_features;
            let bytes = (2 * (rows * in_features + (1 + residual) * rows * out_features + weights)) as f64;
            report(misses, &what, dtype, time, flops, bytes)?;
        }
        for (rows, size) in [(8192, 320), (2048, 640), (512, 1280), (1024, 1024)] {
            let x = sets(&[rows, size], dtype, device)?;
            let norm = LayerNorm::new(size, 1e-5, vb(&layers(size, dtype, device)?, dtype, device))?;
            let time = milliseconds(device, move |i| norm.forward(&x[i]))?;
            let what = format!(r#""op": "layer_norm", "rows": {rows}, "size": {size}"#);
            report(misses, &what, dtype, time, 0., (4 * rows * size) as f64)?;
        }
        for (rows, columns) in [(8192, 1280), (2048, 2560), (512, 5120)] {
            let x = sets(&[rows, 2 * columns], dtype, device)?;
            let time = milliseconds(device, move |i| geglu(&x[i]))?;
            let what = format!(r#""op": "geglu", "rows": {rows}, "columns": {columns}"#);
            report(misses, &what, dtype, time, 0., (6 * rows * columns) as f64)?;
        }
    }
    Ok(())
}
