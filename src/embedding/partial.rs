//! Work that is not done yet, in a folder beside the file that it will be, so that it can be stopped and go on.
//!
//! Vectors and items are appended to files, and a small file says how much of them counts. What a run that was killed
//! wrote beyond that is cut off by the next one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use altclip_encoder::images::Background;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How often what was done is made sure of.
const SAVE_EVERY: Duration = Duration::from_millis(500);

const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";
const LOCK: &str = "lock";
const ASSEMBLED: &str = "assembled";

/// What the vectors depend on. Vectors of different settings do not go into one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub model: String,
    /// Digest of the vectors of a text and an image: other weights or another device give other bits.
    pub model_digest: String,
    pub dtype: String,
    pub width: usize,
    pub raw: bool,
    /// What transparent images are laid on.
    #[serde(default)]
    pub background: Background,
    pub texts_digest: String,
    pub images_digest: String,
}

impl Settings {
    /// What is different, in words.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let differences = [
            (self.model != other.model, "another --model"),
            (self.dtype != other.dtype, "another --dtype"),
            (self.raw != other.raw, "the other choice of --raw"),
            (self.background != other.background, "another --background"),
            (self.texts_digest != other.texts_digest, "other texts"),
            (self.images_digest != other.images_digest, "other images"),
        ];
        let found = differences.into_iter().find_map(|(differs, what)| differs.then_some(what));
        found.or_else(|| (self != other).then_some("other weights, or on another device"))
    }
}

/// How much of the texts or of the images is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Items that were looked at.
    pub done: usize,
    /// Those of them that have a vector.
    pub rows: usize,
    /// Length of the file of items.
    item_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct State {
    settings: Settings,
    texts: Counts,
    images: Counts,
}

/// The folder.
pub struct Partial {
    directory: PathBuf,
    settings: Settings,
    pub texts: Rows,
    pub images: Rows,
    saved: Option<Instant>,
    _lock: File,
}

impl Partial {
    /// Where the work for a file lies until it is done.
    pub fn directory_of(output: &Path) -> PathBuf {
        let mut name = output.file_name().map_or_else(OsString::new, OsString::from);
        name.push(".partial");
        output.with_file_name(name)
    }

    /// Begins the work for `output`, or goes on with it.
    ///
    /// # Errors
    /// If there is work of other settings, another program is at it, or the folder cannot be read or written.
    pub fn open(output: &Path, settings: Settings) -> Result<Self> {
        let directory = Self::directory_of(output);
        let shown = directory.display().to_string();
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).context(shown),
            _ => {}
        }
        let lock = lock(&directory).with_context(|| shown.clone())?;
        let (texts, images) = match read_state(&directory).with_context(|| shown.clone())? {
            None => Default::default(),
            Some(state) => {
                if let Some(difference) = state.settings.difference(&settings) {
                    bail!(
                        "{shown}: begun with {difference}; run it again as it was begun, or delete this folder to start anew"
                    );
                }
                (state.texts, state.images)
            }
        };
        let rows = |kind, counts| Rows::open(&directory, kind, settings.width, counts);
        let texts = rows("texts", texts).with_context(|| shown.clone())?;
        let images = rows("images", images).with_context(|| shown.clone())?;
        Ok(Self { directory, settings, texts, images, saved: None, _lock: lock })
    }

    /// Makes sure of what was done, if that is due. Called where the work can go on with the same result.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn save_if_due(&mut self) -> Result<()> {
        let is_due = self.saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY);
        if is_due { self.save() } else { Ok(()) }
    }

    /// Makes sure of what was done.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn save(&mut self) -> Result<()> {
        self.flush().with_context(|| self.directory.display().to_string())?;
        let state =
            State { settings: self.settings.clone(), texts: self.texts.counts, images: self.images.counts };
        let json = serde_json::to_vec_pretty(&state)?;
        replace(&self.directory, &json).with_context(|| self.directory.display().to_string())?;
        self.saved = Some(Instant::now());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.texts.flush()?;
        self.images.flush()
    }

    /// Writes the file at `output` with `write`, which gets the path to write to, and removes the folder.
    ///
    /// # Errors
    /// If `write` fails, or the file cannot be put in its place.
    pub fn finish(mut self, output: &Path, write: impl FnOnce(&Self, &Path) -> Result<()>) -> Result<()> {
        self.save()?;
        let assembled = self.directory.join(ASSEMBLED);
        write(&self, &assembled).with_context(|| format!("--output {}", output.display()))?;
        fs::rename(&assembled, output).with_context(|| format!("--output {}", output.display()))?;
        self.discard();
        Ok(())
    }

    /// Removes the folder. That it cannot be removed harms nothing; what is not of this program stays.
    pub fn discard(self) {
        let directory = self.directory.clone();
        let of_rows =
            [&self.texts, &self.images].map(|rows| [rows.vectors_path.clone(), rows.items_path.clone()]);
        let others = [STATE, NEW_STATE, ASSEMBLED, LOCK].map(|name| directory.join(name));
        // Some systems remove no file that is open.
        drop(self);
        for path in of_rows.iter().flatten().chain(&others) {
            let _ = fs::remove_file(path);
        }
        if let Err(error) = fs::remove_dir(&directory) {
            tracing::debug!("{}: {error}", directory.display());
        }
    }
}

