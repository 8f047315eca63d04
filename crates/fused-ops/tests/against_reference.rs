//! Tests every fused operation and every gradient of it against the reference, on random input.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use fused_ops::{
    Activation, Conv2d, Conv2dOptions, Epilogue, GroupNorm, LayerNorm, Linear, Padding, Sequences, attention,
    causal_attention, packed_attention, reference,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::io::Write;

/// f32 sums of a few thousand products of order one, in another order: a few hundred units of 2⁻²⁴ at most.
const TOLERANCE: f64 = 1e-5;

fn random(rng: &mut impl Rng, shape: &[usize]) -> Result<Var> {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.random_range(-1f32..1.)).collect();
    Var::from_vec(values, shape, &Device::Cpu)
}

fn relative_error(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm(&(&a - &b)?)? / norm(&b)?.max(1e-12)).sqrt())
}

fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) -> Result<()> {
    let error = relative_error(a, b)?;
    assert!(error <= tolerance, "{what}: relative error {error:.2e}");
    Ok(())
}

/// Compares results and the gradients of all `inputs` under a random weighting of the result.
fn compare(
    what: &str,
    rng: &mut impl Rng,
    inputs: &[&Var],
    fused: impl Fn() -> Result<Tensor>,
    reference: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    let (a, b) = (fused()?, reference()?);
    assert_close(what, &a, &b, TOLERANCE)?;
    let weighting = random(rng, b.dims())?;
    let (a, b) = ((a * weighting.as_tensor())?.sum_all()?, (b * weighting.as_tensor())?.sum_all()?);
    let (a, b) = (a.backward()?, b.backward()?);
    for (i, input) in inputs.iter().enumerate() {
        let (a, b) = (a.get(input), b.get(input));
        let (Some(a), Some(b)) = (a, b) else { panic!("{what}: no gradient for input {i}") };
        assert_close(&format!("{what}, gradient {i}"), a, b, 4. * TOLERANCE)?;
    }
    Ok(())
}

fn vb(tensors: &[(&str, &Tensor)]) -> VarBuilder<'static> {
    let map: HashMap<String, Tensor> = tensors.iter().map(|(k, v)| (k.to_string(), (*v).clone())).collect();
    VarBuilder::from_tensors(map, DType::F32, &Device::Cpu)
}

#[test]
fn linear_and_its_gradients() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (rows, inputs, outputs) in
        [(1, 1, 1), (2, 3, 5), (77, 64, 128), (15, 40, 33), (200, 37, 16), (13, 320, 48), (1030, 24, 17)]
    {
        let x = random(&mut rng, &[rows, inputs])?;
        let (w, b) = (random(&mut rng, &[outputs, inputs])?, random(&mut rng, &[outputs])?);
        let trained = Linear::new(inputs, outputs, true, vb(&[("weight", &w), ("bias", &b)]))?;
        let what = format!("linear {rows}×{inputs}→{outputs}");
        let reference = || reference::linear(&x, &w, Some(&b));
        compare(&what, &mut rng, &[&x, &w, &b], || trained.forward(&x), reference)?;
        let (w, b) = (w.detach(), b.detach());
        let frozen = Linear::new(inputs, outputs, true, vb(&[("weight", &w), ("bias", &b)]))?;
        compare(&what, &mut rng, &[&x], || frozen.forward(&x), || reference::linear(&x, &w, Some(&b)))?;
    }
    Ok(())
}

