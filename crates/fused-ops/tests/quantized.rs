//! Tests quantized weights: values equal candle's, and layers equal those with the same values in f32.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use fused_ops::{
    Activation, BlockType, Conv2d, Conv2dOptions, Embedding, Epilogue, Linear, Padding, geglu, reference,
};
use std::collections::HashMap;
use test_support::{Random, assert_close};

/// As for other layers: f32 sums of a few thousand products of order one, in another order.
const TOLERANCE: f64 = 1e-5;

fn ggml(kind: BlockType) -> GgmlDType {
    match kind {
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2K => GgmlDType::Q2K,
        BlockType::Q3K => GgmlDType::Q3K,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
    }
}

/// A quantized weight as a checkpoint provides it, and its values.
struct Quantized {
    kind: BlockType,
    /// (rows, bytes per row)
    blocks: Tensor,
    numbers: Tensor,
}

fn quantized(kind: BlockType, weight: &Tensor) -> Result<Quantized> {
    let rows = weight.dim(0)?;
    let bytes = kind.quantize(&weight.flatten_all()?.to_vec1::<f32>()?)?;
    let mut numbers = vec![0f32; weight.elem_count()];
    kind.dequantize(&bytes, &mut numbers)?;
    let numbers = Tensor::from_vec(numbers, weight.dims(), &Device::Cpu)?;
    let row_bytes = bytes.len() / rows;
    Ok(Quantized { kind, blocks: Tensor::from_vec(bytes, (rows, row_bytes), &Device::Cpu)?, numbers })
}

impl Quantized {
    fn vb(&self, bias: Option<&Tensor>) -> VarBuilder<'static> {
        // Without the values: a layer that asked for them would fail.
        let mut tensors = HashMap::from([(self.kind.blocks_name("weight"), self.blocks.clone())]);
        tensors.extend(bias.map(|bias| ("bias".to_owned(), bias.clone())));
        VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
    }
}

#[test]
fn numbers_are_candles() -> Result<()> {
    let mut random = Random::new(1);
    for kind in BlockType::ALL {
        let values = random.uniform(&[6, 1536]);
        let theirs = QTensor::quantize(&values, ggml(kind))?;
        let ours = kind.quantize(&values.flatten_all()?.to_vec1()?)?;
        assert_eq!(ours, *theirs.data()?, "{}", kind.name());
        let expected = theirs.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        // A file's bytes may be unaligned.
        for offset in 0..2 {
            let mut shifted = vec![0; offset];
            shifted.extend(&ours);
            let mut found = vec![0f32; expected.len()];
            kind.dequantize(&shifted[offset..], &mut found)?;
            assert_eq!(found, expected, "{}", kind.name());
        }
        assert_eq!(kind.name().parse::<BlockType>()?, kind);
    }
    Ok(())
}

#[test]
fn what_blocks_cannot_hold_is_refused() {
    let error = |values: &[f32]| BlockType::Q8_0.quantize(values).err().map(|error| error.to_string());
    let with = |value: f32| {
        let mut values = [0.5; 32];
        values[7] = value;
        error(&values)
    };
    assert!(
        error(&[0.; 33])
            .is_some_and(|error| error.starts_with("33 numbers do not divide into blocks of q8_0"))
    );
    assert!(with(f32::NAN).is_some_and(|error| error.starts_with("NaN has no place")));
    assert!(with(f32::INFINITY).is_some_and(|error| error.starts_with("inf has no place")));
    // The scale would be 1e7 / 127, and f16 ends at 65504.
    assert!(with(1e7).is_some_and(|error| error.contains("too large for a block of q8_0")));
    assert_eq!(with(8e6), None);
    assert!(BlockType::Q4_0.dequantize(&[0; 18], &mut [0.; 31]).is_err());
    assert!(BlockType::Q4_0.dequantize(&[0; 17], &mut [0.; 32]).is_err());
    assert!("q9".parse::<BlockType>().is_err());
}

#[test]
fn linear_layers() -> Result<()> {
    let mut random = Random::new(2);
    for kind in BlockType::ALL {
        // More depth than a part, columns that end inside a panel, and more rows than a task.
        for (rows, inputs, outputs) in [(1, 256, 16), (77, 1280, 33), (400, 768, 48), (0, 256, 16)] {
            let what = format!("{} {rows}×{inputs}→{outputs}", kind.name());
            let (x, bias) = (random.uniform(&[rows, inputs]), random.uniform(&[outputs]));
            let weight = quantized(kind, &random.uniform(&[outputs, inputs]))?;
            let layer = Linear::new(inputs, outputs, true, weight.vb(Some(&bias)))?;
            let expected = Linear::from_tensors(weight.numbers.clone(), Some(bias.clone()))?;
            assert_close(&what, &layer.forward(&x)?, &expected.forward(&x)?, TOLERANCE);
            let residual = random.uniform(&[rows, outputs]);
            let epilogue =
                Epilogue { residual: Some(&residual), shift: None, activation: Some(Activation::Gelu) };
            let (found, expected) =
                (layer.forward_with(&x, &epilogue)?, expected.forward_with(&x, &epilogue)?);
            assert_close(&what, &found, &expected, TOLERANCE);
        }
    }
    Ok(())
}

#[test]
fn gated_layers() -> Result<()> {
    let mut random = Random::new(3);
    for kind in BlockType::ALL {
        for (rows, inputs, outputs) in [(1, 256, 64), (500, 768, 128), (9, 256, 48)] {
            let (x, bias) = (random.uniform(&[rows, inputs]), random.uniform(&[outputs]));
            let weight = quantized(kind, &random.uniform(&[outputs, inputs]))?;
            let layer = Linear::new(inputs, outputs, true, weight.vb(Some(&bias)))?;
            let expected = geglu(&reference::linear(&x, &weight.numbers, Some(&bias))?)?;
            assert_close(kind.name(), &layer.forward_geglu(&x)?, &expected, TOLERANCE);
        }
    }
    Ok(())
}