/// Two programs that append to the same files would spoil them.
fn lock(directory: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(directory.join(LOCK))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("another run is at work here, wait until it is done"),
        // Not every file system has locks.
        Err(TryLockError::Error(error)) => tracing::debug!("no lock: {error}"),
        Ok(()) => {}
    }
    Ok(file)
}

/// Writes the state so that there is always a whole one.
fn replace(directory: &Path, state: &[u8]) -> io::Result<()> {
    let new = directory.join(NEW_STATE);
    let mut file = File::create(&new)?;
    file.write_all(state)?;
    file.sync_all()?;
    fs::rename(new, directory.join(STATE))
}

fn read_state(directory: &Path) -> Result<Option<State>> {
    let json = match fs::read(directory.join(STATE)) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(STATE),
    };
    match serde_json::from_slice(&json) {
        Ok(state) => Ok(Some(state)),
        Err(error) => bail!("{STATE} cannot be understood ({error}); delete this folder to start anew"),
    }
}

/// Vectors and what they are of, in two files that grow.
pub struct Rows {
    width: usize,
    counts: Counts,
    vectors: BufWriter<File>,
    items: BufWriter<File>,
    /// Numbers in little-endian order, f32, row after row.
    pub vectors_path: PathBuf,
    /// A JSON string on each line.
    pub items_path: PathBuf,
}

impl Rows {
    fn open(directory: &Path, kind: &str, width: usize, counts: Counts) -> Result<Self> {
        let vectors_path = directory.join(format!("{kind}.f32"));
        let items_path = directory.join(format!("{kind}.jsonl"));
        let row_bytes = width as u64 * size_of::<f32>() as u64;
        let vector_bytes = (counts.rows as u64).checked_mul(row_bytes).context("too many rows")?;
        let vectors = cut_to(&vectors_path, vector_bytes)?;
        let items = cut_to(&items_path, counts.item_bytes)?;
        let (vectors, items) = (BufWriter::new(vectors), BufWriter::new(items));
        Ok(Self { width, counts, vectors, items, vectors_path, items_path })
    }

    /// How much is done.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends the vector of the next item.
    ///
    /// # Errors
    /// If the vector has another width, or the files cannot be written.
    pub fn push(&mut self, item: &str, vector: &[f32]) -> Result<()> {
        ensure!(vector.len() == self.width, "a vector of {} numbers, expected {}", vector.len(), self.width);
        for number in vector {
            self.vectors.write_all(&number.to_le_bytes())?;
        }
        let mut line = serde_json::to_vec(item)?;
        line.push(b'\n');
        self.items.write_all(&line)?;
        self.counts.done += 1;
        self.counts.rows += 1;
        self.counts.item_bytes += line.len() as u64;
        Ok(())
    }

    /// Passes over the next item, which has no vector.
    pub fn skip(&mut self) {
        self.counts.done += 1;
    }

    fn flush(&mut self) -> io::Result<()> {
        for file in [&mut self.vectors, &mut self.items] {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        Ok(())
    }
}

/// The file with no more than its first `length` bytes, to be appended to.
fn cut_to(path: &Path, length: u64) -> Result<File> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = OpenOptions::new().create(true).append(true).open(path).with_context(name)?;
    let found = file.metadata().with_context(name)?.len();
    ensure!(
        found >= length,
        "{}: expected at least {length} bytes, found {found}; delete this folder to start anew",
        name()
    );
    file.set_len(length).with_context(name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let text = || "x".to_owned();
        Settings {
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

    fn written(partial: &Partial) -> Result<(Vec<u8>, String)> {
        Ok((fs::read(&partial.texts.vectors_path)?, fs::read_to_string(&partial.texts.items_path)?))
    }

    #[test]
    fn what_was_not_saved_is_cut_off() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let output = directory.path().join("a.npy");
        let mut partial = Partial::open(&output, settings())?;
        partial.texts.push("猫\n", &[1., 2.])?;
        partial.texts.skip();
        partial.save()?;
        let saved = written(&partial)?;
        partial.texts.push("lost", &[3., 4.])?;
        partial.flush()?;
        drop(partial);
        let partial = Partial::open(&output, settings())?;
        assert_eq!((partial.texts.counts().done, partial.texts.counts().rows), (2, 1));
        assert_eq!(written(&partial)?, saved);
        assert_eq!(saved.1, "\"猫\\n\"\n");
        partial.finish(&output, |partial, path| Ok(fs::write(path, written(partial)?.0)?))?;
        assert_eq!(fs::read(&output)?, saved.0);
        assert_eq!(fs::read_dir(directory.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn other_settings_and_other_runs_are_refused() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let output = directory.path().join("a.npy");
        let message = |settings| Partial::open(&output, settings).err().map(|error| format!("{error:#}"));
        let mut partial = Partial::open(&output, settings())?;
        partial.save()?;
        assert!(message(settings()).is_some_and(|error| error.contains("another run is at work")));
        drop(partial);
        let other = Settings { raw: true, ..settings() };
        assert!(
            message(other)
                .is_some_and(|error| error.contains("a.npy.partial: begun with the other choice of --raw"))
        );
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
