//! Tests layers with int8 weights: against the same layers in f32, through a checkpoint's names.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use fused_ops::{
    Activation, Conv2d, Conv2dOptions, Epilogue, INPUT_RECORD, INT8, INT8_SCALE, INT8_SMOOTHING, Int8Rows,
    LORA_DOWN, LORA_UP, Linear, Padding, geglu, reference, smoothing,
};
use std::collections::HashMap;
use test_support::{Random, assert_close, error_message, relative_error};

/// A step of 1/127 of the largest value, for values that are spread evenly, on either side.
const ROUNDING: f64 = 0.01;

/// The names and tensors of a layer in int8.
fn int8_tensors(weight: &Tensor, smoothing: Option<&[f32]>) -> Result<HashMap<String, Tensor>> {
    let (rows, width) = weight.flatten_from(1)?.dims2()?;
    let int8 = Int8Rows::quantize(&weight.flatten_all()?.to_vec1::<f32>()?, width, smoothing)?;
    let bytes: Vec<u8> = int8.values.iter().map(|value| value.cast_unsigned()).collect();
    let mut tensors = HashMap::from([
        (INT8.to_owned(), Tensor::from_vec(bytes, (rows, width), &Device::Cpu)?),
        (INT8_SCALE.to_owned(), Tensor::from_vec(int8.scales, rows, &Device::Cpu)?),
    ]);
    if let Some(smoothing) = smoothing {
        tensors.insert(INT8_SMOOTHING.to_owned(), Tensor::new(smoothing, &Device::Cpu)?);
    }
    Ok(tensors)
}

/// The weight that they stand for.
fn dequantized(weight: &Tensor, smoothing: Option<&[f32]>) -> Result<Tensor> {
    let (_, width) = weight.flatten_from(1)?.dims2()?;
    let int8 = Int8Rows::quantize(&weight.flatten_all()?.to_vec1::<f32>()?, width, smoothing)?;
    Tensor::from_vec(int8.dequantize(smoothing)?, weight.shape(), &Device::Cpu)
}

