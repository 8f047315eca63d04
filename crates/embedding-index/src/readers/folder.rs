//! Reads folders of images with text files beside them.

use super::files::ending;
use super::samples::{Sample, Samples};
use model_files::open_file;
use std::path::{Path, PathBuf};

/// Finds the images among a folder's files, with their texts: files of the same name with other endings.
pub(super) fn find_samples(files: &[PathBuf], samples: &mut Samples<'_>) {
    for path in files {
        let ending = ending(path);
        let Some(rank) = samples.see_ending(&ending) else {
            samples.skip_if_image(path.display(), &ending);
            continue;
        };
        let mut sample = Sample::default();
        sample.add_image(rank, path.as_path().into());
        for ending in samples.text_endings() {
            let beside = beside(path, ending);
            match open_file(&beside) {
                Ok(text) => samples.add_text(&mut sample, ending, text),
                Err(_) if !beside.exists() => {}
                Err(error) => sample.fail(|| format!("{ending}: {error}")),
            }
        }
        samples.push(path.display(), sample);
    }
}

/// The path with another ending, which may be arbitrary user input.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}