#[test]
fn convolution_and_its_gradients() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let same = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
    let stride = Conv2dOptions { stride: 2, ..same };
    let asymmetric =
        Conv2dOptions { stride: 2, padding: Padding { bottom: 1, right: 1, ..Default::default() }, ..same };
    let upsample = Conv2dOptions { upsample: true, ..same };
    let point = Conv2dOptions::default();
    for (batch, height, width, inputs, outputs, kernel, options) in [
        (1, 1, 1, 1, 1, 3, same),
        (2, 5, 7, 3, 5, 3, same),
        (1, 9, 6, 16, 32, 3, same),
        (3, 8, 8, 64, 50, 3, same),
        // Large enough for Winograd's algorithm, in both directions.
        (4, 8, 8, 96, 130, 3, same),
        (2, 4, 8, 96, 100, 3, upsample),
        (2, 8, 6, 20, 24, 3, stride),
        (1, 7, 9, 8, 16, 3, stride),
        (2, 8, 8, 12, 16, 3, asymmetric),
        (2, 4, 3, 24, 40, 3, upsample),
        (2, 6, 5, 36, 17, 1, point),
        (1, 16, 16, 3, 24, 8, Conv2dOptions { stride: 8, ..point }),
    ] {
        let x = random(&mut rng, &[batch, height, width, inputs])?;
        let w = random(&mut rng, &[outputs, inputs, kernel, kernel])?;
        let b = random(&mut rng, &[outputs])?;
        let what = format!("convolution {batch}×{height}×{width}×{inputs}→{outputs} {kernel} {options:?}");
        let trained = Conv2d::new(inputs, outputs, kernel, options, vb(&[("weight", &w), ("bias", &b)]))?;
        let reference = || reference::conv2d(&x, &w, Some(&b), options);
        compare(&what, &mut rng, &[&x, &w, &b], || trained.forward(&x), reference)?;
        let (w, b) = (w.detach(), b.detach());
        let frozen = Conv2d::new(inputs, outputs, kernel, options, vb(&[("weight", &w), ("bias", &b)]))?;
        let reference = || reference::conv2d(&x, &w, Some(&b), options);
        compare(&what, &mut rng, &[&x], || frozen.forward(&x), reference)?;
    }
    Ok(())
}

#[test]
fn normalisations_and_their_gradients() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (batch, pixels, channels, groups) in
        [(1, 1, 16, 2), (2, 35, 24, 8), (3, 64, 32, 32), (1, 100, 320, 32), (2, 257, 16, 1)]
    {
        let x = random(&mut rng, &[batch, pixels, channels])?;
        let (w, b) = (random(&mut rng, &[channels])?, random(&mut rng, &[channels])?);
        let group = GroupNorm::new(groups, channels, 1e-5, vb(&[("weight", &w), ("bias", &b)]))?;
        let layer = LayerNorm::new(channels, 1e-5, vb(&[("weight", &w), ("bias", &b)]))?;
        let inputs = [&x, &w, &b];
        let what = format!("{batch}×{pixels}×{channels}, {groups} groups");
        let reference = |silu| reference::group_norm(&x, &w, &b, groups, 1e-5, silu);
        compare(&format!("group norm {what}"), &mut rng, &inputs, || group.forward(&x), || reference(false))?;
        compare(
            &format!("with silu {what}"),
            &mut rng,
            &inputs,
            || group.forward_silu(&x),
            || reference(true),
        )?;
        let reference = || reference::layer_norm(&x, &w, &b, 1e-5);
        compare(&format!("layer norm {what}"), &mut rng, &inputs, || layer.forward(&x), reference)?;
    }
    Ok(())
}

#[test]
fn a_mean_far_from_zero_costs_no_precision() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let x = (random(&mut rng, &[1, 1000, 8])?.as_tensor() + 500.)?;
    let ones = Tensor::ones(8, DType::F32, &Device::Cpu)?;
    let zeros = Tensor::zeros(8, DType::F32, &Device::Cpu)?;
    let norm = GroupNorm::new(2, 8, 1e-5, vb(&[("weight", &ones), ("bias", &zeros)]))?;
    let x64 = x.to_dtype(DType::F64)?.reshape((1000, 2, 4))?;
    let centred = x64.broadcast_sub(&x64.mean_keepdim(2)?.mean_keepdim(0)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(2)?.mean_keepdim(0)? + 1e-5)?.sqrt()?;
    let expected = centred.broadcast_div(&deviation)?.reshape((1, 1000, 8))?;
    // Subtracting the mean of 500 from values of 500 ± 1 loses 2⁻²⁴ · 500 of an absolute size of 0.6.
    assert_close("group norm", &norm.forward(&x)?, &expected, 1e-4)
}

