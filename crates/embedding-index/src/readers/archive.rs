//! Reads WebDataset archives: tar files whose samples are members of the same name.

use super::samples::{Sample, Samples};
use crate::error::{Error, Result};
use altclip_encoder::embedder::ImageSource;
use altclip_encoder::images::MAX_FILE_BYTES;
use model_files::open_file;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Finds the samples of an archive. Texts are read, and the location of images is recorded.
///
/// A member's name ends at the first dot of its file name, as in WebDataset, but the members of a sample need not be
/// adjacent.
///
/// # Errors
/// If the archive cannot be opened. Problems inside it are counted as skipped.
pub(super) fn find_samples(path: &Path, samples: &mut Samples<'_>) -> Result<()> {
    let file = open_file(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let archive_path: Arc<Path> = path.into();
    let shown = path.display();
    let mut found: Vec<(String, Sample)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(Error::io(path))? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                samples.skipped.add(|| format!("{shown}: its rest cannot be read: {error}"));
                break;
            }
        };
        let member = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((name, ending)) = split(&member) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let rank = samples.see_ending(&ending);
        let is_text = samples.text_endings().any(|wanted| wanted == ending);
        if rank.is_none() && !is_text {
            samples.skip_if_image(format_args!("{shown}: {member}"), &ending);
            continue;
        }
        let place = *places.entry(name.to_owned()).or_insert_with(|| {
            found.push((name.to_owned(), Sample::default()));
            found.len() - 1
        });
        let Some((_, sample)) = found.get_mut(place) else { continue };
        let (start, size) = (entry.raw_file_position(), entry.size());
        if size > MAX_FILE_BYTES {
            sample.fail(|| format!("{ending}: expected at most {MAX_FILE_BYTES} bytes, found {size}"));
        } else if start.saturating_add(size) > length {
            sample.fail(|| format!("{ending}: cut short, for the archive ends before its {size} bytes do"));
        } else if let Some(rank) = rank {
            let name = format!("{shown}: {member}").into();
            let file = Arc::clone(&archive_path);
            sample.add_image(rank, ImageSource::Part { name, file, start, length: size });
        } else {
            samples.add_text(sample, &ending, entry);
        }
    }
    for (name, sample) in found {
        samples.push(format_args!("{shown}: {name}"), sample);
    }
    Ok(())
}

/// A member's name with its folders, and its lower-case ending. Files without a name before the dot are hidden.
fn split(member: &str) -> Option<(&str, String)> {
    let file = member.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + member.get(file..)?.find('.').filter(|&dot| dot > 0)?;
    Some((member.get(..dot)?, member.get(dot + 1..)?.to_lowercase()))
}
