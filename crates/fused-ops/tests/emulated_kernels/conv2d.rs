//! Tests the convolution kernels at the windows of the UNet, the VAE and the image tower, and at sizes that no tile
//! divides.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::conv2d::Conv2dOperands;
use crate::launch::description::Element;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_each_rounded, random, tensor};
use candle_core::Tensor;
use fused_ops::{Activation, Conv2dOptions, Padding, reference, shift_channels};
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    out_channels: usize,
    kernel: usize,
    options: Conv2dOptions,
    /// Multiprocessors of the emulated device: few lead to large tiles, many to split depths.
    multiprocessors: usize,
}

impl Case {
    fn new([batch, height, width]: [usize; 3], [channels, out_channels]: [usize; 2], kernel: usize) -> Self {
        let padding = Padding::same(kernel / 2);
        let options = Conv2dOptions { padding, ..Conv2dOptions::default() };
        Self { batch, height, width, channels, out_channels, kernel, options, multiprocessors: 132 }
    }
}

/// The convolution's epilogue.
#[derive(Debug, Clone, Copy)]
struct After {
    bias: bool,
    shift: bool,
    residual: bool,
    activation: Option<Activation>,
}

const NOTHING: After = After { bias: false, shift: false, residual: false, activation: None };
const EVERYTHING: After =
    After { bias: true, shift: true, residual: true, activation: Some(Activation::Silu) };

/// Splits weights (out, 3, 3, channels) into the four phases of a doubled image, (4, out, 2, 2, channels), by adding
/// each tap to that of its pixel.
fn phases<T: Value>(weights: &[T], out_channels: usize, channels: usize) -> Vec<T> {
    let mut sums = vec![0f32; 4 * out_channels * 4 * channels];
    for phase in 0..4 {
        for (i, weight) in weights.iter().enumerate() {
            let (channel, tap, out) = (i % channels, i / channels % 9, i / channels / 9);
            // From the pixel of the doubled image that a tap reads to the pixel of the original.
            let pixel = |tap: usize, phase: usize| (phase + tap).div_ceil(2) - phase;
            let (y, x) = (pixel(tap / 3, phase / 2), pixel(tap % 3, phase % 2));
            sums[(((phase * out_channels + out) * 2 + y) * 2 + x) * channels + channel] += weight.to_f32();
        }
    }
    sums.into_iter().map(T::from_f32).collect()
}

/// Runs a case, and returns the names of the kernels that ran.
fn check<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    case: Case,
    after: After,
    seed: u64,
) -> Result<Vec<String>, Failure> {
    let Case { batch, height, width, channels, out_channels, kernel, options, multiprocessors } = case;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let depth = kernel * kernel * channels;
    let pixels = random::<T>(&mut rng, batch * height * width * channels, 1.5);
    // As large as in a trained layer, so that results are about 1.
    let mut weights = random::<T>(&mut rng, out_channels * depth, 1.5 / (depth as f32).sqrt());
    let mut read_weights = weights.clone();
    if options.upsample {
        // Multiples of 1 / 64, so that sums of four are exact.
        weights.iter_mut().for_each(|weight| *weight = T::from_f32((weight.to_f32() * 64.).round() / 64.));
        read_weights = phases(&weights, out_channels, channels);
    }
    let x = tensor(&pixels, &[batch, height, width, channels])?;
    let weight = tensor(&weights, &[out_channels, kernel, kernel, channels])?.permute((0, 3, 1, 2))?;
    let convolve = |x: &Tensor, weight: &Tensor| reference::conv2d(x, &weight.contiguous()?, None, options);
    let mut expected = convolve(&x, &weight)?;
    // The magnitude of the terms of each value.
    let mut size = convolve(&x.abs()?, &weight.abs()?)?;
    let (_, out_height, out_width, _) = expected.dims4()?;
    let rows = batch * out_height * out_width;

    let bias = random::<T>(&mut rng, out_channels, 1.);
    let shift = random::<T>(&mut rng, batch * out_channels, 1.);
    let residual = random::<T>(&mut rng, rows * out_channels, 1.);
    let read = [&pixels, &read_weights, &bias, &shift, &residual];
    let names = ["x", "weight", "bias", "shift", "residual"];
    let [x, w, b, s, r] = std::array::from_fn(|i| Buffer::input(names[i], read[i]));
    let out = Buffer::output::<T>("out", rows * out_channels);
    let op = Conv2dOperands {
        element,
        batch,
        height,
        width,
        channels,
        out_height,
        out_width,
        out_channels,
        kernel,
        stride: options.stride,
        top: options.padding.top,
        left: options.padding.left,
        upsample: options.upsample,
        x: x.address(),
        weight: w.address(),
        bias: after.bias.then(|| b.address()),
        shift: after.shift.then(|| s.address()),
        residual: after.residual.then(|| r.address()),
        activation: after.activation,
        out: out.address(),
    };
    let partial = Buffer::output::<f32>("partial", op.partial_len(multiprocessors));
    let what = format!("{element} {case:?} {after:?}");
    let (product, sum) = op.launches(partial.address(), multiprocessors).map_err(|reason| reason.0)?;
    let buffers = [&x, &w, &b, &s, &r, &out, &partial];
    let mut ran = Vec::new();
    for launch in [Some(product), sum].into_iter().flatten() {
        emulator
            .run(&launch, &buffers, seed)
            .map_err(|error| format!("{what}: {}: {error}", launch.kernel))?;
        ran.push(launch.kernel);
    }

    if after.bias {
        expected = expected.broadcast_add(&tensor(&bias, &[out_channels])?)?;
    }
    if after.shift {
        expected = shift_channels(&expected, &tensor(&shift, &[batch, out_channels])?)?;
    }
    if after.residual {
        expected = (&expected + tensor(&residual, expected.dims())?)?;
    }
    if after.activation == Some(Activation::Silu) {
        expected = expected.silu()?;
    }
    size = (size + 3.)?;
    assert_each_rounded(&what, &out.to_f32::<T>(), &expected, unit, &size)?;
    Ok(ran)
}

