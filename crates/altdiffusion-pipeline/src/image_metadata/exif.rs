//! Reads and writes text in the EXIF field UserComment, where stable-diffusion-webui stores it in JPEG and WebP
//! files.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Field, In, Tag, Value};

use super::{LONGEST_TEXT, Problem, too_long};

/// The prefixes of a UserComment that name its encoding.
const UNICODE: &[u8] = b"UNICODE\0";
const ASCII: &[u8] = b"ASCII\0\0\0";
const UNDEFINED: &[u8] = &[0; 8];

/// The header before EXIF data in a JPEG, which some programs write elsewhere too.
const EXIF_HEADER: &[u8] = b"Exif\0\0";

/// The text in EXIF data, if any, or what is wrong with the data.
pub(super) fn in_exif(bytes: Vec<u8>) -> Result<Option<String>, Problem> {
    let bytes = bytes.strip_prefix(EXIF_HEADER).map(Vec::from).unwrap_or(bytes);
    let exif = exif::Reader::new().read_raw(bytes)?;
    let Some(field) = exif.get_field(Tag::UserComment, In::PRIMARY) else { return Ok(None) };
    let Value::Undefined(comment, _) = &field.value else { return Ok(None) };
    if comment.len() > LONGEST_TEXT {
        return Err(too_long().into());
    }
    let text = if let Some(text) = comment.strip_prefix(UNICODE) {
        from_utf16(text, exif.little_endian())
    } else {
        let text = comment.strip_prefix(ASCII).or(comment.strip_prefix(UNDEFINED)).unwrap_or(comment);
        String::from_utf8_lossy(text).into_owned()
    };
    Ok(Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty()))
}

/// Decodes UTF-16 in either byte order: the standard asks for the file's, but many programs always write big-endian.
/// The right order gives more characters below 256, because the field names are ASCII.
fn from_utf16(bytes: &[u8], file_is_little_endian: bool) -> String {
    let pairs = || bytes.as_chunks::<2>().0.iter().copied();
    let big = pairs().filter(|pair| pair[0] == 0).count();
    let little = pairs().filter(|pair| pair[1] == 0).count();
    let is_little = if big == little { file_is_little_endian } else { little > big };
    let order = if is_little { u16::from_le_bytes } else { u16::from_be_bytes };
    let units: Vec<u16> = pairs().map(order).collect();
    String::from_utf16_lossy(units.strip_prefix(&[0xfeff]).unwrap_or(&units))
}

/// Encodes a text as EXIF, as stable-diffusion-webui does: big-endian UTF-16.
///
/// # Errors
/// If the text is too long for EXIF.
pub(super) fn exif_of(text: &str) -> Result<Vec<u8>, Problem> {
    let comment = [UNICODE.to_vec(), text.encode_utf16().flat_map(u16::to_be_bytes).collect()].concat();
    let field = Field { tag: Tag::UserComment, ifd_num: In::PRIMARY, value: Value::Undefined(comment, 0) };
    let mut writer = Writer::new();
    writer.push_field(&field);
    let mut exif = Cursor::new(Vec::new());
    writer.write(&mut exif, false)?;
    Ok(exif.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_of_every_encoding_are_read() -> Result<(), Problem> {
        let text = "一只猫\nNegative prompt: 模糊\nSteps: 3";
        let utf16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let little: fn(u16) -> [u8; 2] = u16::to_le_bytes;
        let comments = [
            [UNICODE, &utf16(u16::to_be_bytes)].concat(),
            [UNICODE, &utf16(little)].concat(),
            [UNICODE, &[0xff, 0xfe], &utf16(little)].concat(),
            [ASCII, text.as_bytes()].concat(),
            [UNDEFINED, text.as_bytes(), b"\0\0"].concat(),
            text.as_bytes().to_vec(),
        ];
        for comment in comments {
            for is_little in [true, false] {
                let value = Value::Undefined(comment.clone(), 0);
                let field = Field { tag: Tag::UserComment, ifd_num: In::PRIMARY, value };
                let mut writer = Writer::new();
                writer.push_field(&field);
                let mut exif = Cursor::new(Vec::new());
                writer.write(&mut exif, is_little)?;
                let exif = exif.into_inner();
                assert_eq!(in_exif(exif.clone())?.as_deref(), Some(text), "{comment:?}");
                assert_eq!(in_exif([EXIF_HEADER, &exif].concat())?.as_deref(), Some(text));
            }
        }
        assert_eq!(in_exif(exif_of(text)?)?.as_deref(), Some(text));
        Ok(())
    }

    #[test]
    fn damaged_exif_is_an_error_or_nothing() -> Result<(), Problem> {
        let whole = exif_of("a cat")?;
        for length in 0..whole.len() {
            let _ = in_exif(whole[..length].to_vec());
        }
        assert!(in_exif(Vec::new()).is_err());
        Ok(())
    }
}
