//! Writes search results as a web page in one file.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use altclip_encoder::images::{self, Background, DecodeOptions};
use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use embedding_index::{Hit, ItemKind};
use image::DynamicImage;
use image::codecs::jpeg::JpegEncoder;
use model_files::write_whole;
use rayon::prelude::*;

use crate::standard_streams::printable;

/// The longer side of a thumbnail, in pixels.
const THUMBNAIL_SIDE: u32 = 256;

/// Out of 100: thumbnails need not be perfect.
const THUMBNAIL_QUALITY: u8 = 80;

/// The style of pages of results.
pub const STYLE: &str = "\
body { font: 16px system-ui, sans-serif; margin: 2em; background: Canvas; color: CanvasText; color-scheme: light dark }
ol { list-style: none; padding: 0; display: grid; gap: 1em; grid-template-columns: repeat(auto-fill, minmax(272px, 1fr)) }
li, header { border: 1px solid GrayText; border-radius: 8px; padding: 8px; overflow-wrap: anywhere }
header { width: max-content; max-width: 100%; box-sizing: border-box }
img { display: block; max-width: 100% }
p { margin: 0 0 8px; white-space: pre-wrap }
small { color: GrayText }";

/// Writes the page. An image that cannot be shown is replaced by the reason.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, query: (ItemKind, &str), hits: &[Hit]) -> Result<()> {
    let page = page(query, hits);
    write_whole(path, |temporary| fs::write(temporary, page)).context("--html")
}

fn page(query: (ItemKind, &str), hits: &[Hit]) -> String {
    let shown: Vec<String> = hits.par_iter().map(|hit| shown(hit.kind, &hit.item)).collect();
    let title = escaped(query.1);
    let mut page = format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\n{STYLE}\n</style>\n\
         </head>\n<body>\n<header>{}</header>\n<ol>\n",
        self::shown(query.0, query.1)
    );
    for ((rank, hit), shown) in (1..).zip(hits).zip(shown) {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<li>{shown}<small>{rank} · {:.4}</small></li>", hit.score);
    }
    page.push_str("</ol>\n</body>\n</html>\n");
    page
}

/// A text, or a thumbnail with its path.
fn shown(kind: ItemKind, item: &str) -> String {
    let name = escaped(item);
    match kind {
        ItemKind::Text => format!("<p dir=\"auto\">{name}</p>"),
        ItemKind::Image => match thumbnail(Path::new(item)) {
            Ok(jpeg) => {
                let data = BASE64_STANDARD.encode(jpeg);
                format!("<img alt=\"\" src=\"data:image/jpeg;base64,{data}\"><p>{name}</p>")
            }
            Err(error) => {
                format!("<p>{name}</p><p><em>cannot be shown: {}</em></p>", escaped(&error.to_string()))
            }
        },
    }
}

fn thumbnail(path: &Path) -> Result<Vec<u8>> {
    let image = images::open(path, DecodeOptions::default())?;
    // On the page's background.
    let image = DynamicImage::ImageRgb8(images::flatten(&image, Background::WHITE).into_owned());
    let (width, height) = (image.width(), image.height());
    let small = if width.max(height) > THUMBNAIL_SIDE {
        image.thumbnail(THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    } else {
        image
    };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, THUMBNAIL_QUALITY).encode_image(&small.to_rgb8())?;
    Ok(jpeg)
}

/// Escapes text for HTML, and what would change how a page or a terminal shows the rest.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_no_html_and_images_are_inside() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let image = directory.path().join("wide.png");
        image::RgbImage::new(1000, 10).save(&image)?;
        let hit = |kind, item: &str| Hit { kind, row: 0, item: item.to_owned(), score: 0.5 };
        let image = image.display().to_string();
        let hits = [
            hit(ItemKind::Text, "<script>'\"&\u{202e}\u{1b}"),
            hit(ItemKind::Image, &image),
            hit(ItemKind::Image, "gone<.png"),
        ];
        let page = page((ItemKind::Text, "</title><b>"), &hits);
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;&#39;&quot;&amp;\\u{202e}\\u{1b}<"));
        assert_eq!(page.matches("<li>").count(), 3);
        assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), 1);
        assert!(page.contains("<p>gone&lt;.png</p><p><em>cannot be shown: gone&lt;.png: "));

        let data = page.split("base64,").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let small = image::load_from_memory(&BASE64_STANDARD.decode(data)?)?;
        assert_eq!((small.width(), small.height()), (256, 3));
        Ok(())
    }
}