#[test]
fn attention_and_its_gradients() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (batch, queries, keys, heads, head_dim) in [
        (1, 1, 1, 1, 1),
        (2, 15, 16, 2, 40),
        (1, 64, 77, 8, 80),
        (2, 17, 300, 1, 160),
        (1, 65, 257, 3, 64),
        (3, 2, 4, 2, 20),
    ] {
        let q = random(&mut rng, &[batch, queries, heads * head_dim])?;
        let k = random(&mut rng, &[batch, keys, heads * head_dim])?;
        let v = random(&mut rng, &[batch, keys, heads * head_dim])?;
        let bias = random(&mut rng, &[batch, keys])?.detach();
        for bias in [None, Some(&bias)] {
            let what = format!("attention {batch}×{queries}×{keys}, {heads} heads of {head_dim}");
            let fused = || attention(&q, &k, &v, heads, bias);
            let reference = || reference::attention(&q, &k, &v, heads, bias);
            compare(&what, &mut rng, &[&q, &k, &v], fused, reference)?;
            let fused = || causal_attention(&q, &k, &v, heads, bias);
            let reference = || reference::causal_attention(&q, &k, &v, heads, bias);
            compare(&format!("causal {what}"), &mut rng, &[&q, &k, &v], fused, reference)?;
        }
    }
    Ok(())
}

/// What comes later changes nothing, neither in this tile of keys nor in the next.
#[test]
fn causal_attention_does_not_look_ahead() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let all = random(&mut rng, &[1, 300, 32])?.detach();
    let expected = causal_attention(&all, &all, &all, 4, None)?;
    for rows in [1, 7, 48, 49, 257] {
        let first = all.narrow(1, 0, rows)?;
        let found = causal_attention(&first, &first, &first, 4, None)?;
        assert_close("first rows", &found, &expected.narrow(1, 0, rows)?, 1e-6)?;
    }
    let alone = expected.narrow(1, 0, 1)?;
    assert_close("the first row is its own value", &alone, &all.narrow(1, 0, 1)?, 1e-6)
}

/// A hidden key changes nothing, and a key biased by ln m counts as m keys.
/// With and without something added to the scores; a sequence of no rows is one of none.
#[test]
fn packed_sequences_attend_to_themselves_alone() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let lengths = vec![3, 1, 17, 0, 6];
    let [query, key, value] =
        [random(&mut rng, &[27, 32])?, random(&mut rng, &[27, 32])?, random(&mut rng, &[27, 32])?];
    let bias = random(&mut rng, &[27])?;
    for bias in [None, Some(bias.as_tensor())] {
        let sequences = Sequences::new(lengths.clone(), bias, &Device::Cpu)?;
        let found = packed_attention(&query, &key, &value, 4, &sequences)?;
        let mut first = 0;
        for &length in lengths.iter().filter(|&&length| length > 0) {
            let part = |x: &Tensor| x.narrow(0, first, length)?.unsqueeze(0);
            let bias = bias.map(part).transpose()?;
            let alone = attention(&part(&query)?, &part(&key)?, &part(&value)?, 4, bias.as_ref())?;
            assert_close(&format!("{length} rows at {first}"), &part(&found)?, &alone, 0.)?;
            first += length;
        }
        compare(
            "packed attention",
            &mut rng,
            &[&query, &key, &value],
            || packed_attention(&query, &key, &value, 4, &sequences),
            || reference::packed_attention(&query, &key, &value, 4, &sequences),
        )?;
    }
    let error = |lengths: &[usize], heads| {
        let sequences = Sequences::new(lengths.to_vec(), None, &Device::Cpu)?;
        packed_attention(&query, &key, &value, heads, &sequences)
    };
    assert!(error(&[27, 1], 4).is_err());
    assert!(error(&[27], 5).is_err());
    assert!(Sequences::new(vec![26], Some(bias.as_tensor()), &Device::Cpu).is_err());
    Ok(())
}

#[test]
fn key_bias_hides_and_repeats() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let q = random(&mut rng, &[1, 9, 32])?.detach();
    let (k, v) = (random(&mut rng, &[1, 6, 32])?.detach(), random(&mut rng, &[1, 6, 32])?.detach());
    let repeat = |x: &Tensor| -> Result<Tensor> {
        let last = x.narrow(1, 4, 1)?;
        Tensor::cat(&[&x.narrow(1, 0, 5)?, &last, &last], 1)
    };
    let expected = attention(&q, &repeat(&k)?, &repeat(&v)?, 4, None)?;
    let bias = Tensor::new(&[[0f32, 0., 0., 0., 3f32.ln(), f32::NEG_INFINITY]], &Device::Cpu)?;
    assert_close("bias", &attention(&q, &k, &v, 4, Some(&bias))?, &expected, 1e-6)
}

