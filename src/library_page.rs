//! Writes the results of searching an index of folders as a web page, which shows the images from where they are.
//!
//! Thousands of results open at once: a browser lays out and loads only what is on the screen.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use embedding_index::library::LibraryHit;
use model_files::write_whole;

use crate::result_page::{STYLE, escaped};

const LAZY_STYLE: &str = "\
li { content-visibility: auto; contain-intrinsic-size: auto 272px auto 340px }
img { width: 100%; height: 256px; object-fit: contain; background: color-mix(in srgb, CanvasText 5%, Canvas) }";

/// Writes the page.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, query: &str, hits: &[LibraryHit]) -> Result<()> {
    let page = page(query, hits);
    write_whole(path, |temporary| fs::write(temporary, page)).context("--html")
}

fn page(query: &str, hits: &[LibraryHit]) -> String {
    let title = escaped(query);
    let mut page = format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>\n{STYLE}\n{LAZY_STYLE}\n\
         </style>\n</head>\n<body>\n<header><p dir=\"auto\">{title}</p></header>\n<ol>\n"
    );
    for (rank, hit) in (1..).zip(hits) {
        let (rank, image): (usize, _) = (rank, &hit.image);
        let (address, name) = (address(&image.path), escaped(&image.path));
        let caption = image.caption.as_deref().map(|text| format!("<p dir=\"auto\">{}</p>", escaped(text)));
        let date = image.date.as_deref().map(|date| format!(" · {}", escaped(date)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "<li><a href=\"{address}\"><img loading=\"lazy\" decoding=\"async\" alt=\"\" src=\"{address}\"></a>{}\
             <small>{rank} · {:.4}{} · {} × {}</small><br><small>{name}</small></li>",
            caption.unwrap_or_default(),
            hit.score,
            date.unwrap_or_default(),
            image.width,
            image.height,
        );
    }
    page.push_str("</ol>\n</body>\n</html>\n");
    page
}

/// The address of a file.
fn address(path: &str) -> String {
    let mut address = String::from(if path.starts_with('/') { "file://" } else { "file:///" });
    for byte in path.bytes() {
        match byte {
            b'\\' if cfg!(windows) => address.push('/'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                address.push(byte.into())
            }
            b':' if cfg!(windows) => address.push(':'),
            other => {
                let _ = write!(address, "%{other:02X}");
            }
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_html() {
        assert_eq!(address("/照 <\"片#?.png"), "file:///%E7%85%A7%20%3C%22%E7%89%87%23%3F.png");
        assert!(page("</title><b>", &[]).contains("&lt;/title&gt;&lt;b&gt;"));
    }
}
