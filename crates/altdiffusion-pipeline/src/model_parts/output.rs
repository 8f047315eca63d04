//! Writes the files of a converted model, whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use model_files::WholeFile;

use crate::{Error, Result};

/// What a GGUF file says it is of. Only part of what it holds is known to other programs.
pub(super) const ARCHITECTURE: &str = "altdiffusion";

/// Hears how many tensors of how many are done; may end the work.
pub(super) type OnTensor<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// Without it transformers refuses a safetensors file.
pub(super) fn format_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// Reports how many tensors are done, and ends the work where that is wanted.
pub(super) fn report_progress(on_tensor: OnTensor, done: usize, total: usize) -> Result<()> {
    match on_tensor(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled { completed: done, total, latents: None }),
    }
}

/// Writes a file that is there whole or not at all. `write` also gets the name that errors call it by.
pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>, &str) -> Result<()>,
) -> Result<()> {
    let name = path.display().to_string();
    let whole = WholeFile::create(path)?;
    let mut file = BufWriter::new(File::create(whole.path()).map_err(|error| Error::io(path, error))?);
    write(&mut file, &name)?;
    file.flush().map_err(|error| Error::io(path, error))?;
    Ok(whole.finish()?)
}
