//! Where adapters come from.

use std::path::Path;

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::source::ModelSource;

use crate::{Error, Result};

/// How the names of files end that hold weights.
const ENDINGS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];

/// The adapter called `name`: a file, or the first of `file_names` in a directory or a repository on the hub. Returns also
/// where files beside it are.
///
/// # Errors
/// When there is none, or it is damaged; `what` is what it should have been.
pub(super) fn open(name: &str, file_names: &[&str], what: &str) -> Result<(Checkpoint, Option<ModelSource>)> {
    let path = Path::new(name);
    if path.is_file() {
        let beside = path.parent().filter(|folder| folder.is_dir()).map(ModelSource::directory);
        return Ok((Checkpoint::from_file(path)?, beside));
    }
    let is_file_name = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
    if is_file_name && !path.exists() {
        return Err(Error::content(name, format!("no such file, expected {what}")));
    }
    let source = ModelSource::open(name)?;
    let candidates: Vec<String> = file_names.iter().map(|name| (*name).to_owned()).collect();
    match source.first_of(&candidates)? {
        Some(file) => Ok((Checkpoint::from_source(&source, &file)?, Some(source))),
        None => Err(Error::content(name, format!("expected {what} in a file {}", file_names.join(" or ")))),
    }
}
