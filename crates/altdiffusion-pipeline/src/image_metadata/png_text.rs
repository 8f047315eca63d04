//! Reads the generation parameters in a PNG file, from any kind of text chunk.

use std::io::{BufRead, Seek};

use png::text_metadata::ITXtChunk;

use super::{KEYWORD, LONGEST_TEXT, Problem, too_long};

/// The keywords under which ComfyUI stores its graph.
const GRAPHS: [&str; 2] = ["prompt", "workflow"];

/// The text in a PNG file, if any, or what is wrong with the file.
pub(super) fn in_png(file: impl BufRead + Seek) -> Result<Option<String>, Problem> {
    let mut reader = png::Decoder::new(file).read_info()?;
    let mut found = png_text(reader.info())?;
    // The chunk may follow the pixels.
    if found.is_none() && reader.finish().is_ok() {
        found = png_text(reader.info())?;
    }
    let info = reader.info();
    let keywords = info.uncompressed_latin1_text.iter().map(|chunk| &chunk.keyword);
    let keywords = keywords.chain(info.utf8_text.iter().map(|chunk| &chunk.keyword));
    if found.is_none() && keywords.into_iter().any(|keyword| GRAPHS.contains(&keyword.as_str())) {
        let problem = "holds a graph of ComfyUI alone, which this program cannot run; expected a text";
        return Err(format!("{problem} `{KEYWORD}`").into());
    }
    Ok(found)
}

fn png_text(info: &png::Info<'_>) -> Result<Option<String>, Problem> {
    if let Some(chunk) = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        if chunk.text.len() > LONGEST_TEXT {
            return Err(too_long().into());
        }
        return Ok(Some(chunk.text.clone()));
    }
    if let Some(chunk) = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(LONGEST_TEXT).map_err(|error| format!("{}: {error}", too_long()))?;
        return Ok(Some(chunk.get_text()?));
    }
    let is_ours = |chunk: &&ITXtChunk| chunk.keyword == KEYWORD;
    let Some(chunk) = info.utf8_text.iter().find(is_ours) else { return Ok(None) };
    let mut chunk = chunk.clone();
    chunk.decompress_text_with_limit(LONGEST_TEXT).map_err(|error| format!("{}: {error}", too_long()))?;
    let text = chunk.get_text()?;
    if text.len() > LONGEST_TEXT {
        return Err(too_long().into());
    }
    Ok(Some(text))
}