#[test]
fn convolutions() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    let downsample = Conv2dOptions { stride: 2, ..Case::new([0; 3], [0; 2], 3).options };
    let asymmetric =
        Conv2dOptions { padding: Padding { top: 0, left: 0, bottom: 1, right: 1 }, ..downsample };
    let upsample = Conv2dOptions { upsample: true, ..Case::new([0; 3], [0; 2], 3).options };
    let patches = Conv2dOptions { stride: 14, padding: Padding::same(0), upsample: false };
    let few = |case: Case| Case { multiprocessors: 1, ..case };
    let with = |case: Case, options: Conv2dOptions| Case { options, ..case };
    let cases = [
        // Sizes that nothing divides, and a single pixel.
        Case::new([2, 9, 7], [40, 24], 3),
        Case::new([1, 1, 1], [8, 8], 3),
        Case::new([1, 5, 3], [24, 26], 1),
        // The first layer, with channels padded to 8, and the last layers of the UNet and the VAE.
        Case::new([1, 8, 8], [8, 96], 3),
        Case::new([2, 6, 5], [32, 4], 3),
        Case::new([1, 9, 9], [16, 3], 3),
        // Strides, padding and doubling.
        with(Case::new([2, 8, 6], [32, 32], 3), downsample),
        with(Case::new([1, 7, 9], [16, 40], 3), asymmetric),
        with(Case::new([2, 4, 3], [24, 40], 3), upsample),
        with(Case::new([1, 1, 1], [8, 8], 3), upsample),
        with(few(Case::new([2, 9, 8], [16, 160], 3)), upsample),
        with(Case::new([1, 2, 3], [320, 64], 3), upsample),
        with(Case::new([1, 28, 28], [8, 16], 14), patches),
        // Every tile.
        few(Case::new([1, 11, 11], [40, 160], 3)),
        few(Case::new([2, 5, 25], [24, 310], 1)),
        few(Case::new([1, 11, 11], [40, 128], 3)),
        few(Case::new([1, 11, 11], [16, 330], 1)),
        few(Case::new([2, 8, 8], [64, 64], 1)),
        // Large depth and few pixels: blocks share a tile.
        Case::new([1, 4, 4], [320, 64], 3),
        Case::new([2, 2, 2], [640, 72], 1),
    ];
    let mut ran = BTreeSet::new();
    for case in cases {
        for after in [NOTHING, After { bias: true, ..NOTHING }, EVERYTHING] {
            ran.extend(check::<f16>(emulator, Element::F16, F16_UNIT, case, after, seed)?);
        }
        ran.extend(check::<bf16>(emulator, Element::Bf16, BF16_UNIT, case, EVERYTHING, seed)?);
    }
    let all = ["f16", "bf16"]
        .into_iter()
        .flat_map(|element| ["wide", "large", "small", "sum"].map(|tile| format!("conv2d_{tile}_{element}")));
    assert_eq!(ran, all.collect(), "the kernels that ran");
    Ok(())
}
