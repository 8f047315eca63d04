//! Texts from a file, one on each line.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// The lines of a file, or of standard input for `-`. `option` is the one that named it.
///
/// # Errors
/// When it cannot be read, is empty, or is not in UTF-8.
pub fn read_texts(option: &str, path: &Path) -> Result<Vec<String>> {
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().read_to_end(&mut bytes);
        ("standard input".to_owned(), read.map(|_| bytes))
    } else {
        (path.display().to_string(), std::fs::read(path))
    };
    bytes.map_err(anyhow::Error::from).and_then(lines).with_context(|| format!("{option} {name}"))
}

fn lines(bytes: Vec<u8>) -> Result<Vec<String>> {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
            bail!("line {line}: expected text in UTF-8, found other bytes");
        }
    };
    // Editors on Windows begin a file with this mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    ensure!(!text.is_empty(), "expected at least one line of text, found an empty file");
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        lines(bytes.to_vec()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_line_is_a_text() -> Result<()> {
        assert_eq!(lines("\u{feff}一只猫\r\n\na cat\n".into())?, ["一只猫", "", "a cat"]);
        assert_eq!(lines(b"\n".to_vec())?, [""]);
        Ok(())
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        assert!(message(b"one\ntwo\n\xff").starts_with("line 3: expected text in UTF-8"));
        assert!(message(b"").contains("empty"));
    }
}
