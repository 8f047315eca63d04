//! Reads the files of a plan on another thread, and passes on those whose content is new.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use altclip_encoder::embedder::ImageSource;

use super::metadata::{self, Facts, Hash};

/// Files with more bytes than this are read again when they are decoded.
const LARGE: usize = 8 << 20;

/// What was read of the files so far. Files are known by their numbers in the plan.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Of the files that were passed on, until their vectors come.
    passed_on: HashMap<PathBuf, (usize, Facts)>,
    /// Files whose content is that of an image before them.
    copies: Vec<(usize, Facts)>,
    /// Files that cannot be read, and why.
    unread: Vec<(usize, String)>,
}

/// A handle to what another thread reads.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedFindings(Arc<Mutex<Findings>>);

impl SharedFindings {
    fn lock(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads files one after the other. Yields those whose content is not among the `known` ones.
    pub(super) fn read(
        &self,
        paths: Vec<String>,
        mut known: HashSet<Hash>,
    ) -> impl Iterator<Item = ImageSource> + Send + use<> {
        let findings = self.clone();
        paths.into_iter().enumerate().filter_map(move |(number, path)| {
            let path = PathBuf::from(path);
            match metadata::read(&path) {
                Err(problem) => findings.lock().unread.push((number, problem)),
                Ok((facts, _)) if !known.insert(facts.hash) => findings.lock().copies.push((number, facts)),
                Ok((facts, bytes)) => {
                    findings.lock().passed_on.insert(path.clone(), (number, facts));
                    // Those that wait for the model are in memory together.
                    return Some(match bytes.len() > LARGE {
                        true => ImageSource::Path(path),
                        false => ImageSource::Bytes { name: path, bytes },
                    });
                }
            }
            None
        })
    }

    /// The number of a file that was passed on, and what was read of it.
    pub(super) fn take(&self, path: &Path) -> Option<(usize, Facts)> {
        self.lock().passed_on.remove(path)
    }

    /// The copies since the last call.
    pub(super) fn take_copies(&self) -> Vec<(usize, Facts)> {
        std::mem::take(&mut self.lock().copies)
    }

    /// The files since the last call that cannot be read, and why.
    pub(super) fn take_unread(&self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.lock().unread)
    }
}
