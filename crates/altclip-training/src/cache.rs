//! Caches what frozen models compute from the data in a file.

use crate::error::{Error, Result};
use crate::hash::hash_of_texts;
use altclip_encoder::embedder::Embedder;
use candle_core::{Device, Tensor};
use model_files::checkpoint::save_tensors;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

pub(crate) use crate::hash::hash;

/// The metadata key that identifies the tensors.
const OF: &str = "of";
const VECTORS: &str = "vectors";

/// A file of tensors that can be recomputed.
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The file at a path, which need not exist.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The tensors in the file, if it was written for `key`; otherwise those that `make` returns, which are then
    /// saved. They are on the CPU.
    ///
    /// # Errors
    /// The errors of `make`; also if the file cannot be written.
    pub fn of(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<BTreeMap<String, Tensor>>,
    ) -> Result<BTreeMap<String, Tensor>> {
        if let Some(tensors) = self.read(key) {
            return Ok(tensors);
        }
        let tensors = make()?;
        save_tensors(&self.path, &tensors, Some(HashMap::from([(OF.to_owned(), key.to_owned())])))?;
        Ok(tensors)
    }

    /// A teacher's vectors for texts, (texts, projection_dim), f32 and not normalised.
    ///
    /// # Errors
    /// If there is no text, one cannot be encoded, or the file cannot be written.
    pub fn vectors_of(&self, teacher: &Embedder, texts: &[String]) -> Result<Tensor> {
        let Some(first) = texts.first() else {
            return Err(Error::Setting("data: expected texts for the teacher, found none".to_owned()));
        };
        // A teacher is identified by its vector for a text.
        let probe: Vec<f32> = teacher.embed_texts(&[first, "probe"])?.flatten_all()?.to_vec1()?;
        let probe = hash(probe.into_iter().flat_map(f32::to_le_bytes));
        let key = format!("{} texts {:016x} by {probe:016x}", texts.len(), hash_of_texts(texts));
        let make = || Ok(BTreeMap::from([(VECTORS.to_owned(), teacher.embed_texts(texts)?)]));
        self.tensor(self.of(&key, make)?, VECTORS)
    }

    /// One of the tensors.
    ///
    /// # Errors
    /// If the file lacks it.
    pub fn tensor(&self, mut tensors: BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
        let missing =
            || Error::format(&self.path, format!("no tensor `{name}`; remove the file to make it anew"));
        tensors.remove(name).ok_or_else(missing)
    }

    /// The content of the file, if it was written for `key`.
    fn read(&self, key: &str) -> Option<BTreeMap<String, Tensor>> {
        let bytes = std::fs::read(&self.path).ok()?;
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).ok()?;
        let of = metadata.metadata().as_ref()?.get(OF)?;
        let tensors = (of == key).then(|| candle_core::safetensors::load_buffer(&bytes, &Device::Cpu))?;
        Some(tensors.ok()?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_decides_whether_the_file_is_used() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("."))?;
        let cache = Cache::at(&folder.path().join("cache.safetensors"));
        let make = |value: f32| {
            let make = move || Ok(BTreeMap::from([("x".to_owned(), Tensor::new(&[value], &Device::Cpu)?)]));
            move |key: &str, cache: &Cache| -> Result<f32> {
                let tensor = cache.tensor(cache.of(key, make)?, "x")?;
                Ok(tensor.to_vec1::<f32>()?.first().copied().unwrap_or_default())
            }
        };
        assert_eq!(make(1.)("a", &cache)?, 1.);
        assert_eq!(make(2.)("a", &cache)?, 1.);
        assert_eq!(make(3.)("b", &cache)?, 3.);
        std::fs::write(folder.path().join("cache.safetensors"), "damaged").map_err(Error::io("."))?;
        assert_eq!(make(4.)("b", &cache)?, 4.);
        let error =
            cache.tensor(BTreeMap::new(), "y").map_or_else(|error| error.to_string(), |_| String::new());
        assert!(error.contains("no tensor `y`"), "{error}");
        Ok(())
    }
}
