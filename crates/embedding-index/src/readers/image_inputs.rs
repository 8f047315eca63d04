//! Lists the images that a job embeds: files, patterns, folders and lists, in a fixed order.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use altclip_encoder::embedder::ImageSource;
use altclip_encoder::images::IMAGE_ENDINGS;
use walkdir::WalkDir;

use super::files::ending;
use super::parquet_column::ROW;
use super::{IgnoredFiles, Items, ListFile};
use crate::error::{Error, Result};

/// Images from paths and patterns, followed by those of a list. They are iterated more than once.
#[derive(Debug, Default)]
pub struct ImageInputs {
    patterns: Vec<String>,
    list: Option<ListFile>,
    ignored: Arc<Mutex<IgnoredFiles>>,
}

impl ImageInputs {
    /// The images of `patterns`, followed by those of the list.
    ///
    /// A pattern is the path of an image; a glob such as `photos/*.jpg`; or a folder, which stands for all images in
    /// it and its subfolders, by name.
    pub fn new(patterns: Vec<String>, list: Option<ListFile>) -> Self {
        Self { patterns, list, ignored: Arc::default() }
    }

    /// The files of folders that the latest complete iteration skipped.
    pub fn ignored_files(&self) -> IgnoredFiles {
        lock(&self.ignored).clone()
    }

    /// Iterates the images. Paths may turn out not to exist.
    ///
    /// # Errors
    /// If a pattern is invalid or matches no file, a folder holds no image, or the list cannot be read or is empty.
    pub fn iter(&self) -> Result<Items<ImageSource>> {
        let paths = self.paths()?.map(|path| Ok(path?.into()));
        Ok(Box::new(paths.chain(self.listed(ListFile::images)?)))
    }

    /// Iterates the names of the images.
    ///
    /// # Errors
    /// Like [`iter`](Self::iter).
    pub fn names(&self) -> Result<Items<PathBuf>> {
        Ok(Box::new(self.paths()?.chain(self.listed(ListFile::image_names)?)))
    }

    /// The key of an image in a database: its name, or for one that a Parquet file holds without a name, the list's
    /// name and the row, such as `photos.parquet:7`.
    pub fn key_of(&self, name: &str) -> String {
        let row = name.strip_prefix(ROW).and_then(|row| row.parse::<usize>().ok());
        match (&self.list, row) {
            (Some(list), Some(row)) => list.key(row),
            _ => name.to_owned(),
        }
    }

    /// The paths that the patterns match.
    fn paths(&self) -> Result<Items<PathBuf>> {
        let mut paths: Items<PathBuf> = Box::new(std::iter::empty());
        lock(&self.ignored).clear();
        for pattern in &self.patterns {
            paths = Box::new(paths.chain(expand(pattern, &self.ignored)?));
        }
        Ok(paths)
    }

    fn listed<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ListFile) -> Result<Items<T>>,
    ) -> Result<Items<T>> {
        let Some(list) = &self.list else { return Ok(Box::new(std::iter::empty())) };
        let mut items = read(list)?.peekable();
        if items.peek().is_none() {
            return Err(Error::format(list.name(), "expected at least one image, found none"));
        }
        Ok(Box::new(items))
    }
}

impl<S: Into<String>> FromIterator<S> for ImageInputs {
    fn from_iter<I: IntoIterator<Item = S>>(patterns: I) -> Self {
        Self::new(patterns.into_iter().map(Into::into).collect(), None)
    }
}

fn lock(ignored: &Mutex<IgnoredFiles>) -> MutexGuard<'_, IgnoredFiles> {
    ignored.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Expands a pattern: a folder's images, the matching files, or itself.