#[test]
fn activations_and_their_gradients() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let x = random(&mut rng, &[7, 46])?;
    let x = Var::from_tensor(&(x.as_tensor() * 6.)?)?;
    compare("gelu", &mut rng, &[&x], || fused_ops::gelu(&x), || x.gelu_erf())?;
    compare("silu", &mut rng, &[&x], || fused_ops::silu(&x), || x.silu())?;
    let quick = || x.as_tensor() * candle_nn::ops::sigmoid(&(x.as_tensor() * 1.702)?)?;
    compare("quick gelu", &mut rng, &[&x], || fused_ops::quick_gelu(&x), quick)?;
    compare("geglu", &mut rng, &[&x], || fused_ops::geglu(&x), || reference::geglu(&x))
}

#[test]
fn channel_shifts_and_their_gradients() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for (batch, height, width, channels) in [(1, 1, 1, 1), (3, 5, 7, 20), (2, 16, 16, 32)] {
        let x = random(&mut rng, &[batch, height, width, channels])?;
        let shift = random(&mut rng, &[batch, channels])?;
        let reference = || x.broadcast_add(&shift.reshape((batch, 1, 1, channels))?);
        compare("shift", &mut rng, &[&x, &shift], || fused_ops::shift_channels(&x, &shift), reference)?;
    }
    Ok(())
}

/// What follows a layer is the same whether its kernel does it or an operation of its own.
#[test]
fn epilogues() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let mut random = |shape: &[usize]| Ok::<_, candle_core::Error>(random(&mut rng, shape)?.detach());
    let options = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
    // The last is large enough for Winograd's algorithm.
    for (height, width, inputs, outputs) in [(3, 5, 7, 20), (6, 6, 33, 17), (30, 33, 96, 72)] {
        let x = random(&[2, height, width, inputs])?;
        let (w, b) = (random(&[outputs, inputs, 3, 3])?, random(&[outputs])?);
        let (matrix, shift) = (random(&[outputs, inputs])?, random(&[2, outputs])?);
        let residual = random(&[2, height, width, outputs])?;
        let conv = Conv2d::new(inputs, outputs, 3, options, vb(&[("weight", &w), ("bias", &b)]))?;
        let linear = Linear::from_tensors(matrix.clone(), Some(b.clone()))?;
        let plain =
            [reference::conv2d(&x, &w, Some(&b), options)?, reference::linear(&x, &matrix, Some(&b))?];
        for activation in [None, Some(Activation::Gelu), Some(Activation::QuickGelu), Some(Activation::Silu)]
        {
            let epilogue = Epilogue { shift: Some(&shift), residual: Some(&residual), activation };
            let found = [conv.forward_with(&x, &epilogue)?, linear.forward_with(&x, &epilogue)?];
            for (found, plain) in found.iter().zip(&plain) {
                let shifted = plain.broadcast_add(&shift.reshape((2, 1, 1, outputs))?)?;
                let sum = (shifted + &residual)?;
                let expected = match activation {
                    None => sum,
                    Some(Activation::Gelu) => sum.gelu_erf()?,
                    Some(Activation::QuickGelu) => (&sum * candle_nn::ops::sigmoid(&(&sum * 1.702)?)?)?,
                    Some(Activation::Silu) => sum.silu()?,
                };
                assert_close("epilogue", found, &expected, TOLERANCE)?;
            }
        }
        assert!(conv.forward_with(&x, &Epilogue::residual(&x)).is_err());
        assert!(linear.forward_with(&x, &Epilogue::shift(&residual)).is_err());
    }
    Ok(())
}

/// A layer whose kernel gates its own results gives what the layer and then the gate give, also where halves end inside a
/// panel and the kernel is not used, and while it is trained.
#[test]
fn gated_linear_layers() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    for (rows, inputs, inner) in
        [(1, 1, 16), (3, 5, 7), (97, 40, 48), (200, 33, 16), (5, 512, 64), (0, 8, 16)]
    {
        let x = random(&mut rng, &[rows, inputs])?;
        let (w, b) =
            (random(&mut rng, &[2 * inner, inputs])?.detach(), random(&mut rng, &[2 * inner])?.detach());
        for bias in [None, Some(b)] {
            let layer = Linear::from_tensors(w.clone(), bias.clone())?;
            let reference = || reference::geglu(&reference::linear(&x, &w, bias.as_ref())?);
            let what = format!("gated {rows}×{inputs}→{inner}");
            assert_close(&what, &layer.forward_geglu(&x.detach())?, &reference()?, TOLERANCE)?;
            compare(&what, &mut rng, &[&x], || layer.forward_geglu(&x), reference)?;
        }
    }
    Ok(())
}

