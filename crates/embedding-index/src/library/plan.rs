//! Compares folders with a library.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use super::ImageLibrary;
use super::metadata::Stamp;
use super::problem::at;
use super::rows::{KnownFile, below};
use super::scan::{FoundFile, Scan};
use crate::error::{Error, Result};

/// A file to read.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) path: String,
    pub(super) found: FoundFile,
    /// The content that the library knows it by, if it knows the file.
    pub(super) before: Option<Option<i64>>,
}

/// What an update of a library has to do.
#[derive(Debug, Default)]
pub struct UpdatePlan {
    /// Folders to follow from now on.
    pub(super) folders: Vec<String>,
    pub(super) candidates: Vec<Candidate>,
    /// Files with another caption than before.
    pub(super) recaptioned: Vec<(String, FoundFile)>,
    pub(super) gone: Vec<(String, Option<i64>)>,
    pub(super) unchanged: usize,
    /// Unreadable files that have not changed, and why they are unreadable.
    pub(super) still_unreadable: Vec<(String, String)>,
    pub(super) scan: Scan,
}

impl UpdatePlan {
    /// The number of files that are new or may have changed. If there are none, no embedder is needed.
    pub fn files_to_read(&self) -> usize {
        self.candidates.len()
    }
}

impl ImageLibrary {
    /// Compares folders with the library, or if there are none given, all that it follows. No file is opened: size and
    /// time of modification tell which may have changed.
    ///
    /// # Errors
    /// If a folder is missing: its images count as gone only if it is there without them. Also if the database cannot be
    /// read.
    pub fn plan(&self, folders: &[PathBuf]) -> Result<UpdatePlan> {
        let followed = self.folders()?;
        let roots: Vec<PathBuf> = match folders {
            [] => followed.iter().map(PathBuf::from).collect(),
            given => given.to_vec(),
        };
        if roots.is_empty() {
            return Err(Error::Input("expected a folder, for the index follows none yet".to_owned()));
        }
        let mut plan = UpdatePlan::default();
        let mut known: HashMap<String, KnownFile> = HashMap::new();
        for root in roots {
            let expected = |found: &str| {
                let problem = format!("expected a folder, found {found}");
                Error::format(&root, problem)
            };
            let root_path = fs::canonicalize(&root).map_err(Error::io(&root))?;
            if !root_path.is_dir() {
                return Err(expected("a file"));
            }
            let Some(name) = root_path.to_str() else { return Err(expected("a name that is not in UTF-8")) };
            let is_followed = followed.iter().any(|folder| root_path.starts_with(folder));
            if !is_followed {
                plan.folders.push(name.to_owned());
            }
            read_known(&self.connection, name, &mut known).map_err(at(&self.file))?;
            plan.scan.add(&root_path);
        }
        plan.compare(known);
        Ok(plan)
    }
}

impl UpdatePlan {
    fn compare(&mut self, mut known: HashMap<String, KnownFile>) {
        for (path, found) in &self.scan.files {
            let (path, found) = (path.clone(), *found);
            let Some(file) = known.remove(&path) else {
                self.candidates.push(Candidate { path, found, before: None });
                continue;
            };
            if file.found.stamp != found.stamp {
                self.candidates.push(Candidate { path, found, before: Some(file.content) });
                continue;
            }
            match file.problem {
                Some(problem) => self.still_unreadable.push((path.clone(), problem)),
                None => self.unchanged += 1,
            }
            if file.found.caption_modified != found.caption_modified {
                self.recaptioned.push((path, found));
            }
        }
        for (path, file) in known {
            match self.scan.is_unknown(&path) {
                true => self.unchanged += 1,
                false => self.gone.push((path, file.content)),
            }
        }
        self.gone.sort();
    }
}

/// Adds what the library knows of the files below a folder.
fn read_known(
    connection: &Connection,
    folder: &str,
    known: &mut HashMap<String, KnownFile>,
) -> rusqlite::Result<()> {
    let (first, end) = below(folder);
    let mut statement = connection.prepare(
        "SELECT path, size, modified, content, problem, caption_modified FROM files WHERE path >= ?1 AND path < ?2",
    )?;
    let mut rows = statement.query([first, end])?;
    while let Some(row) = rows.next()? {
        let stamp = Stamp { size: row.get(1)?, modified: row.get(2)? };
        let found = FoundFile { stamp, caption_modified: row.get(5)? };
        known.insert(row.get(0)?, KnownFile { found, content: row.get(3)?, problem: row.get(4)? });
    }
    Ok(())
}
