//! Checks every kernel on the CPU against f64, or f32 where that is accurate enough.

use crate::misses::Misses;
use crate::shapes::{
    AttentionShape, DTYPES, MODEL_SHAPES, MODEL_WINDOWS, SMALL_WINDOWS, Window, f64_on_cpu, layers, name,
    odd_shapes, random, unit, vb, window,
};
use candle_core::{D, DType, Device, Result, Tensor};
use fused_ops::{
    Activation, Epilogue, GroupNorm, LayerNorm, Linear, LinearStep, Recording, Sequences, Sinusoids,
    attention, causal_attention, geglu, packed_attention, reference, timestep_embedding, to_bytes,
};
use std::sync::Arc;

/// Attention in f64 on the CPU, one head at a time to save memory.
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

/// Counts and prints results too far from f64.
pub(crate) struct Checker<'a> {
    misses: &'a Misses,
    checked: usize,
    failed: usize,
}

impl Checker<'_> {
    /// Checks that ‖found − expected‖ / ‖expected‖ is at most two roundings to the type: one of the weights or terms,
    /// and one of the result.
    fn compare(&mut self, what: &str, dtype: DType, found: &Tensor, expected: &Tensor) -> Result<()> {
        let (found, expected) = (f64_on_cpu(found)?.flatten_all()?, f64_on_cpu(expected)?.flatten_all()?);
        let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>();
        let error = (norm(&(&found - &expected)?)? / norm(&expected)?).sqrt();
        let missed = self.misses.take();
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

pub(crate) fn check(
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

fn check_attention_of(
    checker: &mut Checker,
    shape: AttentionShape,
    dtype: DType,
    device: &Device,
) -> Result<()> {
    let AttentionShape { batch, queries, keys, heads, head_dim } = shape;
    let width = heads * head_dim;
    // Parts of one projection's output, as the kernels read them.
    let query = random(&[batch, queries, width], dtype, device)?;
    let both = random(&[batch, keys, 2 * width], dtype, device)?;
    let (key, value) = (both.narrow(2, 0, width)?, both.narrow(2, width, width)?);
    let inputs = [&query, &key, &value];
    let bias = random(&[batch, keys], DType::F32, device)?;
    // Millions of scores in f64 are slow: check only one bias for those.
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

pub(crate) fn check_everything(
    checker: &mut Checker,
    small: bool,
    dtype: DType,
    device: &Device,
) -> Result<()> {
    check_attention(checker, small, dtype, device)?;
    check_recording(checker, dtype, device)?;
    check_conv2d(checker, small, dtype, device)?;
    check_linear(checker, small, dtype, device)?;
    check_normalisations(checker, small, dtype, device)?;
    check_elementwise(checker, dtype, device)
}

pub(crate) fn check_attention(
    checker: &mut Checker,
    small: bool,
    dtype: DType,
    device: &Device,
) -> Result<()> {
    let more = if small { &[][..] } else { &MODEL_SHAPES };
    for shape in odd_shapes().chain(more.iter().copied()) {
        check_attention_of(checker, shape, dtype, device)?;
    }
    check_packed(checker, dtype, device)
}

/// A recording must compute what its operations do, also on new values.
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

/// Compared with f16, sums of thousands of products in f32 are as good as in f64.
pub(crate) fn check_conv2d(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
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

/// Linear layers, (rows, in, out), with their epilogues.
fn check_linear(checker: &mut Checker, small: bool, dtype: DType, device: &Device) -> Result<()> {
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
        // Rows aligned to 16 bytes, but no more.
        let some = x.narrow(0, rows / 2, rows - rows / 2)?;
        let expected = biased.narrow(0, rows / 2, rows - rows / 2)?;
        checker.compare(&what(", some rows"), dtype, &layer.forward(&some)?, &expected)?;
    }
    Ok(())
}

/// The deviation is computed from thousands of values; compared with f16, f32 on the CPU is as good as f64.
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
        // After an identity product, so that the exact result is known.
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
