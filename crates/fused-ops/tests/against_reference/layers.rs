//! Tests linear layers and convolutions with epilogues.

use crate::{TOLERANCE, compare};
use candle_core::{DType, Device, Error, Result, Tensor};
use fused_ops::{Activation, Conv2d, Conv2dOptions, Epilogue, LayerNorm, Linear, Padding, reference};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use std::time::Duration;
use test_support::{Random, assert_close, var_builder};

#[test]
fn linear_and_its_gradients() -> Result<()> {
    let mut random = Random::new(1);
    for (rows, inputs, outputs) in
        [(1, 1, 1), (2, 3, 5), (77, 64, 128), (15, 40, 33), (200, 37, 16), (13, 320, 48), (1030, 24, 17)]
    {
        let x = random.variable(&[rows, inputs]);
        let (w, b) = (random.variable(&[outputs, inputs]), random.variable(&[outputs]));
        let trained = Linear::new(inputs, outputs, true, var_builder(&[("weight", &w), ("bias", &b)]))?;
        let what = format!("linear {rows}×{inputs}→{outputs}");
        let reference = || reference::linear(&x, &w, Some(&b));
        compare(&what, &mut random, &[&x, &w, &b], || trained.forward(&x), reference)?;
        let (w, b) = (w.detach(), b.detach());
        let frozen = Linear::new(inputs, outputs, true, var_builder(&[("weight", &w), ("bias", &b)]))?;
        compare(&what, &mut random, &[&x], || frozen.forward(&x), || reference::linear(&x, &w, Some(&b)))?;
    }
    Ok(())
}

#[test]
fn convolution_and_its_gradients() -> Result<()> {
    let mut random = Random::new(2);
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
        let x = random.variable(&[batch, height, width, inputs]);
        let w = random.variable(&[outputs, inputs, kernel, kernel]);
        let b = random.variable(&[outputs]);
        let what = format!("convolution {batch}×{height}×{width}×{inputs}→{outputs} {kernel} {options:?}");
        let trained =
            Conv2d::new(inputs, outputs, kernel, options, var_builder(&[("weight", &w), ("bias", &b)]))?;
        let reference = || reference::conv2d(&x, &w, Some(&b), options);
        compare(&what, &mut random, &[&x, &w, &b], || trained.forward(&x), reference)?;
        let (w, b) = (w.detach(), b.detach());
        let frozen =
            Conv2d::new(inputs, outputs, kernel, options, var_builder(&[("weight", &w), ("bias", &b)]))?;
        let reference = || reference::conv2d(&x, &w, Some(&b), options);
        compare(&what, &mut random, &[&x], || frozen.forward(&x), reference)?;
    }
    Ok(())
}

/// On the pool's threads, one that waits for the layer's transformed weights may begin with another image.
#[test]
fn a_new_layer_convolves_images_in_parallel() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let convolve = || -> Result<()> {
        let mut random = Random::new(23);
        let options = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
        let pool = ThreadPoolBuilder::new().num_threads(4).build().map_err(Error::wrap)?;
        // As large as above, for Winograd's algorithm.
        let (x, w) = (random.uniform(&[4, 8, 8, 96]), random.uniform(&[130, 96, 3, 3]));
        let expected = reference::conv2d(&x, &w, None, options)?;
        for _ in 0..20 {
            let layer = Conv2d::new_no_bias(96, 130, 3, options, var_builder(&[("weight", &w)]))?;
            let images: Vec<Tensor> =
                pool.install(|| (0..32).into_par_iter().map(|_| layer.forward(&x)).collect::<Result<_>>())?;
            images.iter().for_each(|image| assert_close("convolution", image, &expected, TOLERANCE));
        }
        Ok(())
    };
    std::thread::spawn(move || sender.send(convolve()));
    receiver.recv_timeout(Duration::from_secs(120)).expect("convolved within two minutes")
}

