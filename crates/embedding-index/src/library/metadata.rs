//! Reads what a library records about an image file: its content's hash, its size, and what Exif says about it.

use std::fs::Metadata;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use altclip_encoder::images::{MAX_FILE_BYTES, dimensions};
use exif::{Exif, In, Tag, Value};
use model_files::open_file;
use sha2::{Digest, Sha256};

/// The hash of a file's content.
pub(super) type Hash = [u8; 32];

/// The longest caption that is kept, in characters.
const LONGEST_CAPTION: usize = 2000;
/// A file that was modified this recently may be modified again within the resolution of its time.
const TOO_RECENT: Duration = Duration::from_secs(2);
/// How a file system tells that a file has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: i64,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let size = i64::try_from(metadata.len()).unwrap_or(i64::MAX);
        Self { size, modified: metadata.modified().map_or(0, nanoseconds) }
    }

    /// This stamp, if a later change of the file would change it too.
    fn settled(self) -> Self {
        let now = nanoseconds(SystemTime::now());
        let recent = i64::try_from(TOO_RECENT.as_nanos()).unwrap_or(i64::MAX);
        match now.saturating_sub(self.modified) < recent {
            // Differs, so that the next run reads the file again.
            true => Self { modified: self.modified.saturating_add(1), ..self },
            false => self,
        }
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let (duration, is_before) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after, false),
        Err(error) => (error.duration(), true),
    };
    let nanoseconds = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    if is_before { -nanoseconds } else { nanoseconds }
}

/// What is recorded about a file, besides its vector.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) stamp: Stamp,
    pub(super) hash: Hash,
    /// Width and height, upright; zeros if the image cannot be read.
    pub(super) size: (u32, u32),
    /// `YYYY-MM-DD HH:MM:SS` by the camera's clock.
    pub(super) taken: Option<String>,
    pub(super) description: Option<String>,
}

/// Reads a file, and what is recorded about it. Nothing is decoded.
///
/// # Errors
/// Why the file cannot be read.
pub(super) fn read(path: &Path) -> Result<(Facts, Vec<u8>), String> {
    let mut file = open_file(path).map_err(|error| error.to_string())?;
    // Before the content, so that a file that changes meanwhile is read again by the next run.
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("more than the {MAX_FILE_BYTES} bytes that an image may have"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let exif = exif::Reader::new().read_from_container(&mut Cursor::new(&bytes)).ok();
    let facts = Facts {
        stamp: Stamp::of(&metadata).settled(),
        hash: Sha256::digest(&bytes).into(),
        size: dimensions(&path.display().to_string(), &bytes).unwrap_or_default(),
        taken: exif.as_ref().and_then(time_taken),
        description: exif.as_ref().and_then(description),
    };
    Ok((facts, bytes))
}

/// The text file beside an image, which data sets use for captions.
pub(super) fn caption(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    let file = open_file(&path.with_extension("txt")).ok()?;
    file.take(8 * LONGEST_CAPTION as u64).read_to_end(&mut text).ok()?;
    kept(&String::from_utf8_lossy(&text))
}

fn time_taken(exif: &Exif) -> Option<String> {
    let times = [Tag::DateTimeOriginal, Tag::DateTimeDigitized, Tag::DateTime];
    let field = times.into_iter().find_map(|tag| exif.get_field(tag, In::PRIMARY))?;
    let Value::Ascii(texts) = &field.value else { return None };
    let time = exif::DateTime::from_ascii(texts.first()?).ok()?;
    let is_date = (1..=12).contains(&time.month) && (1..=31).contains(&time.day) && time.year > 0;
    is_date.then(|| {
        let (date, hour) = ((time.year, time.month, time.day), (time.hour, time.minute, time.second));
        format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", date.0, date.1, date.2, hour.0, hour.1, hour.2)
    })
}

fn description(exif: &Exif) -> Option<String> {
    let field = exif.get_field(Tag::ImageDescription, In::PRIMARY)?;
    let Value::Ascii(texts) = &field.value else { return None };
    kept(&String::from_utf8_lossy(texts.first()?))
}

/// A caption as it is kept, unless there is none.
fn kept(text: &str) -> Option<String> {
    let text: String =
        text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars().take(LONGEST_CAPTION).collect();
    (!text.is_empty()).then_some(text)
}
