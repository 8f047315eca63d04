//! Reads standard input, which options name as `-`: an image, a prompt or a list.

use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

const NAME: &str = "-";

/// The most bytes read.
const MOST_BYTES: u64 = 1 << 30;

/// The option that standard input was read for, and its content, since it can only be read once.
static CONTENT: OnceLock<(&str, Vec<u8>)> = OnceLock::new();

/// Whether an option's value means standard input.
pub fn is_named_by(path: &Path) -> bool {
    path == Path::new(NAME)
}

/// The content of standard input, for the option that names it.
///
/// # Errors
/// If it cannot be read, is larger than a gigabyte, or was read for another option.
pub fn read(option: &'static str) -> Result<&'static [u8]> {
    let (reader, bytes) = match CONTENT.get() {
        Some(content) => content,
        None => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes);
            read.with_context(|| format!("{option} standard input"))?;
            ensure!(
                bytes.len() as u64 <= MOST_BYTES,
                "{option} standard input: expected at most {MOST_BYTES} bytes, found more"
            );
            CONTENT.get_or_init(|| (option, bytes))
        }
    };
    ensure!(*reader == option, "{reader} - and {option} -: only one of them can be standard input");
    Ok(bytes)
}

/// What was read, if anything.
pub fn content() -> Option<&'static [u8]> {
    CONTENT.get().map(|(_, bytes)| bytes.as_slice())
}

/// The text on standard input, trimmed.
///
/// # Errors
/// If it is empty or not UTF-8; also like [`read`].
pub fn read_text(option: &'static str) -> Result<String> {
    let Ok(text) = std::str::from_utf8(read(option)?) else {
        bail!("{option} standard input: expected text in UTF-8");
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    ensure!(!text.is_empty(), "{option} standard input: expected a text, found none");
    Ok(text.to_owned())
}
