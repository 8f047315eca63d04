//! Finds the LoRAs, textual inversions and ControlNets of the server's folders. Requests name them; paths are never
//! taken from a request.

use std::path::{Path, PathBuf};

use altdiffusion_pipeline::candle_core::{DType, Device};
use altdiffusion_pipeline::{ControlNetModel, Lora, ModelSource, TextualInversion};

use crate::problem::Problem;

/// The endings of weights.
const ENDINGS: [&str; 4] = ["safetensors", "gguf", "bin", "pt"];

/// The folders of a server.
pub(crate) struct AdapterFolders {
    pub(crate) loras: Option<PathBuf>,
    /// Textual inversions, each of which is a word in prompts.
    pub(crate) words: Option<PathBuf>,
    pub(crate) controlnets: Option<PathBuf>,
}

impl AdapterFolders {
    /// The names of the LoRAs, sorted.
    pub(crate) fn lora_names(&self) -> Vec<String> {
        self.loras.as_deref().map(|folder| names(folder, false)).unwrap_or_default()
    }

    /// The words of the textual inversions, sorted: the names of their files, whatever a file calls its word.
    pub(crate) fn words(&self) -> Vec<String> {
        self.words.as_deref().map(|folder| names(folder, false)).unwrap_or_default()
    }

    /// The names of the ControlNets, sorted: files, or directories in diffusers' layout.
    pub(crate) fn controlnet_names(&self) -> Vec<String> {
        self.controlnets.as_deref().map(|folder| names(folder, true)).unwrap_or_default()
    }

    /// Opens a LoRA.
    ///
    /// # Errors
    /// If there is none of this name, or it is damaged.
    pub(crate) fn lora(&self, name: &str) -> Result<Lora, Problem> {
        let path = find("LoRA", self.loras.as_deref(), name, &self.lora_names())?;
        Ok(Lora::open(&path.to_string_lossy())?)
    }

    /// Opens the textual inversion of a word.
    ///
    /// # Errors
    /// If there is none of this name, or it is damaged.
    pub(crate) fn word(&self, word: &str) -> Result<TextualInversion, Problem> {
        let path = find("textual inversion", self.words.as_deref(), word, &self.words())?;
        Ok(TextualInversion::open(&path.to_string_lossy())?.called(word)?)
    }

    /// Loads a ControlNet.
    ///
    /// # Errors
    /// If there is none of this name, or it is damaged.
    pub(crate) fn controlnet(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> Result<ControlNetModel, Problem> {
        let path = find("ControlNet", self.controlnets.as_deref(), name, &self.controlnet_names())?;
        if path.is_dir() {
            let source = ModelSource::open(&path.to_string_lossy()).map_err(altclip_encoder::Error::from)?;
            return Ok(ControlNetModel::from_source(&source, dtype, device)?);
        }
        Ok(ControlNetModel::from_file(&path, dtype, device)?)
    }
}

/// The names in a folder, without endings. Hidden files are left out.
fn names(folder: &Path, directories: bool) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let is_weights =
                path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
            let name = if path.is_dir() && directories {
                path.file_name()
            } else {
                path.file_stem().filter(|_| is_weights && path.is_file())
            };
            name?.to_str().filter(|name| !name.starts_with('.')).map(str::to_owned)
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The path of `name`, which must be one of `names`, so that no other file can be named.
fn find(kind: &str, folder: Option<&Path>, name: &str, names: &[String]) -> Result<PathBuf, Problem> {
    let unknown = || {
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Problem::invalid(format!("no {kind} {name:?} here, expected one of: {known}"))
    };
    let folder = folder.filter(|_| names.iter().any(|known| known == name)).ok_or_else(unknown)?;
    let directory = folder.join(name);
    if directory.is_dir() {
        return Ok(directory);
    }
    let files = ENDINGS.iter().map(|ending| folder.join(format!("{name}.{ending}")));
    files.into_iter().find(|path| path.is_file()).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_folder_can_be_named() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let loras = folder.path().join("loras");
        std::fs::create_dir(&loras)?;
        for file in ["ink.safetensors", "water.v2.safetensors", "notes.txt", ".hidden.safetensors"] {
            std::fs::write(loras.join(file), "")?;
        }
        std::fs::write(folder.path().join("secret.safetensors"), "")?;
        let names = names(&loras, false);
        assert_eq!(names, ["ink", "water.v2"]);
        let find = |name: &str| find("LoRA", Some(&loras), name, &names).map_err(|problem| problem.message);
        assert_eq!(find("ink").ok(), Some(loras.join("ink.safetensors")));
        for name in ["../secret", "notes", ".hidden", "", "ink.safetensors", "/etc/passwd"] {
            let problem = find(name).err().unwrap_or_default();
            assert!(problem.ends_with("expected one of: ink, water.v2"), "{name}: {problem}");
        }
        Ok(())
    }
}
