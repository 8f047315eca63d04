//! Reads short lists of texts, one on each line, into memory.

use std::io;
use std::path::Path;

use altclip_training::text_file::{self, Line};
use anyhow::{Context, Result, anyhow, ensure};

/// Most bytes of a list.
const MOST_BYTES: usize = 1 << 30;

/// The lines of a file, or of standard input for `-`. `option` is the one that named it.
///
/// # Errors
/// When it cannot be read, is empty, or is not in UTF-8.
pub fn read_texts(option: &str, path: &Path) -> Result<Vec<String>> {
    let from_stdin = path == Path::new("-");
    let name = if from_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let text = if from_stdin { text_file::text(io::stdin()) } else { text_file::open(path) };
    text.map_err(anyhow::Error::from).and_then(lines).with_context(|| format!("{option} {name}"))
}

/// The same without empty lines.
///
/// # Errors
/// As for [`read_texts`], and when all lines are empty.
pub fn read_names(option: &str, path: &Path) -> Result<Vec<String>> {
    let mut texts = read_texts(option, path)?;
    texts.retain(|text| !text.trim().is_empty());
    ensure!(!texts.is_empty(), "{option} {}: expected at least one line of text, found none", path.display());
    Ok(texts)
}

fn lines(text: text_file::Text) -> Result<Vec<String>> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for line in text_file::lines(text) {
        let Line { number, text } = line?;
        let text = text.map_err(|problem| anyhow!("line {number}: {problem}"))?;
        // Each line takes memory, however short it is.
        bytes += text.len() + size_of::<String>();
        ensure!(bytes <= MOST_BYTES, "expected a list of at most {MOST_BYTES} bytes, found more");
        texts.push(text);
    }
    ensure!(!texts.is_empty(), "expected at least one line of text, found an empty file");
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Vec<String>> {
        lines(text_file::text(bytes)?)
    }

    fn message(bytes: &'static [u8]) -> String {
        read(bytes).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_line_is_a_text() -> Result<()> {
        assert_eq!(read("\u{feff}一只猫\r\n\na cat\n".as_bytes())?, ["一只猫", "", "a cat"]);
        assert_eq!(read(b"\n")?, [""]);
        Ok(())
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        assert!(message(b"one\ntwo\n\xff").starts_with("line 3: expected text in UTF-8"));
        assert!(message(b"").contains("empty"));
    }
}
