//! Lists and removes cached models.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::folders::{entries, files_below};
use super::names::{FOLDER_PREFIX, folder_name, is_repository_id};
use crate::error::{Error, Result};

/// The models in a Hugging Face cache.
#[derive(Debug)]
pub struct CachedModels {
    cache: PathBuf,
}

/// A commit of a repository, as far as it is cached.
#[derive(Debug)]
pub struct CachedModel {
    /// The repository, such as `BAAI/AltDiffusion-m9`.
    pub name: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The branches and tags last seen at this commit.
    pub revisions: Vec<String>,
    /// Where its files are.
    pub path: PathBuf,
    /// The size of its files, in bytes; commits may share some.
    pub size: u64,
    /// When its last file was downloaded.
    pub modified: Option<SystemTime>,
}

impl CachedModels {
    /// The models in the directory `cache`.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { cache: cache.into() }
    }

    /// All models, by name and then by time.
    ///
    /// # Errors
    /// If the cache cannot be read. A missing one is empty.
    pub fn list(&self) -> Result<Vec<CachedModel>> {
        let mut models = Vec::new();
        for folder in entries(&self.cache)? {
            let name = folder
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix(FOLDER_PREFIX));
            let name = name.filter(|_| folder.is_dir());
            let Some(name) = name.map(|name| name.replacen("--", "/", 1)) else { continue };
            models.extend(commits(&folder, &name)?);
        }
        models.sort_by(|a, b| a.name.cmp(&b.name).then(a.modified.cmp(&b.modified)));
        Ok(models)
    }

    /// Removes the model called `name`: all commits of `org/name`, or only that of `org/name@revision`. Returns the
    /// bytes freed.
    ///
    /// # Errors
    /// If there is no such model, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<u64> {
        let (id, revision) = name.split_once('@').map_or((name, None), |(id, revision)| (id, Some(revision)));
        let folder = self.cache.join(folder_name(id));
        if !is_repository_id(id) || !folder.is_dir() {
            return Err(Error::Input(format!("{name}: no such model in the cache {}", self.cache.display())));
        }
        let before = size_of(&folder)?;
        match revision {
            None => {
                remove_folder(&folder)?;
                let locks = self.cache.join(".locks").join(folder_name(id));
                if locks.exists() {
                    remove_folder(&locks)?;
                }
                Ok(before)
            }
            Some(revision) => {
                remove_commit(&folder, id, revision)?;
                Ok(before.saturating_sub(size_of(&folder)?))
            }
        }
    }
}

/// The commits in the folder of one repository.
fn commits(folder: &Path, name: &str) -> Result<Vec<CachedModel>> {
    let mut refs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let root = folder.join("refs");
    for path in files_below(&root)? {
        // Of what desktops leave there, such as .DS_Store, nothing is the name of a commit.
        let commit = fs::read(&path).map_err(Error::io(path.display().to_string()))?;
        let commit = String::from_utf8_lossy(&commit).trim().to_owned();
        let revision = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        refs.entry(commit).or_default().push(revision);
    }
    let mut found = Vec::new();
    for path in entries(&folder.join("snapshots"))? {
        let commit = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_dir());
        let Some(commit) = commit else { continue };
        let (mut size, mut modified) = (0, None);
        for file in files_below(&path)? {
            // A dangling link takes no space.
            let Ok(metadata) = fs::metadata(&file) else { continue };
            size += metadata.len();
            modified = modified.max(metadata.modified().ok());
        }
        found.push(CachedModel {
            name: name.to_owned(),
            commit: commit.to_owned(),
            revisions: refs.remove(commit).unwrap_or_default(),
            size,
            modified,
            path,
        });
    }
    Ok(found)
}

/// Removes a commit, and contents that no other one uses.
fn remove_commit(folder: &Path, name: &str, revision: &str) -> Result<()> {
    let all = commits(folder, name)?;
    let is_meant = |model: &&CachedModel| {
        model.revisions.iter().any(|known| known == revision) || model.commit.starts_with(revision)
    };
    let mut meant = all.iter().filter(is_meant);
    let (Some(model), None) = (meant.next(), meant.next()) else {
        let known: Vec<_> = all.iter().map(|model| model.commit.as_str()).collect();
        let known = known.join(", ");
        return Err(Error::Input(format!(
            "{name}@{revision}: expected one of the commits in the cache, {known}"
        )));
    };
    for known in &model.revisions {
        let path = folder.join("refs").join(known);
        fs::remove_file(&path).map_err(Error::io(path.display().to_string()))?;
    }
    remove_folder(&model.path)?;
    let absent = folder.join(".no_exist").join(&model.commit);
    if absent.exists() {
        remove_folder(&absent)?;
    }
    let mut used = HashSet::new();
    for file in files_below(&folder.join("snapshots"))? {
        used.extend(fs::canonicalize(&file).ok());
    }
    for blob in entries(&folder.join("blobs"))? {
        if !fs::canonicalize(&blob).is_ok_and(|blob| used.contains(&blob)) {
            fs::remove_file(&blob).map_err(Error::io(blob.display().to_string()))?;
        }
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(Error::io(path.display().to_string()))
}

/// The size of all files below a directory, without links.
fn size_of(folder: &Path) -> Result<u64> {
    let sizes = files_below(folder)?.into_iter().filter_map(|file| file.symlink_metadata().ok());
    Ok(sizes.filter(fs::Metadata::is_file).map(|metadata| metadata.len()).sum())
}
