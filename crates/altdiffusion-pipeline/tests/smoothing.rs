//! Finds factors for the inputs of layers in int8 in a whole model, and writes and reads them.

use std::ops::ControlFlow;
use std::path::Path;

use altdiffusion_pipeline::{ModelParts, ModelSource, SmoothedLayer};
use candle_core::{DType, Device, Tensor, safetensors};
use model_files::checkpoint::NumberType;
use test_support::{TestResult, copy_directory, golden, relative_error};

/// A layer whose input has a channel that is much larger than the others.
const LAYER: &str = "roberta.encoder.layer.1.attention.output.dense.weight";
/// The layer that makes this channel.
const BEFORE: &str = "roberta.encoder.layer.1.attention.self.value";
const LARGE: f32 = 300.;

/// Multiplies the first of `count` values by a number.
fn first_times(factor: f32, count: usize) -> candle_core::Result<Tensor> {
    let mut factors = vec![1f32; count];
    factors[0] = factor;
    Tensor::new(factors, &Device::Cpu)
}

/// A model that computes what the golden one does, with a channel that is large between two layers of the text encoder:
/// attention mixes each channel by itself, so a value that is multiplied can be divided after it.
fn with_a_large_channel(folder: &Path) -> TestResult {
    copy_directory(&golden("alt_diffusion"), folder)?;
    let file = folder.join("text_encoder/model.safetensors");
    let mut tensors = safetensors::load(&file, &Device::Cpu)?;
    let mut change = |name: &str, factors: Tensor| -> TestResult {
        let tensor = tensors.get(name).ok_or("no such tensor")?.broadcast_mul(&factors)?;
        tensors.insert(name.to_owned(), tensor);
        Ok(())
    };
    change(&format!("{BEFORE}.weight"), first_times(LARGE, 16)?.reshape((16, 1))?)?;
    change(&format!("{BEFORE}.bias"), first_times(LARGE, 16)?)?;
    change(LAYER, first_times(1. / LARGE, 16)?)?;
    Ok(safetensors::save(&tensors, file)?)
}

fn find<'a>(layers: &'a [SmoothedLayer], name: &str) -> Option<&'a SmoothedLayer> {
    layers.iter().find(|layer| layer.name == name)
}

#[test]
fn a_layer_after_a_large_channel_gets_factors() -> TestResult {
    let folder = tempfile::tempdir()?;
    with_a_large_channel(folder.path())?;
    let source = ModelSource::directory(folder.path());
    for texts in [&[][..], &["一只猫".to_owned(), "a dog".to_owned(), "a red house".to_owned()]] {
        let mut parts = ModelParts::in_folders(&source)?;
        let mut steps = Vec::new();
        let found =
            parts.smooth_int8(texts, |done, total| steps.push((done, total)))?.ok_or("no tokenizer")?;
        assert_eq!(steps.last(), Some(&(found.measured, found.measured)));
        let layer = find(&found.text_encoder, LAYER).ok_or("the layer has no factors")?;
        assert!(layer.error < 0.5 * layer.error_without, "{layer:?}");
        // The first layer stays bf16.
        assert!(found.text_encoder.iter().all(|layer| !layer.name.contains("layer.0.")));
        let loss = parts.measure_int8(|_, _| ())?.ok_or("no tokenizer")?;
        let without = loss.without_smoothing.ok_or("no cosines without factors")?;
        assert!(loss.cosines.worst > 0.9 && without.worst <= 1.0, "{loss:?}");
    }
    Ok(())
}

#[test]
fn factors_are_written_and_read() -> TestResult {
    let folder = tempfile::tempdir()?;
    with_a_large_channel(&folder.path().join("model"))?;
    let source = ModelSource::directory(folder.path().join("model"));
    let mut parts = ModelParts::in_folders(&source)?;
    let original = parts.load_text_encoder(DType::F32, &Device::Cpu)?;
    let error_of_written = |parts: &ModelParts, name: &str| -> TestResult<f64> {
        let file = folder.path().join(name);
        parts.write_single_file(&file, Some(NumberType::Int8), &mut |_, _| ControlFlow::Continue(()))?;
        let written = ModelParts::in_single_file(&file, None)?.load_text_encoder(DType::F32, &Device::Cpu)?;
        let ids = Tensor::new(&[[0u32, 5, 17, 230, 900, 2]], &Device::Cpu)?;
        let mask = ids.ones_like()?;
        let (found, expected) = (written.forward(&ids, &mask)?, original.forward(&ids, &mask)?);
        Ok(relative_error(&found, &expected))
    };
    let plain = error_of_written(&parts, "plain.safetensors")?;
    parts.smooth_int8(&[], |_, _| ())?;
    let smoothed = error_of_written(&parts, "smoothed.safetensors")?;
    assert!(smoothed < 0.8 * plain, "{smoothed} with factors, {plain} without");

    let names = |file: &str| -> TestResult<Vec<String>> {
        let bytes = std::fs::read(folder.path().join(file))?;
        let stored = ::safetensors::SafeTensors::deserialize(&bytes)?;
        Ok(stored.names().into_iter().map(str::to_owned).collect())
    };
    let has_factors = |names: Vec<String>| names.iter().any(|name| name.ends_with(".pre_quant_scale"));
    assert!(has_factors(names("smoothed.safetensors")?) && !has_factors(names("plain.safetensors")?));
    // Without int8, the weights are numbers again, with the factors undone.
    let file = folder.path().join("smoothed.safetensors");
    let numbers = folder.path().join("numbers.safetensors");
    let written = ModelParts::in_single_file(&file, None)?;
    written.write_single_file(&numbers, Some(NumberType::F32), &mut |_, _| ControlFlow::Continue(()))?;
    assert!(!has_factors(names("numbers.safetensors")?));
    let layer = |file: &Path| -> TestResult<Tensor> {
        let all = safetensors::load(file, &Device::Cpu)?;
        let found = all.into_iter().find(|(name, _)| name.ends_with(LAYER));
        Ok(found.ok_or("no such layer")?.1)
    };
    let original = layer(&folder.path().join("model/text_encoder/model.safetensors"))?;
    let undone = layer(&numbers)?;
    assert!(relative_error(&undone, &original) < 0.1);
    Ok(())
}
