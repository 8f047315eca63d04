//! Keeps unfinished work in a folder beside its output, so that a job can be stopped and resumed.
//!
//! Vectors and items are appended to files, and a small file records how much of them is valid. What a killed process
//! wrote beyond that is truncated by the next one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use altclip_encoder::images::Background;
use serde::{Deserialize, Serialize};

use super::partial_rows::{Counts, PartialRows};
use super::row_sink::is_due;
use crate::error::{Error, JobDifference, Result};
use crate::output::parquet_folder;

const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";
const LOCK: &str = "lock";
const ASSEMBLED: &str = "assembled";
/// An unfinished file of an assembled folder.
const UNFINISHED: &str = "assembled.part";
/// An earlier folder that the assembled one replaces.
const REPLACED: &str = "replaced";

/// What the vectors depend on. Vectors with different settings do not go into one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobSettings {
    pub(super) model: String,
    /// The digest of the vectors of a text and an image: other weights or another device give other bits.
    pub(super) model_digest: String,
    pub(super) dtype: String,
    pub(super) width: usize,
    pub(super) raw: bool,
    /// The background of transparent images.
    #[serde(default)]
    pub(super) background: Background,
    pub(super) texts_digest: String,
    pub(super) images_digest: String,
}

impl JobSettings {
    /// The first difference, if there is any.
    fn difference(&self, other: &Self) -> Option<JobDifference> {
        let differences = [
            (self.model != other.model, JobDifference::Model),
            (self.dtype != other.dtype, JobDifference::Dtype),
            (self.raw != other.raw, JobDifference::Normalization),
            (self.background != other.background, JobDifference::Background),
            (self.texts_digest != other.texts_digest, JobDifference::Texts),
            (self.images_digest != other.images_digest, JobDifference::Images),
            (self != other, JobDifference::Weights),
        ];
        differences.into_iter().find_map(|(differs, difference)| differs.then_some(difference))
    }
}

#[derive(Serialize, Deserialize)]
struct SavedState {
    settings: JobSettings,
    texts: Counts,
    images: Counts,
}

/// The folder of unfinished work.
pub(super) struct Partial {
    directory: PathBuf,
    settings: JobSettings,
    pub(super) texts: PartialRows,
    pub(super) images: PartialRows,
    saved: Option<Instant>,
    _lock: File,
}

impl Partial {
    /// The folder of unfinished work for a file.
    pub(super) fn directory_of(output: &Path) -> PathBuf {
        let mut name = output.file_name().map_or_else(OsString::new, OsString::from);
        name.push(".partial");
        output.with_file_name(name)
    }

    /// Starts the work for `output`, or resumes it if `resume` is set.
    ///
    /// # Errors
    /// If there is work with other settings, another process is running it, or the folder cannot be read or written.
    pub(super) fn open(output: &Path, settings: JobSettings, resume: bool) -> Result<Self> {
        let directory = Self::directory_of(output);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io(&directory)(error));
            }
            _ => {}
        }
        let lock = lock(&directory)?;
        let saved = if resume { read_state(&directory)? } else { None };
        let (texts, images) = match saved {
            None => {
                // Of a job that is not resumed.
                remove_folder(&directory.join(ASSEMBLED))?;
                Default::default()
            }
            Some(state) => {
                if let Some(difference) = state.settings.difference(&settings) {
                    return Err(Error::OtherJob { folder: directory, difference });
                }
                (state.texts, state.images)
            }
        };
        let texts = PartialRows::open(&directory, "texts", settings.width, texts)?;
        let images = PartialRows::open(&directory, "images", settings.width, images)?;
        Ok(Self { directory, settings, texts, images, saved: None, _lock: lock })
    }

    /// The folder.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Flushes the work if that is due. Call it where the work can be resumed with the same result.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub(super) fn save_if_due(&mut self) -> Result<()> {
        if is_due(self.saved) { self.save() } else { Ok(()) }
    }

    /// Flushes the work.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub(super) fn save(&mut self) -> Result<()> {
        self.flush().map_err(Error::io(&self.directory))?;
        let state = SavedState {
            settings: self.settings.clone(),
            texts: self.texts.counts(),
            images: self.images.counts(),
        };
        let json =
            serde_json::to_vec_pretty(&state).map_err(|error| Error::format(&self.directory, error))?;
        replace(&self.directory, &json).map_err(Error::io(&self.directory))?;
        self.saved = Some(Instant::now());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.texts.flush()?;
        self.images.flush()
    }

    /// Writes the file or folder at `output` with `write`, which gets the path to write to, and removes the folder
    /// of unfinished work.
    ///
    /// # Errors
    /// If `write` fails, or the result cannot be put in its place.
    pub(super) fn finish(
        mut self,
        output: &Path,
        write: impl FnOnce(&Self, &Path) -> Result<()>,
    ) -> Result<()> {
        self.save()?;
        let assembled = self.directory.join(ASSEMBLED);
        write(&self, &assembled)?;
        if assembled.is_dir() && output.exists() {
            self.make_way(output)?;
        }
        fs::rename(&assembled, output).map_err(Error::io(output))?;
        self.discard();
        Ok(())
    }

    /// Moves an earlier folder away, because a folder can only be renamed to an empty one.
    fn make_way(&self, output: &Path) -> Result<()> {
        parquet_folder::check(output)?;
        let replaced = self.directory.join(REPLACED);
        remove_folder(&replaced)?;
        fs::rename(output, replaced).map_err(Error::io(output))
    }

    /// Removes the folder, except other programs' files. Failing to is harmless.
    pub(super) fn discard(self) {
        let directory = self.directory.clone();
        let of_rows =
            [&self.texts, &self.images].map(|rows| [rows.vectors_path.clone(), rows.items_path.clone()]);
        let others = [STATE, NEW_STATE, ASSEMBLED, UNFINISHED, LOCK].map(|name| directory.join(name));
        // Some systems cannot remove open files.
        drop(self);
        for path in of_rows.iter().flatten().chain(&others) {
            let _ = fs::remove_file(path);
        }
        let replaced = remove_folder(&directory.join(REPLACED));
        if let Err(error) = replaced.and_then(|()| fs::remove_dir(&directory).map_err(Error::io(&directory)))
        {
            tracing::debug!("{error}");
        }
    }
}