/// An epilogue gives the same result in a layer's kernel and as separate operations.
#[test]
fn epilogues() -> Result<()> {
    let mut random = Random::new(13);
    let mut drawn = |shape: &[usize]| random.uniform(shape);
    let options = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
    // The last is large enough for Winograd's algorithm.
    for (height, width, inputs, outputs) in [(3, 5, 7, 20), (6, 6, 33, 17), (30, 33, 96, 72)] {
        let x = drawn(&[2, height, width, inputs]);
        let (w, b) = (drawn(&[outputs, inputs, 3, 3]), drawn(&[outputs]));
        let (matrix, shift) = (drawn(&[outputs, inputs]), drawn(&[2, outputs]));
        let residual = drawn(&[2, height, width, outputs]);
        let conv = Conv2d::new(inputs, outputs, 3, options, var_builder(&[("weight", &w), ("bias", &b)]))?;
        let linear = Linear::from_tensors(matrix.clone(), Some(b.clone()))?;
        let plain =
            [reference::conv2d(&x, &w, Some(&b), options)?, reference::linear(&x, &matrix, Some(&b))?];
        for activation in [None].into_iter().chain(Activation::ALL.map(Some)) {
            let epilogue = Epilogue { shift: Some(&shift), residual: Some(&residual), activation };
            let found = [conv.forward_with(&x, &epilogue)?, linear.forward_with(&x, &epilogue)?];
            for (found, plain) in found.iter().zip(&plain) {
                let shifted = plain.broadcast_add(&shift.reshape((2, 1, 1, outputs))?)?;
                let sum = (shifted + &residual)?;
                let expected = match activation {
                    None => sum,
                    Some(Activation::Gelu) => sum.gelu_erf()?,
                    Some(Activation::GeluTanh) => sum.gelu()?,
                    Some(Activation::QuickGelu) => (&sum * candle_nn::ops::sigmoid(&(&sum * 1.702)?)?)?,
                    Some(Activation::Silu) => sum.silu()?,
                };
                assert_close("epilogue", found, &expected, TOLERANCE);
            }
        }
        assert!(conv.forward_with(&x, &Epilogue::residual(&x)).is_err());
        assert!(linear.forward_with(&x, &Epilogue::shift(&residual)).is_err());
    }
    Ok(())
}

/// A layer that gates its own results equals the layer followed by the gate, also where halves split inside a panel
/// so that the kernel is not used, and during training.
#[test]
fn gated_linear_layers() -> Result<()> {
    let mut random = Random::new(14);
    for (rows, inputs, inner) in
        [(1, 1, 16), (3, 5, 7), (97, 40, 48), (200, 33, 16), (5, 512, 64), (0, 8, 16)]
    {
        let x = random.variable(&[rows, inputs]);
        let (w, b) = (random.uniform(&[2 * inner, inputs]), random.uniform(&[2 * inner]));
        for bias in [None, Some(b)] {
            let layer = Linear::from_tensors(w.clone(), bias.clone())?;
            let reference = || reference::geglu(&reference::linear(&x, &w, bias.as_ref())?);
            let what = format!("gated {rows}×{inputs}→{inner}");
            assert_close(&what, &layer.forward_geglu(&x.detach())?, &reference()?, TOLERANCE);
            compare(&what, &mut random, &[&x], || layer.forward_geglu(&x), reference)?;
        }
    }
    Ok(())
}

