//! The images to be embedded: files, patterns, directories and lists, in an order that is always the same.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use altclip_encoder::embedder::ImageSource;
use altclip_encoder::images::{IMAGE_ENDINGS, advice};
use anyhow::{Context, Result, anyhow, bail, ensure};
use walkdir::{DirEntry, WalkDir};

use super::list::{Items, List};

/// Images from the command line, and those of a list after them.
pub struct Images {
    arguments: Vec<String>,
    list: Option<List>,
    left_out: Arc<Mutex<LeftOut>>,
}

impl Images {
    /// Those of the arguments, and of the list.
    pub fn new(arguments: Vec<String>, list: Option<List>) -> Self {
        Self { arguments, list, left_out: Arc::default() }
    }

    /// The files of directories that were left out the last time when all images were gone through, if there are any.
    pub fn left_out(&self) -> Option<LeftOut> {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!left_out.0.is_empty()).then_some(left_out)
    }

    /// The images in turn. Whether there are any at the paths is not known yet.
    ///
    /// # Errors
    /// If a pattern is none or fits no file, a directory holds no image, or the list cannot be read or is empty.
    pub fn iter(&self) -> Result<Items<ImageSource>> {
        let arguments = self.paths()?.map(|path| Ok(path?.into()));
        Ok(Box::new(arguments.chain(self.listed(List::images)?)))
    }

    /// What each of the images is called.
    ///
    /// # Errors
    /// As for the images.
    pub fn names(&self) -> Result<Items<PathBuf>> {
        Ok(Box::new(self.paths()?.chain(self.listed(List::image_names)?)))
    }

    /// The paths that the arguments stand for.
    fn paths(&self) -> Result<Items<PathBuf>> {
        let mut paths: Items<PathBuf> = Box::new(std::iter::empty());
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
        for argument in &self.arguments {
            let more = expand(argument, &self.left_out).with_context(|| format!("--image {argument}"))?;
            paths = Box::new(paths.chain(more));
        }
        Ok(paths)
    }

    fn listed<T: Send + 'static>(&self, read: impl FnOnce(&List) -> Result<Items<T>>) -> Result<Items<T>> {
        let Some(list) = &self.list else { return Ok(Box::new(std::iter::empty())) };
        let mut items = read(list)?.peekable();
        ensure!(items.peek().is_some(), "{}: expected at least one image, found none", list.name());
        Ok(Box::new(items))
    }
}

/// What an argument stands for: a directory's images, the files that fit a pattern, or itself.
fn expand(argument: &str, left_out: &Arc<Mutex<LeftOut>>) -> Result<Items<PathBuf>> {
    let path = Path::new(argument);
    if path.is_dir() {
        let mut found = walk(path, Arc::clone(left_out)).peekable();
        if found.peek().is_none() {
            let endings =
                IMAGE_ENDINGS.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(", ");
            let left_out = left_out.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("no images in this directory, which would end in {endings}; found {left_out}");
        }
        return Ok(Box::new(found));
    }
    // A name with such characters is that of a file, if there is one.
    if path.exists() || !argument.contains(['*', '?', '[']) {
        return Ok(Box::new(std::iter::once(Ok(path.to_owned()))));
    }
    let found = glob::glob(argument).map_err(|error| anyhow!("no valid pattern: {}", error.msg))?;
    let found = found.map(|entry| entry.unwrap_or_else(|error| error.path().to_owned()));
    let mut found = found.filter(|path| !path.is_dir()).map(anyhow::Ok).peekable();
    ensure!(found.peek().is_some(), "no file fits this pattern");
    Ok(Box::new(found))
}

/// The images of a directory and of those in it, by their names. What cannot be looked into is given as it is, so that
/// it is reported like any other path without an image.
fn walk(directory: &Path, left_out: Arc<Mutex<LeftOut>>) -> impl Iterator<Item = Result<PathBuf>> + use<> {
    let entries = WalkDir::new(directory).follow_links(true).sort_by_file_name().into_iter();
    entries.filter_map(move |entry| match entry {
        Ok(entry) if !entry.file_type().is_file() => None,
        Ok(entry) => {
            let ending = ending(&entry);
            if IMAGE_ENDINGS.contains(&ending.as_str()) {
                return Some(Ok(entry.into_path()));
            }
            left_out.lock().unwrap_or_else(PoisonError::into_inner).add(&entry, ending);
            None
        }
        Err(error) => Some(error.path().map(Path::to_owned).ok_or_else(|| error.into())),
    })
}

fn ending(entry: &DirEntry) -> String {
    entry.path().extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Files that were left out, by their endings.
#[derive(Debug, Clone, Default)]
pub struct LeftOut(BTreeMap<String, usize>);

impl LeftOut {
    /// Counts a file, unless it is a hidden one.
    fn add(&mut self, entry: &DirEntry, ending: String) {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            *self.0.entry(ending).or_default() += 1;
        }
    }
}

/// Such as `3 .avif, 2 .heic, 1 .txt (convert .avif and .heic images to PNG or JPEG)`, the most frequent first.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(**count));
        let count = |(ending, count): &(&String, &usize)| match ending.as_str() {
            "" => format!("{count} without an ending"),
            ending => format!("{count} .{ending}"),
        };
        match counts.as_slice() {
            [] => f.write_str("no other files"),
            counts => f.write_str(&counts.iter().map(count).collect::<Vec<_>>().join(", ")),
        }?;
        match self.0.keys().find_map(|ending| advice(ending)) {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_by_its_ending() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().display().to_string();
        for name in ["a.JXL", "b.jxl", "c.svg", "README", ".DS_Store"] {
            std::fs::write(directory.path().join(name), "")?;
        }
        let images = Images::new(vec![root], None);
        let error = images.names().err().map(|error| format!("{error:#}")).unwrap_or_default();
        let counts = "2 .jxl, 1 without an ending, 1 .svg (convert such images to PNG or JPEG)";
        assert!(error.ends_with(&format!("; found {counts}")), "{error}");
        std::fs::write(directory.path().join("d.jfif"), "")?;
        assert_eq!(images.names()?.count(), 1);
        assert_eq!(images.left_out().map(|files| files.to_string()).as_deref(), Some(counts));
        Ok(())
    }

    #[test]
    fn directories_and_patterns_come_in_order() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        std::fs::create_dir(root.join("b"))?;
        for name in ["c.PNG", "b/z.jpg", "b/a.webp", "a.gif", "notes.txt", "b.png"] {
            std::fs::write(root.join(name), "")?;
        }
        let names = |arguments: &[&str]| -> Result<Vec<String>> {
            let arguments = arguments.iter().map(|name| root.join(name).display().to_string()).collect();
            let paths = Images::new(arguments, None).names()?;
            paths.map(|path| Ok(path?.strip_prefix(root)?.display().to_string())).collect()
        };
        assert_eq!(names(&[""])?, ["a.gif", "b/a.webp", "b/z.jpg", "b.png", "c.PNG"]);
        assert_eq!(names(&["c.PNG", "*.*"])?, ["c.PNG", "a.gif", "b.png", "c.PNG", "notes.txt"]);
        assert_eq!(names(&["**/*.webp", "missing.png"])?, ["b/a.webp", "missing.png"]);
        for argument in ["*.bmp", "[", "a/*"] {
            assert!(names(&[argument]).is_err(), "{argument}");
        }
        Ok(())
    }
}
