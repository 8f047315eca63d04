//! Finds the images of folders, as the file system describes them; no file is opened.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use altclip_encoder::images::IMAGE_ENDINGS;
use walkdir::WalkDir;

use super::metadata::Stamp;
use crate::readers::IgnoredFiles;
use crate::readers::files::ending;

/// The ending of the files that hold captions.
const CAPTION_ENDING: &str = "txt";

/// An image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundFile {
    pub(super) stamp: Stamp,
    /// When the caption beside it was modified, if there is one.
    pub(super) caption_modified: Option<i64>,
}

impl FoundFile {
    /// When the caption beside an image was modified, if there is one.
    pub(super) fn caption_beside(image: &Path) -> Option<i64> {
        let metadata = std::fs::metadata(image.with_extension(CAPTION_ENDING)).ok()?;
        metadata.is_file().then(|| Stamp::of(&metadata).modified)
    }
}

/// What is in some folders.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// By their paths.
    pub(super) files: BTreeMap<String, FoundFile>,
    /// Files and folders that cannot be listed, and why. Files below them are not gone.
    pub(super) unlisted: Vec<(PathBuf, String)>,
    pub(super) ignored: IgnoredFiles,
}

impl Scan {
    /// Adds the images in a folder and its subfolders.
    pub(super) fn add(&mut self, folder: &Path) {
        let mut captions: HashMap<PathBuf, i64> = HashMap::new();
        let mut images: Vec<PathBuf> = Vec::new();
        for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) if !entry.file_type().is_file() => continue,
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_owned();
                    let problem = match error.io_error() {
                        Some(error) => error.to_string(),
                        None => "a link to a folder that it is in".to_owned(),
                    };
                    self.unlisted.push((path, problem));
                    continue;
                }
            };
            let ending = ending(entry.path());
            let is_image = IMAGE_ENDINGS.contains(&ending.as_str());
            if !is_image && ending != CAPTION_ENDING {
                self.ignored.add(&entry, ending);
                continue;
            }
            let stamp = match entry.metadata() {
                Ok(metadata) => Stamp::of(&metadata),
                Err(error) => {
                    let problem = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                    self.unlisted.push((entry.into_path(), problem));
                    continue;
                }
            };
            if !is_image {
                captions.insert(entry.path().with_extension(""), stamp.modified);
                continue;
            }
            match entry.path().to_str() {
                Some(name) => {
                    self.files.insert(name.to_owned(), FoundFile { stamp, caption_modified: None });
                    images.push(entry.into_path());
                }
                None => self.unlisted.push((entry.into_path(), "its name is not in UTF-8".to_owned())),
            }
        }
        // A folder may list a caption after its image.
        for path in images.iter().filter(|_| !captions.is_empty()) {
            let modified = captions.get(&path.with_extension("")).copied();
            if let Some(found) = path.to_str().and_then(|name| self.files.get_mut(name)) {
                found.caption_modified = modified;
            }
        }
    }

    /// Whether this path is below something that cannot be listed.
    pub(super) fn is_unknown(&self, path: &str) -> bool {
        self.unlisted.iter().any(|(unlisted, _)| Path::new(path).starts_with(unlisted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    #[test]
    fn images_are_found_with_their_captions() -> TestResult {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("b"))?;
        for name in ["a.png", "a.txt", "b/c.JPG", "notes.txt", "d.svg"] {
            std::fs::write(folder.path().join(name), name)?;
        }
        let mut scan = Scan::default();
        scan.add(folder.path());
        let found: Vec<_> = (scan.files.iter())
            .map(|(path, file)| {
                (path.rsplit('/').next().unwrap_or_default(), file.caption_modified.is_some())
            })
            .collect();
        assert_eq!(found, [("a.png", true), ("c.JPG", false)]);
        assert_eq!(scan.ignored.to_string(), "1 .svg (convert such images to PNG or JPEG)");
        scan.unlisted.push((folder.path().join("b"), "no".to_owned()));
        assert!(scan.is_unknown(&folder.path().join("b/x.png").display().to_string()));
        assert!(!scan.is_unknown(&folder.path().join("bc.png").display().to_string()));
        Ok(())
    }
}