/// A feed-forward block gives what its layers give one after the other, in f32, in bf16, and during training.
#[test]
fn feed_forward_blocks() -> Result<()> {
    let mut random = Random::new(15);
    let (batch, tokens, width, inner) = (2, 5, 40, 70);
    let weights = [(inner, width), (width, inner)]
        .map(|(rows, columns)| [random.uniform(&[rows, columns]), random.uniform(&[rows])]);
    let norm = LayerNorm::new(
        width,
        1e-5,
        var_builder(&[("weight", &random.uniform(&[width])), ("bias", &random.uniform(&[width]))]),
    )?;
    let x = random.variable(&[batch, tokens, width]);
    let residual = random.uniform(&[batch, tokens, width]);
    for dtype in [DType::F32, DType::BF16] {
        let layer = |[weight, bias]: &[Tensor; 2]| {
            Linear::from_tensors(weight.to_dtype(dtype)?, Some(bias.to_dtype(dtype)?))
        };
        let (first, second) = (layer(&weights[0])?, layer(&weights[1])?);
        for x in [x.as_tensor().clone(), x.detach()] {
            let between = first.forward_with(&x, &Epilogue::activation(Activation::QuickGelu))?;
            let expected = second.forward_with(&between, &Epilogue::residual(&residual))?;
            let found = first.forward_through(&x, Activation::QuickGelu, &second, &residual)?;
            assert_close("feed-forward", &found, &expected, 0.);
            let found =
                first.forward_through_normalised(&x, Activation::QuickGelu, &second, &residual, &norm)?;
            assert_close("normalised", &found, &norm.forward(&expected)?, 0.);
        }
        // Without a place for what the first layer gives.
        assert!(first.forward_through(&x.detach(), Activation::Gelu, &first, &residual).is_err());
    }
    Ok(())
}

/// Half-precision tensors are computed in f32 and rounded once.
#[test]
fn half_precision() -> Result<()> {
    let mut random = Random::new(8);
    let (x, w) = (random.uniform(&[5, 64]), random.uniform(&[32, 64]));
    for (dtype, unit) in [(DType::F16, 4.9e-4), (DType::BF16, 3.9e-3)] {
        let (x, w) = (x.to_dtype(dtype)?, w.to_dtype(dtype)?);
        let layer = Linear::from_tensors(w.clone(), None)?;
        let y = layer.forward(&x)?;
        assert_eq!(y.dtype(), dtype);
        let expected = reference::linear(&x.to_dtype(DType::F32)?, &w.to_dtype(DType::F32)?, None)?;
        assert_close("half", &y, &expected, unit);
    }
    Ok(())
}

/// Weights in half precision give what the same values give in f32, up to the order of summation.
#[test]
fn short_weights_are_widened_exactly() -> Result<()> {
    let mut random = Random::new(12);
    for dtype in [DType::F16, DType::BF16] {
        let mut short = |shape: &[usize]| random.uniform(shape).to_dtype(dtype);
        let (matrix, kernel, bias) = (short(&[37, 50])?, short(&[21, 5, 3, 3])?, short(&[37])?);
        let (mut x, mut image) = (random.uniform(&[9, 50]), random.uniform(&[2, 6, 7, 5]));
        if dtype == DType::BF16 && fused_ops::bf16_support().is_some() {
            // Layers that compute in bf16 round what comes in, which changes nothing where it is bf16 already.
            [&mut x, &mut image].into_iter().try_for_each(|x| {
                *x = x.to_dtype(dtype)?.to_dtype(DType::F32)?;
                Result::Ok(())
            })?;
        }
        let layer = Linear::from_tensors(matrix.clone(), Some(bias.clone()))?;
        let expected =
            reference::linear(&x, &matrix.to_dtype(DType::F32)?, Some(&bias.to_dtype(DType::F32)?))?;
        assert_close("linear", &layer.forward(&x)?, &expected, 1e-6);
        let options = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
        let layer =
            Conv2d::new_no_bias(5, 21, 3, options, var_builder(&[("weight", &kernel)]).set_dtype(dtype))?;
        let expected = reference::conv2d(&image, &kernel.to_dtype(DType::F32)?, None, options)?;
        assert_close("conv2d", &layer.forward(&image)?, &expected, 1e-6);
    }
    // A damaged weight must stay visible: the fast conversion of f16 would make it finite.
    let damaged = Tensor::new(&[[1f32, f32::INFINITY]], &Device::Cpu)?.to_dtype(DType::F16)?;
    let y = Linear::from_tensors(damaged, None)?.forward(&Tensor::new(&[[1f32, 1.]], &Device::Cpu)?)?;
    assert_eq!(y.to_vec2::<f32>()?, [[f32::INFINITY]]);
    Ok(())
}