/// Half-precision tensors are computed in f32 and rounded once.
#[test]
fn half_precision() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let (x, w) = (random(&mut rng, &[5, 64])?.detach(), random(&mut rng, &[32, 64])?.detach());
    for (dtype, unit) in [(DType::F16, 4.9e-4), (DType::BF16, 3.9e-3)] {
        let (x, w) = (x.to_dtype(dtype)?, w.to_dtype(dtype)?);
        let layer = Linear::from_tensors(w.clone(), None)?;
        let y = layer.forward(&x)?;
        assert_eq!(y.dtype(), dtype);
        let expected = reference::linear(&x.to_dtype(DType::F32)?, &w.to_dtype(DType::F32)?, None)?;
        assert_close("half", &y, &expected, unit)?;
    }
    Ok(())
}

/// Weights that are stored in half precision give what the same values give in f32, as far as sums differ by their order.
#[test]
fn short_weights_are_widened_exactly() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for dtype in [DType::F16, DType::BF16] {
        let mut short = |shape: &[usize]| random(&mut rng, shape)?.detach().to_dtype(dtype);
        let (matrix, kernel, bias) = (short(&[37, 50])?, short(&[21, 5, 3, 3])?, short(&[37])?);
        let (x, image) = (random(&mut rng, &[9, 50])?.detach(), random(&mut rng, &[2, 6, 7, 5])?.detach());
        let layer = Linear::from_tensors(matrix.clone(), Some(bias.clone()))?;
        let expected =
            reference::linear(&x, &matrix.to_dtype(DType::F32)?, Some(&bias.to_dtype(DType::F32)?))?;
        assert_close("linear", &layer.forward(&x)?, &expected, 1e-6)?;
        let options = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
        let layer = Conv2d::new_no_bias(5, 21, 3, options, vb(&[("weight", &kernel)]).set_dtype(dtype))?;
        let expected = reference::conv2d(&image, &kernel.to_dtype(DType::F32)?, None, options)?;
        assert_close("conv2d", &layer.forward(&image)?, &expected, 1e-6)?;
    }
    // A damaged weight stays visible: the quick way to widen f16 would make a number of it.
    let damaged = Tensor::new(&[[1f32, f32::INFINITY]], &Device::Cpu)?.to_dtype(DType::F16)?;
    let y = Linear::from_tensors(damaged, None)?.forward(&Tensor::new(&[[1f32, 1.]], &Device::Cpu)?)?;
    assert_eq!(y.to_vec2::<f32>()?, [[f32::INFINITY]]);
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// The widest instruction set of the machine is what runs; the others must be right as well.
#[test]
fn narrower_instruction_sets_pass_the_same_tests() {
    let name = "narrower_instruction_sets_pass_the_same_tests";
    for set in ["portable", "avx2"] {
        if set == "avx2" && !has_avx2() {
            // Written past what the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: this processor has no AVX2");
            continue;
        }
        let program = std::env::current_exe().expect("a test knows its program");
        let tests = std::process::Command::new(program)
            .args(["--skip", name, "--test-threads", "1"])
            .env("FUSED_OPS_INSTRUCTIONS", set)
            .output()
            .expect("a test can be run again");
        assert!(tests.status.success(), "{set}:\n{}", String::from_utf8_lossy(&tests.stdout));
    }
}

#[test]
fn wrong_shapes_are_errors() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let x = random(&mut rng, &[2, 3, 6])?.detach();
    assert!(attention(&x, &x, &x, 4, None).is_err());
    assert!(attention(&x, &x, &x, 0, None).is_err());
    let w = random(&mut rng, &[4, 5])?.detach();
    assert!(Linear::from_tensors(w, None)?.forward(&x).is_err());
    let row = random(&mut rng, &[6])?.detach();
    let linear = Linear::from_tensors(random(&mut rng, &[4, 6])?.detach(), None)?;
    assert_eq!(linear.forward(&row)?.dims(), [4], "a single row is an input as well");
    assert!(linear.forward_with(&row, &Epilogue::shift(&row)).is_err());
    assert!(GroupNorm::new(4, 6, 1e-5, vb(&[])).is_err());
    Ok(())
}
