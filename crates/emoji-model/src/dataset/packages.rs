//! Reads the npm packages of the data set, unpacked or as `npm pack` archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::error::{Error, Result};

/// Larger than any file needed; an archive that claims more is damaged.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// An npm package on disk.
#[derive(Debug)]
pub(super) enum Package {
    /// A folder of the package's files, as in `node_modules`.
    Folder(PathBuf),
    /// A gzipped tar archive with entries under `package/`.
    Archive(PathBuf),
}

impl Package {
    /// Finds the package `name` in `directory`: the folder `name` (or `node_modules/name`), or else
    /// `name-VERSION.tgz`.
    pub(super) fn find(directory: &Path, name: &str) -> Result<Self> {
        for folder in [directory.join(name), directory.join("node_modules").join(name)] {
            if folder.join("package.json").is_file() {
                return Ok(Package::Folder(folder));
            }
        }
        let mut archives = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
            let path = entry.map_err(Error::io(directory))?.path();
            let file_name = path.file_name().unwrap_or_default().to_string_lossy();
            let version = file_name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            let is_version =
                version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()) && v.ends_with(".tgz"));
            if is_version {
                archives.push(path);
            }
        }
        archives.sort();
        match archives.as_slice() {
            [archive] => Ok(Package::Archive(archive.clone())),
            [] => Err(Error::data(
                directory,
                format!(
                    "expected the npm package {name}, as a folder {name} or as {name}-VERSION.tgz; found neither"
                ),
            )),
            [first, second, ..] => Err(Error::data(
                directory,
                format!("expected one version of {name}, found {} and {}", first.display(), second.display()),
            )),
        }
    }

    /// The package's path, for errors.
    pub(super) fn path(&self) -> &Path {
        match self {
            Package::Folder(path) | Package::Archive(path) => path,
        }
    }

    /// Reads the files at `wanted`, keyed by their path in the package. A path that ends in `/` stands for every file
    /// directly in that folder. Missing files are left out.
    pub(super) fn read(&self, wanted: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
        match self {
            Package::Folder(folder) => read_folder(folder, wanted),
            Package::Archive(archive) => read_archive(archive, wanted),
        }
    }
}

fn read_folder(folder: &Path, wanted: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for path in wanted {
        let full = folder.join(path);
        if !path.ends_with('/') {
            if full.is_file() {
                files.insert(path.clone(), std::fs::read(&full).map_err(Error::io(&full))?);
            }
        } else if full.is_dir() {
            for entry in std::fs::read_dir(&full).map_err(Error::io(&full))? {
                let entry = entry.map_err(Error::io(&full))?.path();
                if let (true, Some(name)) =
                    (entry.is_file(), entry.file_name().and_then(|name| name.to_str()))
                {
                    files.insert(format!("{path}{name}"), std::fs::read(&entry).map_err(Error::io(&entry))?);
                }
            }
        }
    }
    Ok(files)
}

fn read_archive(archive: &Path, wanted: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = File::open(archive).map_err(Error::io(archive))?;
    let mut reader = tar::Archive::new(GzDecoder::new(std::io::BufReader::new(file)));
    let mut files = BTreeMap::new();
    for entry in reader.entries().map_err(Error::io(archive))? {
        let mut entry = entry.map_err(Error::io(archive))?;
        let path = entry.path().map_err(Error::io(archive))?.to_string_lossy().into_owned();
        let Some(path) = path.strip_prefix("package/") else {
            continue;
        };
        if !entry.header().entry_type().is_file() || !wanted.iter().any(|wanted| is_wanted(path, wanted)) {
            continue;
        }
        if entry.size() > MAX_FILE_BYTES {
            return Err(Error::data(
                archive,
                format!("{path} claims {} bytes; expected at most {MAX_FILE_BYTES}", entry.size()),
            ));
        }
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).map_err(Error::io(archive))?;
        files.insert(path.to_owned(), contents);
    }
    Ok(files)
}

fn is_wanted(path: &str, wanted: &str) -> bool {
    if !wanted.ends_with('/') {
        return path == wanted;
    }
    path.strip_prefix(wanted).is_some_and(|name| !name.is_empty() && !name.contains('/'))
}
