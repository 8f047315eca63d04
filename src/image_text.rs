//! Reads and writes the text that an image file holds about itself: in a PNG's text chunk `parameters`, and in the EXIF
//! field UserComment of the other formats, where stable-diffusion-webui has it as well.

use std::fs;
use std::io::{BufReader, Cursor};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use exif::experimental::Writer;
use exif::{Field, In, Tag, Value};
use image::{ImageDecoder, ImageFormat, ImageReader};
use model_files::foreign;
use png::text_metadata::ITXtChunk;

/// The keyword under which tools look for how an image was drawn.
pub const KEYWORD: &str = "parameters";

/// The keywords under which ComfyUI writes the graph that it ran.
const GRAPHS: [&str; 2] = ["prompt", "workflow"];

/// The most bytes of text that are read, and of an image file that is looked through for it.
const LONGEST_TEXT: usize = 4 << 20;
const LARGEST_FILE: u64 = 1 << 30;

/// What the file at `path` says about itself; a `.txt` file says all of it.
///
/// # Errors
/// When it is no image, is damaged, says nothing or too much.
pub fn read(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let size = fs::metadata(path).with_context(|| name.clone())?.len();
    ensure!(size <= LARGEST_FILE, "{name}: has {size} bytes, expected an image of at most {LARGEST_FILE}");
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt")) {
        let bytes = fs::read(path).with_context(|| name.clone())?;
        ensure!(bytes.len() <= LONGEST_TEXT, "{name}: has {size} bytes, expected at most {LONGEST_TEXT}");
        return String::from_utf8(bytes).map_err(|_| anyhow!("{name}: expected text in UTF-8"));
    }
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let reader = reader.with_context(|| name.clone())?;
    let found = foreign::parse(&name, || {
        let found = match reader.format() {
            Some(ImageFormat::Png) => in_png(path),
            Some(ImageFormat::Jpeg | ImageFormat::WebP) => in_exif_of(reader),
            _ => Err(anyhow!("expected an image, PNG, JPEG or WebP, or a .txt file")),
        };
        found.with_context(|| name.clone())
    });
    match found? {
        Some(text) => Ok(text),
        None => bail!("{name}: does not say how it was drawn (expected a text `{KEYWORD}`)"),
    }
}

fn in_png(path: &Path) -> Result<Option<String>> {
    let mut reader = png::Decoder::new(BufReader::new(fs::File::open(path)?)).read_info()?;
    let mut found = png_text(reader.info())?;
    // The chunk may also come after the pixels.
    if found.is_none() && reader.finish().is_ok() {
        found = png_text(reader.info())?;
    }
    let info = reader.info();
    let keywords = info.uncompressed_latin1_text.iter().map(|chunk| &chunk.keyword);
    let keywords = keywords.chain(info.utf8_text.iter().map(|chunk| &chunk.keyword));
    if found.is_none() && keywords.into_iter().any(|keyword| GRAPHS.contains(&keyword.as_str())) {
        bail!("holds a graph of ComfyUI alone, which this program cannot run; expected a text `{KEYWORD}`");
    }
    Ok(found)
}

fn png_text(info: &png::Info<'_>) -> Result<Option<String>> {
    if let Some(chunk) = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        ensure!(chunk.text.len() <= LONGEST_TEXT, too_long());
        return Ok(Some(chunk.text.clone()));
    }
    if let Some(chunk) = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(LONGEST_TEXT).with_context(too_long)?;
        return Ok(Some(chunk.get_text()?));
    }
    let is_ours = |chunk: &&ITXtChunk| chunk.keyword == KEYWORD;
    let Some(chunk) = info.utf8_text.iter().find(is_ours) else { return Ok(None) };
    let mut chunk = chunk.clone();
    chunk.decompress_text_with_limit(LONGEST_TEXT).with_context(too_long)?;
    let text = chunk.get_text()?;
    ensure!(text.len() <= LONGEST_TEXT, too_long());
    Ok(Some(text))
}

fn too_long() -> String {
    format!("the text `{KEYWORD}` is damaged or has more than {LONGEST_TEXT} bytes")
}

/// How texts in a UserComment begin, which say how the rest is encoded.
const UNICODE: &[u8] = b"UNICODE\0";
const ASCII: &[u8] = b"ASCII\0\0\0";
const UNDEFINED: &[u8] = &[0; 8];

/// What stands before EXIF in a JPEG, and what some write before it elsewhere too.
const EXIF_HEADER: &[u8] = b"Exif\0\0";

fn in_exif_of(reader: ImageReader<BufReader<fs::File>>) -> Result<Option<String>> {
    match reader.into_decoder()?.exif_metadata()? {
        Some(exif) => in_exif(exif),
        None => Ok(None),
    }
}

fn in_exif(bytes: Vec<u8>) -> Result<Option<String>> {
    let bytes = bytes.strip_prefix(EXIF_HEADER).map(Vec::from).unwrap_or(bytes);
    let exif = exif::Reader::new().read_raw(bytes)?;
    let Some(field) = exif.get_field(Tag::UserComment, In::PRIMARY) else { return Ok(None) };
    let Value::Undefined(comment, _) = &field.value else { return Ok(None) };
    ensure!(comment.len() <= LONGEST_TEXT, too_long());
    let text = if let Some(text) = comment.strip_prefix(UNICODE) {
        from_utf16(text, exif.little_endian())
    } else {
        let text = comment.strip_prefix(ASCII).or(comment.strip_prefix(UNDEFINED)).unwrap_or(comment);
        String::from_utf8_lossy(text).into_owned()
    };
    Ok(Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty()))
}

/// UTF-16 in whichever order of bytes: the standard asks for that of the file, and many write big-endian always. The right
/// one has more characters below 256, such as the names of the fields, which ASCII is.
fn from_utf16(bytes: &[u8], file_is_little_endian: bool) -> String {
    let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let big = pairs().filter(|pair| pair[0] == 0).count();
    let little = pairs().filter(|pair| pair[1] == 0).count();
    let is_little = if big == little { file_is_little_endian } else { little > big };
    let order = if is_little { u16::from_le_bytes } else { u16::from_be_bytes };
    let units: Vec<u16> = pairs().map(order).collect();
    String::from_utf16_lossy(units.strip_prefix(&[0xfeff]).unwrap_or(&units))
}

/// EXIF that holds a text, as stable-diffusion-webui writes it: big-endian, in UTF-16.
///
/// # Errors
/// When the text is too long for it.
pub fn exif_of(text: &str) -> Result<Vec<u8>> {
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
    fn comments_of_every_encoding_are_read() -> Result<()> {
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
    fn damaged_exif_is_an_error_or_nothing() -> Result<()> {
        let whole = exif_of("a cat")?;
        for length in 0..whole.len() {
            let _ = in_exif(whole[..length].to_vec());
        }
        assert!(in_exif(Vec::new()).is_err());
        Ok(())
    }
}
