//! Finds tensors of a file that no layer reads.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use model_files::checkpoint::{Checkpoint, Survey};

use crate::Result;

/// The most names that a warning lists.
const MOST_LISTED: usize = 5;

/// The names of the tensors in `weights` that `build` does not ask for. None is read.
pub(crate) fn unused_tensors<T>(
    weights: &Checkpoint,
    build: impl FnOnce(VarBuilder<'static>) -> Result<T>,
) -> Result<Vec<String>> {
    let survey = Survey::default();
    build(weights.clone().surveyed(&survey, "").var_builder(DType::F32, &Device::Cpu)?)?;
    Ok(survey.reports().into_iter().flat_map(|report| report.unexpected).collect())
}

/// Warns that the tensors `names` of `file` have no effect.
pub(crate) fn warn_of_unused(file: &str, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let listed: Vec<&str> = names.iter().take(MOST_LISTED).map(String::as_str).collect();
    let more = if names.len() > MOST_LISTED { ", …" } else { "" };
    tracing::warn!(
        "{file}: {} tensors that belong to no layer are ignored: {}{more}",
        names.len(),
        listed.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Tensor, safetensors};

    use super::*;

    #[test]
    fn tensors_that_nothing_asks_for_are_found() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("weights.safetensors");
        let zeros = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let names = ["net.a.weight", "net.b.weight", "net.c", "other.d"];
        let tensors: HashMap<&str, Tensor> = names.iter().map(|name| (*name, zeros.clone())).collect();
        safetensors::save(&tensors, &file)?;
        let weights = Checkpoint::from_file(&file)?.part("net.", |name| Some(format!("net.{name}")));
        let read = |names: &'static [&'static str]| {
            move |vb: VarBuilder<'static>| {
                names.iter().try_for_each(|name| vb.get((2, 3), name).map(|_| ())).map_err(crate::Error::from)
            }
        };
        assert_eq!(unused_tensors(&weights, read(&["a.weight", "c"]))?, ["net.b.weight"]);
        assert!(unused_tensors(&weights, read(&["a.weight", "b.weight", "c"]))?.is_empty());
        Ok(())
    }
}
