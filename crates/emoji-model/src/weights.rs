//! Reads the weights of a part of a model.

use candle_core::{DType, Device, Tensor};
use model_files::Result;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use std::collections::BTreeMap;

/// The weights in a model's folder by name, in f32 on the CPU.
pub(crate) fn read_weights(source: &ModelSource, folder: &str) -> Result<BTreeMap<String, Tensor>> {
    let checkpoint = Checkpoint::open(source, folder)?;
    let names = checkpoint.names().map(str::to_owned);
    names.map(|name| Ok((name.clone(), checkpoint.tensor(&name, DType::F32, &Device::Cpu)?))).collect()
}
