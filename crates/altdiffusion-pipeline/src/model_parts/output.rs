//! Writes the files of a converted model atomically.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use model_files::WholeFile;

use crate::{Error, Result};

/// The architecture in a GGUF file's metadata. Other programs know only part of what it holds.
pub(super) const ARCHITECTURE: &str = "altdiffusion";

/// Gets the number of tensors done and the total; may end the work.
pub(super) type OnTensor<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// transformers refuses a safetensors file without it.
pub(super) fn format_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// Reports progress, and ends the work if the callback breaks.
pub(super) fn report_progress(on_tensor: OnTensor, done: usize, total: usize) -> Result<()> {
    match on_tensor(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled { completed: done, total, latents: None }),
    }
}

/// Writes a file atomically. Errors call it `name`, which `write` also gets.
pub(super) fn write_file(
    path: &Path,
    name: &Path,
    write: impl FnOnce(&mut BufWriter<File>, &str) -> Result<()>,
) -> Result<()> {
    let shown = name.display().to_string();
    let whole = WholeFile::create(path)?;
    let mut file = BufWriter::new(File::create(whole.path()).map_err(|error| Error::io(name, error))?);
    write(&mut file, &shown)?;
    file.flush().map_err(|error| Error::io(name, error))?;
    Ok(whole.finish()?)
}