fn vb(tensors: HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

#[test]
fn a_layer_gives_about_what_it_gives_in_f32() -> Result<()> {
    let mut random = Random::new(1);
    let (x, weight, bias) = (random.uniform(&[2, 77, 96]), random.uniform(&[80, 96]), random.uniform(&[80]));
    let residual = random.uniform(&[2, 77, 80]);
    let mut tensors = int8_tensors(&weight, None)?;
    tensors.insert("bias".to_owned(), bias.clone());
    let layer = Linear::new(96, 80, true, vb(tensors))?;
    let plain = reference::linear(&x, &weight, Some(&bias))?;
    assert_close("linear", &layer.forward(&x)?, &plain, ROUNDING);
    let epilogue =
        Epilogue { residual: Some(&residual), activation: Some(Activation::Gelu), ..Epilogue::default() };
    let expected = (plain + &residual)?.gelu_erf()?;
    assert_close("linear, GELU", &layer.forward_with(&x, &epilogue)?, &expected, ROUNDING);
    Ok(())
}

#[test]
fn a_gated_layer_and_a_small_convolution_compute_in_int8() -> Result<()> {
    let mut random = Random::new(1);
    let (x, weight) = (random.uniform(&[1, 6, 5, 64]), random.uniform(&[64, 64, 1, 1]));
    let gated = Linear::new(64, 64, false, vb(int8_tensors(&weight, None)?))?;
    let expected = geglu(&reference::linear(&x, &weight.flatten_from(1)?, None)?)?;
    assert_close("gated", &gated.forward_geglu(&x)?, &expected, ROUNDING);
    let options = Conv2dOptions { stride: 1, padding: Padding::same(0), upsample: false };
    let conv = Conv2d::new(64, 64, 1, options, vb(conv_tensors(&weight)?))?;
    let zeros = Tensor::zeros(64, DType::F32, &Device::Cpu)?;
    let expected = reference::conv2d(&x, &weight, Some(&zeros), options)?;
    let found = conv.forward(&x)?;
    assert_close("1 × 1", &found, &expected, ROUNDING);
    assert!(relative_error(&found, &expected) > 1e-4, "computed in f32");
    Ok(())
}

fn conv_tensors(weight: &Tensor) -> Result<HashMap<String, Tensor>> {
    let mut tensors = int8_tensors(weight, None)?;
    tensors.insert("bias".to_owned(), Tensor::zeros(weight.dim(0)?, DType::F32, &Device::Cpu)?);
    Ok(tensors)
}

#[test]
fn smoothing_keeps_channels_beside_a_large_one() -> Result<()> {
    let mut random = Random::new(1);
    let (x, weight) = (random.uniform(&[50, 64]), random.uniform(&[48, 64]));
    // One channel is a hundred times as large, and counts for little.
    let mut large = vec![1f32; 64];
    large[7] = 100.;
    let x = x.broadcast_mul(&Tensor::new(large.as_slice(), &Device::Cpu)?)?;
    large[7] = 0.01;
    let weight = weight.broadcast_mul(&Tensor::new(large.as_slice(), &Device::Cpu)?)?;
    let expected = reference::linear(&x, &weight, None)?;
    let largest = x.abs()?.max(0)?.to_vec1::<f32>()?;
    let factors = smoothing(&largest, &weight.flatten_all()?.to_vec1::<f32>()?, 0.5);
    let error = |smoothing: Option<&[f32]>| -> Result<f64> {
        let layer = Linear::new(64, 48, false, vb(int8_tensors(&weight, smoothing)?))?;
        Ok(relative_error(&layer.forward(&x)?, &expected))
    };
    let (without, with) = (error(None)?, error(Some(&factors))?);
    println!("relative error without smoothing {without:.4}, with it {with:.4}");
    assert!(with < ROUNDING && without > 10. * with, "{without}, {with}");
    Ok(())
}

#[test]
fn a_gated_layer_records_its_input_too() -> Result<()> {
    let mut random = Random::new(1);
    let weight = random.uniform(&[64, 16]);
    let layer = |record: &Var| {
        let tensors = [("weight", &weight), (INPUT_RECORD, record.as_tensor())];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        Linear::new(16, 64, false, vb(HashMap::from(tensors)))
    };
    let record = Var::zeros((9, 16), DType::F32, &Device::Cpu)?;
    let recorded = layer(&record)?;
    let x = random.uniform(&[2, 5, 16]);
    let plain = Linear::from_tensors(weight.clone(), None)?.forward_geglu(&x)?;
    assert_close("gated", &recorded.forward_geglu(&x)?, &plain, 1e-5);
    let rows = x.reshape((10, 16))?;
    assert_eq!(record.get(0)?.to_vec1::<f32>()?, rows.abs()?.max(0)?.to_vec1::<f32>()?);
    // One row of each of eight passes.
    assert_eq!(record.get(1)?.to_vec1::<f32>()?, rows.get(0)?.to_vec1::<f32>()?);
    assert_eq!(record.get(2)?.to_vec1::<f32>()?, [0.; 16]);
    let error = error_message(layer(&Var::zeros((9, 15), DType::F32, &Device::Cpu)?));
    assert!(error.contains("weight.input_record: expected rows of 16, found [9, 15]"), "{error}");
    Ok(())
}

#[test]
fn gradients_are_those_of_the_values() -> Result<()> {
    let mut random = Random::new(1);
    let weight = random.uniform(&[40, 64]);
    let factors: Vec<f32> = (0..64_u8).map(|i| 0.5 + f32::from(i) / 64.).collect();
    let layer = Linear::new(64, 40, false, vb(int8_tensors(&weight, Some(&factors))?))?;
    let x = Var::from_tensor(&random.uniform(&[3, 64]))?;
    let grads = layer.forward(&x)?.sum_all()?.backward()?;
    let found = grads.get(&x).expect("a gradient");
    let expected = dequantized(&weight, Some(&factors))?.sum_keepdim(0)?.broadcast_as((3, 64))?;
    assert_close("gradient", found, &expected, 1e-5);
    Ok(())
}

#[test]
fn a_lora_is_computed_beside_the_layer() -> Result<()> {
    let mut random = Random::new(1);
    let (x, weight) = (random.uniform(&[5, 32]), random.uniform(&[24, 32]));
    let (down, up) = (random.uniform(&[4, 32]), random.uniform(&[24, 4]));
    let mut tensors = int8_tensors(&weight, None)?;
    tensors.extend([(LORA_DOWN.to_owned(), down.clone()), (LORA_UP.to_owned(), up.clone())]);
    let found = Linear::new(32, 24, false, vb(tensors))?.forward(&x)?;
    let change = reference::linear(&reference::linear(&x, &down, None)?, &up, None)?;
    let expected = (reference::linear(&x, &weight, None)? + change)?;
    assert_close("LoRA", &found, &expected, ROUNDING);
    Ok(())
}

#[test]
fn what_is_damaged_is_refused() -> Result<()> {
    let weight = Random::new(1).uniform(&[24, 32]);
    let tensors = int8_tensors(&weight, None)?;
    let layer = |name: &str, tensor: Option<Tensor>| {
        let mut tensors = tensors.clone();
        match tensor {
            Some(tensor) => tensors.insert(name.to_owned(), tensor),
            None => tensors.remove(name),
        };
        error_message(Linear::new(32, 24, false, vb(tensors)))
    };
    let scales = |value: f32| Tensor::full(value, 24, &Device::Cpu);
    let found = layer(INT8_SCALE, Some(scales(f32::INFINITY)?));
    assert!(found.starts_with("weight.int8_scale: expected finite numbers, found inf"), "{found}");
    assert!(layer(INT8_SCALE, Some(scales(1.)?.narrow(0, 0, 23)?)).contains("weight.int8_scale"));
    assert!(layer(INT8_SCALE, None).contains("weight.int8_scale"));
    assert!(layer(INT8_SMOOTHING, Some(scales(1.)?)).contains("weight.int8_smoothing"));
    let found = error_message(Int8Rows::quantize(&[1., f32::NAN], 1, None));
    assert!(found.starts_with("row 1 has a number that is not finite"), "{found}");
    let found = error_message(Int8Rows::quantize(&[1., 2., 3.], 2, None));
    assert!(found.starts_with("3 numbers are not rows of 2"), "{found}");
    let found = error_message(Int8Rows::quantize(&[1., 2.], 2, Some(&[1.])));
    assert!(found.starts_with("a smoothing of 1 channels does not fit rows of 2"), "{found}");
    Ok(())
}
