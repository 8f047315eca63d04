//! Prepares JSON text for a strict parser: accepts what Python accepts beyond the standard, and rejects the rest with
//! clear errors.

use std::borrow::Cow;

/// The largest configuration file read, in bytes: more than any has, and less than memory.
const MOST_BYTES: usize = 100_000_000;

/// Numbers that Python writes but JSON lacks; longer ones first.
const LITERALS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// The text without a byte order mark, and with [`LITERALS`] as strings.
///
/// # Errors
/// If the file is too large, in UTF-16, a web page, or has a comment.
pub(super) fn prepare(file: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if file.len() > MOST_BYTES {
        return Err(format!("expected at most {MOST_BYTES} bytes, found {}", file.len()));
    }
    let text = without_byte_order_mark(file);
    // UTF-16 text that starts with ASCII, as JSON does, has a zero among its first two bytes.
    if text.starts_with(b"\xFF\xFE")
        || text.starts_with(b"\xFE\xFF")
        || text.iter().take(2).any(|&byte| byte == 0)
    {
        return Err("expected JSON in UTF-8, found UTF-16; save it as UTF-8".to_owned());
    }
    if text.trim_ascii_start().starts_with(b"<") {
        return Err("expected JSON, found a web page: the download got a page in its place".to_owned());
    }
    let mut result = Cow::Borrowed(text);
    // Text before this position has been copied to `result`.
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        match byte {
            b'"' => in_string = !in_string,
            // An escaped character does not end the string.
            b'\\' if in_string => at += 1,
            _ if in_string => {}
            b'/' => {
                let line = text.iter().take(at).filter(|&&byte| byte == b'\n').count() + 1;
                return Err(format!("line {line} is a comment, which JSON does not have"));
            }
            b'-' | b'I' | b'N' => {
                if let Some(literal) = LITERALS.iter().find(|literal| rest.starts_with(literal)) {
                    let before = text.get(copied..at).unwrap_or_default();
                    let result = match &mut result {
                        Cow::Owned(result) => result,
                        borrowed => {
                            *borrowed = Cow::Owned(Vec::with_capacity(text.len() + 2));
                            borrowed.to_mut()
                        }
                    };
                    result.extend_from_slice(before);
                    result.push(b'"');
                    result.extend_from_slice(literal);
                    result.push(b'"');
                    at += literal.len() - 1;
                    copied = at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if let Cow::Owned(result) = &mut result {
        result.extend_from_slice(text.get(copied..).unwrap_or_default());
    }
    Ok(result)
}

/// The text without a byte order mark, which some editors write.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}
