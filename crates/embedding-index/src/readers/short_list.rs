//! Reads short lists of texts, one per line, into memory.

use super::text_file::{self, Line};
use crate::error::{Error, Result};

/// The longest list, in bytes.
const MOST_BYTES: usize = 1 << 30;

/// The lines of a text, which errors call `name`.
///
/// # Errors
/// If it cannot be read, is larger than a gigabyte, empty, or not UTF-8.
pub fn read_short_list(name: &str, text: text_file::Text) -> Result<Vec<String>> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for line in text_file::lines(text) {
        let Line { number, text } = line.map_err(Error::io(name))?;
        let text = text.map_err(|problem| Error::format(name, format!("line {number}: {problem}")))?;
        // Each line takes memory, however short.
        bytes += text.len() + size_of::<String>();
        if bytes > MOST_BYTES {
            let problem = format!("expected a list of at most {MOST_BYTES} bytes, found more");
            return Err(Error::format(name, problem));
        }
        texts.push(text);
    }
    if texts.is_empty() {
        return Err(Error::format(name, "expected at least one line of text, found an empty file"));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Vec<String>> {
        read_short_list("a", text_file::text(bytes).map_err(Error::io("a"))?)
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
        assert!(message(b"one\ntwo\n\xff").starts_with("a: line 3: expected text in UTF-8"));
        assert!(message(b"").contains("empty"));
    }
}