/// Removes a folder if it is there.
fn remove_folder(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    fs::remove_dir_all(folder).map_err(Error::io(folder))
}

/// Two processes appending to the same files would corrupt them.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::Busy { folder: directory.to_owned() }),
        // Some file systems have no locks.
        Err(TryLockError::Error(error)) => tracing::debug!("no lock: {error}"),
        Ok(()) => {}
    }
    Ok(file)
}

/// Writes the state atomically.
fn replace(directory: &Path, state: &[u8]) -> io::Result<()> {
    let new = directory.join(NEW_STATE);
    let mut file = File::create(&new)?;
    file.write_all(state)?;
    file.sync_all()?;
    fs::rename(new, directory.join(STATE))
}

fn read_state(directory: &Path) -> Result<Option<SavedState>> {
    let json = match fs::read(directory.join(STATE)) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(directory.join(STATE))(error)),
    };
    match serde_json::from_slice(&json) {
        Ok(state) => Ok(Some(state)),
        Err(error) => {
            let problem = format!("{STATE} cannot be understood ({error}); delete this folder to start anew");
            Err(Error::format(directory, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    fn settings() -> JobSettings {
        let text = || "x".to_owned();
        JobSettings {
            model: text(),
            model_digest: text(),
            dtype: text(),
            width: 2,
            raw: false,
            background: Background::None,
            texts_digest: text(),
            images_digest: text(),
        }
    }

    fn written(partial: &Partial) -> TestResult<(Vec<u8>, String)> {
        Ok((fs::read(&partial.texts.vectors_path)?, fs::read_to_string(&partial.texts.items_path)?))
    }

    #[test]
    fn what_was_not_saved_is_cut_off() -> TestResult {
        let directory = tempfile::tempdir()?;
        let output = directory.path().join("a.npy");
        let mut partial = Partial::open(&output, settings(), true)?;
        partial.texts.push("猫\n", &[1., 2.])?;
        partial.texts.skip();
        partial.save()?;
        let saved = written(&partial)?;
        partial.texts.push("lost", &[3., 4.])?;
        partial.flush()?;
        drop(partial);
        let partial = Partial::open(&output, settings(), true)?;
        assert_eq!((partial.texts.counts().done, partial.texts.counts().rows), (2, 1));
        assert_eq!(written(&partial)?, saved);
        assert_eq!(saved.1, "\"猫\\n\"\n");
        let bytes = saved.0.clone();
        partial.finish(&output, |_, path| fs::write(path, bytes).map_err(Error::io(path)))?;
        assert_eq!(fs::read(&output)?, saved.0);
        assert_eq!(fs::read_dir(directory.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn other_settings_and_other_runs_are_refused() -> TestResult {
        let directory = tempfile::tempdir()?;
        let output = directory.path().join("a.npy");
        let message = |settings| Partial::open(&output, settings, true).err().map(|error| error.to_string());
        let mut partial = Partial::open(&output, settings(), true)?;
        partial.save()?;
        assert!(message(settings()).is_some_and(|error| error.contains("another run is at work")));
        drop(partial);
        let other = JobSettings { raw: true, ..settings() };
        assert!(message(other).is_some_and(|error| {
            error.contains("a.npy.partial: begun with the other choice of normalization")
        }));
        let state = Partial::directory_of(&output).join(STATE);
        let damaged = fs::read_to_string(&state)?.replace("\"rows\": 0", "\"rows\": 9");
        fs::write(&state, damaged)?;
        assert!(
            message(settings()).is_some_and(|error| error.contains("expected at least 72 bytes, found 0"))
        );
        fs::write(&state, "{")?;
        assert!(message(settings()).is_some_and(|error| error.contains("state.json cannot be understood")));
        Ok(())
    }
}