fn expand(pattern: &str, ignored: &Arc<Mutex<IgnoredFiles>>) -> Result<Items<PathBuf>> {
    let problem = |problem: String| Error::Pattern { pattern: pattern.to_owned(), problem };
    let path = Path::new(pattern);
    if path.is_dir() {
        let mut found = walk(path, Arc::clone(ignored)).peekable();
        if found.peek().is_none() {
            let endings =
                IMAGE_ENDINGS.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(", ");
            let ignored = lock(ignored);
            return Err(problem(format!(
                "no images in this directory, which would end in {endings}; found {ignored}"
            )));
        }
        return Ok(Box::new(found));
    }
    // An existing file may have such characters in its name.
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(Box::new(std::iter::once(Ok(path.to_owned()))));
    }
    let found = glob::glob(pattern).map_err(|error| problem(format!("no valid pattern: {}", error.msg)))?;
    let found = found.map(|entry| entry.unwrap_or_else(|error| error.path().to_owned()));
    let mut found = found.filter(|path| !path.is_dir()).map(Ok).peekable();
    if found.peek().is_none() {
        return Err(problem("no file fits this pattern".to_owned()));
    }
    Ok(Box::new(found))
}

/// The images of a folder and its subfolders, by name. What cannot be read is returned as it is, and reported like
/// any other path without an image.
fn walk(folder: &Path, ignored: Arc<Mutex<IgnoredFiles>>) -> impl Iterator<Item = Result<PathBuf>> + use<> {
    let shown = folder.to_owned();
    let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    entries.filter_map(move |entry| match entry {
        Ok(entry) if !entry.file_type().is_file() => None,
        Ok(entry) => {
            let ending = ending(entry.path());
            if IMAGE_ENDINGS.contains(&ending.as_str()) {
                return Some(Ok(entry.into_path()));
            }
            lock(&ignored).add(&entry, ending);
            None
        }
        Err(error) => Some(match error.path() {
            Some(path) => Ok(path.to_owned()),
            None => Err(Error::format(&shown, error)),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    #[test]
    fn ignored_files_are_counted_by_their_ending() -> TestResult {
        let directory = tempfile::tempdir()?;
        let root = directory.path().display().to_string();
        for name in ["a.JXL", "b.jxl", "c.svg", "README", ".DS_Store"] {
            std::fs::write(directory.path().join(name), "")?;
        }
        let images = ImageInputs::new(vec![root], None);
        let error = images.names().err().map(|error| error.to_string()).unwrap_or_default();
        let counts = "2 .jxl, 1 without an ending, 1 .svg (convert such images to PNG or JPEG)";
        assert!(error.ends_with(&format!("; found {counts}")), "{error}");
        std::fs::write(directory.path().join("d.jfif"), "")?;
        assert_eq!(images.names()?.count(), 1);
        assert_eq!(images.ignored_files().to_string(), counts);
        Ok(())
    }

    #[test]
    fn images_without_a_name_have_the_key_of_their_row() -> TestResult {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("photos.parquet");
        std::fs::write(&path, "")?;
        let images = ImageInputs::new(Vec::new(), Some(ListFile::open(&path, None)?));
        assert_eq!(images.key_of("row 7"), format!("{}:7", path.display()));
        for name in ["row x", "a/row 7", "cat.png"] {
            assert_eq!(images.key_of(name), name);
        }
        assert_eq!(ImageInputs::default().key_of("row 7"), "row 7");
        Ok(())
    }

    #[test]
    fn folders_and_patterns_come_in_order() -> TestResult {
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        std::fs::create_dir(root.join("b"))?;
        for name in ["c.PNG", "b/z.jpg", "b/a.webp", "a.gif", "notes.txt", "b.png"] {
            std::fs::write(root.join(name), "")?;
        }
        let names = |patterns: &[&str]| -> TestResult<Vec<String>> {
            let patterns = patterns.iter().map(|name| root.join(name).display().to_string()).collect();
            let paths = ImageInputs::new(patterns, None).names()?;
            paths.map(|path| Ok(path?.strip_prefix(root)?.display().to_string())).collect()
        };
        assert_eq!(names(&[""])?, ["a.gif", "b/a.webp", "b/z.jpg", "b.png", "c.PNG"]);
        assert_eq!(names(&["c.PNG", "*.*"])?, ["c.PNG", "a.gif", "b.png", "c.PNG", "notes.txt"]);
        assert_eq!(names(&["**/*.webp", "missing.png"])?, ["b/a.webp", "missing.png"]);
        for pattern in ["*.bmp", "[", "a/*"] {
            assert!(names(&[pattern]).is_err(), "{pattern}");
        }
        Ok(())
    }
}