#[test]
fn convolutions() -> Result<()> {
    let mut random = Random::new(4);
    let same = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
    let stride = Conv2dOptions { stride: 2, ..same };
    let upsample = Conv2dOptions { upsample: true, ..same };
    let point = Conv2dOptions::default();
    for kind in BlockType::ALL {
        for (batch, height, width, inputs, outputs, kernel, options) in [
            (2, 6, 5, 256, 17, 1, point),
            // Few pixels: the direct convolution.
            (1, 3, 3, 256, 20, 3, same),
            // Winograd's algorithm: by columns, and with some panels of the weight at a time.
            (1, 16, 16, 256, 40, 3, same),
            (1, 68, 68, 256, 64, 3, same),
            (1, 8, 8, 256, 40, 3, upsample),
            (2, 9, 8, 256, 24, 3, stride),
        ] {
            let what = format!("{} {batch}×{height}×{width}×{inputs}→{outputs} {kernel}", kind.name());
            let (x, bias) = (random.uniform(&[batch, height, width, inputs]), random.uniform(&[outputs]));
            let weight = quantized(kind, &random.uniform(&[outputs, inputs, kernel, kernel]))?;
            let layer = Conv2d::new(inputs, outputs, kernel, options, weight.vb(Some(&bias)))?;
            let expected = reference::conv2d(&x, &weight.numbers, Some(&bias), options)?;
            let shift = random.uniform(&[batch, outputs]);
            assert_close(&what, &layer.forward(&x)?, &expected, TOLERANCE);
            let found = layer.forward_with(&x, &Epilogue::shift(&shift))?;
            let shift = shift.reshape((batch, 1, 1, outputs))?;
            assert_close(&what, &found, &expected.broadcast_add(&shift)?, TOLERANCE);
        }
    }
    Ok(())
}

#[test]
fn gradients_flow_through() -> Result<()> {
    let mut random = Random::new(5);
    let options = Conv2dOptions { padding: Padding::same(1), ..Default::default() };
    let weight = quantized(BlockType::Q5_1, &random.uniform(&[24, 32, 3, 3]))?;
    let x = Var::from_tensor(&random.uniform(&[1, 6, 7, 32]))?;
    let layer = Conv2d::new_no_bias(32, 24, 3, options, weight.vb(None))?;
    let gradient = |y: Tensor| -> Result<Tensor> {
        let gradients = y.sqr()?.sum_all()?.backward()?;
        gradients.get(&x).cloned().ok_or_else(|| candle_core::Error::Msg("no gradient".into()))
    };
    let expected = gradient(reference::conv2d(&x, &weight.numbers, None, options)?)?;
    assert_close("convolution", &gradient(layer.forward(&x)?)?, &expected, TOLERANCE);

    let weight = quantized(BlockType::Q4_0, &random.uniform(&[24, 32]))?;
    let layer = Linear::new(32, 24, false, weight.vb(None))?;
    let expected = gradient(reference::linear(&x, &weight.numbers, None)?)?;
    assert_close("linear", &gradient(layer.forward(&x)?)?, &expected, TOLERANCE);
    Ok(())
}

/// A prompt draws the same image alone and in a batch.
#[test]
fn an_image_does_not_depend_on_its_batch() -> Result<()> {
    let mut random = Random::new(6);
    let x = random.uniform(&[3, 16, 16, 320]);
    let weight = quantized(BlockType::Q4_0, &random.uniform(&[64, 320]))?;
    let linear = Linear::new(320, 64, false, weight.vb(None))?;
    let (all, gated) = (linear.forward(&x)?, linear.forward_geglu(&x)?);
    let weight = quantized(BlockType::Q8_0, &random.uniform(&[64, 320, 3, 3]))?;
    let options = Conv2dOptions { stride: 2, padding: Padding::same(1), upsample: false };
    let conv = Conv2d::new_no_bias(320, 64, 3, options, weight.vb(None))?;
    let halved = conv.forward(&x)?;
    for image in 0..3 {
        let alone = x.narrow(0, image, 1)?;
        for (all, alone) in [
            (&all, linear.forward(&alone)?),
            (&gated, linear.forward_geglu(&alone)?),
            (&halved, conv.forward(&alone)?),
        ] {
            let beside = all.narrow(0, image, 1)?;
            assert_eq!((beside - alone)?.abs()?.max_all()?.to_scalar::<f32>()?, 0.);
        }
    }
    Ok(())
}

#[test]
fn rows_of_a_table() -> Result<()> {
    let mut random = Random::new(7);
    let table = quantized(BlockType::Q8_0, &random.uniform(&[50, 96]))?;
    let embedding = Embedding::new(50, 96, Init::Const(0.), table.vb(None))?;
    let ids = Tensor::new(&[3u32, 49, 0, 3], &Device::Cpu)?;
    let (found, expected) = (embedding.forward(&ids)?, table.numbers.index_select(&ids, 0)?);
    assert_eq!(found.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
    assert_eq!(found.dim(D::Minus1)?, 96);
    assert!(embedding.forward(&Tensor::new(&[50u32], &Device::Cpu)?).is_err());
    Ok(())
}

#[test]
fn blocks_of_another_size_are_refused() -> Result<()> {
    let mut random = Random::new(8);
    let weight = quantized(BlockType::Q8_0, &random.uniform(&[16, 64]))?;
    for (inputs, outputs) in [(32, 16), (64, 17), (40, 16)] {
        assert!(Linear::new(inputs, outputs, false, weight.vb(None)).is_err(), "{inputs} → {outputs}");
    }
    Ok(())
}
