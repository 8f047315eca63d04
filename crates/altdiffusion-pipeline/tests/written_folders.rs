//! Writes a file of Stable Diffusion 2 as stable-diffusion.cpp has it in folders, which have what diffusers expects: the
//! names and shapes of the golden model that diffusers wrote.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use altdiffusion_pipeline::ModelParts;
use candle_core::{Device, Tensor, safetensors};
use model_files::source::ModelSource;
use test_support::{TestResult, golden, normal};

const TOWER: &str = "cond_stage_model.transformer.text_model";
const WEIGHTS: [&str; 2] = ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"];

/// The names and shapes in a file.
fn shapes(file: &Path) -> TestResult<BTreeMap<String, Vec<usize>>> {
    let tensors = safetensors::load(file, &Device::Cpu)?;
    Ok(tensors.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect())
}

#[test]
fn what_only_the_file_has_is_left_out() -> TestResult {
    let place = tempfile::tempdir()?;
    let (file, folders) = (place.path().join("one.safetensors"), place.path().join("folders"));
    let source = ModelSource::directory(golden("conditioners/sd2"));
    let mut go_on = |_, _| ControlFlow::Continue(());
    ModelParts::in_folders(&source)?.write_single_file(&file, None, &mut go_on)?;
    // The layer that is not used, the projection to the space of images, and projections as convolutions.
    let mut tensors = safetensors::load(&file, &Device::Cpu)?;
    let config: serde_json::Value = source.read_json("text_encoder/config.json")?;
    let layer = |number: &str| format!("{TOWER}.encoder.layers.{number}.");
    let (first, last) = (layer("0"), layer(&config["num_hidden_layers"].to_string()));
    let unused: Vec<(String, Tensor)> = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((format!("{last}{}", name.strip_prefix(&first)?), tensor.clone())))
        .collect();
    assert!(!unused.is_empty());
    tensors.extend(unused);
    tensors.insert(format!("{TOWER}.text_projection"), normal(1, &[4, 4]));
    for (name, tensor) in &mut tensors {
        let is_projection = name.ends_with(".proj_in.weight") || name.ends_with(".to_q.weight");
        if let (true, &[output, input]) = (is_projection, tensor.dims()) {
            *tensor = tensor.reshape((output, input, 1, 1))?;
        }
    }
    safetensors::save(&tensors, &file)?;

    let parts = ModelParts::in_single_file(&file, Some(&source))?;
    let converted = parts.write_folders(&folders, None, &mut go_on)?;
    for weights in WEIGHTS {
        assert_eq!(shapes(&folders.join(weights))?, shapes(&golden("conditioners/sd2").join(weights))?);
    }
    let is_unused = |name: &String| name.starts_with(&last) || name.ends_with("text_projection");
    assert!(converted.left_out.iter().all(is_unused), "{:?}", converted.left_out);
    Ok(())
}
