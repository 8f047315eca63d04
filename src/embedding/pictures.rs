//! The pictures to be embedded: files, patterns, directories and lists, in an order that is always the same.

use std::path::{Path, PathBuf};

use altclip_encoder::embedder::PictureFile;
use altclip_encoder::picture::PICTURE_ENDINGS;
use anyhow::{Context, Result, anyhow, ensure};
use walkdir::{DirEntry, WalkDir};

use super::list::{Items, List};

/// Pictures from the command line, and those of a list after them.
pub struct Pictures {
    pub arguments: Vec<String>,
    pub list: Option<List>,
}

impl Pictures {
    /// The pictures in turn. Whether there are any at the paths is not known yet.
    ///
    /// # Errors
    /// If a pattern is none or fits no file, a directory holds no picture, or the list cannot be read or is empty.
    pub fn iter(&self) -> Result<Items<PictureFile>> {
        let arguments = self.paths()?.map(|path| Ok(path?.into()));
        Ok(Box::new(arguments.chain(self.listed(List::pictures)?)))
    }

    /// What each of the pictures is called.
    ///
    /// # Errors
    /// As for the pictures.
    pub fn names(&self) -> Result<Items<PathBuf>> {
        Ok(Box::new(self.paths()?.chain(self.listed(List::picture_names)?)))
    }

    /// The paths that the arguments stand for.
    fn paths(&self) -> Result<Items<PathBuf>> {
        let mut paths: Items<PathBuf> = Box::new(std::iter::empty());
        for argument in &self.arguments {
            let more = expand(argument).with_context(|| format!("--image {argument}"))?;
            paths = Box::new(paths.chain(more));
        }
        Ok(paths)
    }

    fn listed<T: Send + 'static>(&self, read: impl FnOnce(&List) -> Result<Items<T>>) -> Result<Items<T>> {
        let Some(list) = &self.list else { return Ok(Box::new(std::iter::empty())) };
        let mut items = read(list)?.peekable();
        ensure!(items.peek().is_some(), "{}: expected at least one picture, found none", list.name());
        Ok(Box::new(items))
    }
}

/// What an argument stands for: a directory's pictures, the files that fit a pattern, or itself.
fn expand(argument: &str) -> Result<Items<PathBuf>> {
    let path = Path::new(argument);
    if path.is_dir() {
        let mut found = walk(path).peekable();
        let endings = PICTURE_ENDINGS.map(|ending| format!(".{ending}")).join(", ");
        ensure!(found.peek().is_some(), "no pictures in this directory, which would end in {endings}");
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

/// The pictures of a directory and of those in it, by their names. What cannot be looked into is given as it is, so that
/// it is reported like any other path without a picture.
fn walk(directory: &Path) -> impl Iterator<Item = Result<PathBuf>> + use<> {
    let entries = WalkDir::new(directory).follow_links(true).sort_by_file_name().into_iter();
    entries.filter_map(|entry| match entry {
        Ok(entry) => is_picture(&entry).then(|| Ok(entry.into_path())),
        Err(error) => Some(error.path().map(Path::to_owned).ok_or_else(|| error.into())),
    })
}

fn is_picture(entry: &DirEntry) -> bool {
    let ending = entry.path().extension().unwrap_or_default().to_string_lossy().to_lowercase();
    entry.file_type().is_file() && PICTURE_ENDINGS.contains(&ending.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let paths = Pictures { arguments, list: None }.names()?;
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
