//! Reads text files in lines, as JSON lines or as CSV, plain or compressed, from any editor.
//!
//! All lists and tables of the program are read here, so that they agree on lines: they end with `\n`, `\r\n` or a
//! lone `\r`, and the last may end with the file. A byte order mark is ignored. Compression with gzip or zstd is
//! recognized by content.

mod json;

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use model_files::open_input;

pub use self::json::{describe, field, object};

/// The longest line, in bytes. Without a limit, a file without newlines would be read into memory whole.
pub const MOST_LINE_BYTES: usize = 64 << 20;

/// The error for UTF-16.
const UTF_16: &str = "expected text in UTF-8, found UTF-16; save it as UTF-8";

/// A text that is read incrementally.
pub type Text = Box<dyn BufRead + Send>;

/// The format of a list or table, by file ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// A text per line.
    Lines,
    /// A JSON object per line: `.jsonl` or `.ndjson`, and in many data sets `.json`.
    JsonLines,
    /// A header and records: `.csv`, and with tabs `.tsv`.
    Csv {
        /// The separator between fields, unless the header has another: see [`csv()`].
        delimiter: u8,
    },
    /// Columns of a Parquet file: `.parquet`.
    Parquet,
}

impl ListFormat {
    /// The format for a file name's ending, ignoring a final `.gz`, `.zst` or `.zstd`.
    pub fn of(path: &Path) -> Self {
        let ending = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let ending = match ending(path).as_str() {
            "gz" | "zst" | "zstd" => ending(&path.with_extension("")),
            other => other.to_owned(),
        };
        match ending.as_str() {
            "jsonl" | "ndjson" | "json" => Self::JsonLines,
            "csv" => Self::Csv { delimiter: b',' },
            "tsv" => Self::Csv { delimiter: b'\t' },
            "parquet" => Self::Parquet,
            _ => Self::Lines,
        }
    }
}

/// Opens a text file, decompressed and without byte order mark.
///
/// # Errors
/// If it cannot be read, or is in UTF-16.
pub fn open(path: &Path) -> io::Result<Text> {
    text(open_input(path)?)
}

/// The text in `source`, decompressed and without byte order mark.
///
/// # Errors
/// If it cannot be read, or is in UTF-16.
pub fn text(source: impl Read + Send + 'static) -> io::Result<Text> {
    const GZIP: &[u8] = &[0x1F, 0x8B];
    const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];
    let (begin, source) = peek(source)?;
    if begin.starts_with(GZIP) {
        without_mark(MultiGzDecoder::new(BufReader::new(source)))
    } else if begin.starts_with(ZSTD) {
        without_mark(zstd::Decoder::new(source)?)
    } else {
        without_mark(source)
    }
}

fn without_mark(source: impl Read + Send + 'static) -> io::Result<Text> {
    let (begin, source) = peek(source)?;
    if is_utf16(&begin) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, UTF_16));
    }
    let mut text = BufReader::with_capacity(1 << 16, source);
    text.read_exact(&mut vec![0; mark_length(&begin)])?;
    Ok(Box::new(text))
}

/// The first few bytes, and a reader of all of them.
fn peek<R: Read>(mut source: R) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut begin = Vec::new();
    source.by_ref().take(4).read_to_end(&mut begin)?;
    Ok((begin.clone(), Cursor::new(begin).chain(source)))
}

fn is_utf16(begin: &[u8]) -> bool {
    begin.starts_with(&[0xFF, 0xFE]) || begin.starts_with(&[0xFE, 0xFF])
}

/// The length of UTF-8's byte order mark, which editors on Windows write.
fn mark_length(begin: &[u8]) -> usize {
    const MARK: &str = "\u{feff}";
    if begin.starts_with(MARK.as_bytes()) { MARK.len() } else { 0 }
}

/// A small text in memory, without byte order mark.
///
/// # Errors
/// If it is not UTF-8; the message says what it is instead.
pub fn decode(bytes: &[u8]) -> Result<&str, String> {
    if is_utf16(bytes) {
        return Err(UTF_16.to_owned());
    }
    let text = bytes.get(mark_length(bytes)..).unwrap_or_default();
    str::from_utf8(text).map_err(|error| {
        let valid = text.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        format!("line {line}: {}", not_utf8(text.get(error.valid_up_to()..).unwrap_or_default()))
    })
}

/// The error for bytes that are not UTF-8.
fn not_utf8(bytes: &[u8]) -> String {
    let byte = bytes.first().copied().unwrap_or_default();
    format!("expected text in UTF-8, found the byte {byte:#04x}")
}

/// A line of a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// The line without its newline, or the error if it is not UTF-8.
    pub text: Result<String, String>,
}

/// Iterates the lines of a text, ending after an error.
///
/// An error is one of reading, or a line longer than [`MOST_LINE_BYTES`].
pub fn lines(text: Text) -> impl Iterator<Item = io::Result<Line>> + Send {
    let mut text = Some(text);
    (1..).map_while(move |number| {
        let line = read_line(text.as_mut()?).transpose()?;
        if line.is_err() {
            text = None;
        }
        let at_line = |error: io::Error| io::Error::new(error.kind(), format!("line {number}: {error}"));
        Some(line.map_err(at_line).map(|bytes| {
            let text = String::from_utf8(bytes).map_err(|error| {
                not_utf8(error.as_bytes().get(error.utf8_error().valid_up_to()..).unwrap_or_default())
            });
            Line { number, text }
        }))
    })
}

fn read_line(text: &mut Text) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut is_end = true;
    loop {
        let buffer = match text.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if buffer.is_empty() {
            return Ok((!is_end).then_some(line));
        }
        is_end = false;
        let end = memchr::memchr2(b'\n', b'\r', buffer);
        let (part, used) = (end.unwrap_or(buffer.len()), end.map_or(buffer.len(), |end| end + 1));
        if line.len() + part > MOST_LINE_BYTES {
            let problem = format!("expected at most {MOST_LINE_BYTES} bytes, found more");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        line.extend_from_slice(buffer.get(..part).unwrap_or_default());
        let is_return = end.and_then(|end| buffer.get(end)) == Some(&b'\r');
        text.consume(used);
        if is_return && text.fill_buf()?.first() == Some(&b'\n') {
            text.consume(1);
        }
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// A reader of a CSV file's header and records.
///
/// Records may have more or fewer fields than the header. If the header has these columns only with another separator,
/// such as the semicolon of Excel in much of Europe, that one is used.
///
/// # Errors
/// If the first line cannot be read.
pub fn csv(mut text: Text, delimiter: u8, columns: &[&str]) -> io::Result<csv::Reader<Text>> {
    let mut header = read_line(&mut text)?.unwrap_or_default();
    header.push(b'\n');
    let has_columns = |delimiter: &u8| {
        let mut reader = csv_reader(header.as_slice(), *delimiter);
        let names = reader.byte_headers();
        let has = |names: &csv::ByteRecord, column: &str| names.iter().any(|name| name == column.as_bytes());
        names.is_ok_and(|names| columns.iter().all(|column| has(names, column)))
    };
    let delimiter = [delimiter, b',', b';', b'\t'].into_iter().find(has_columns).unwrap_or(delimiter);
    let text: Text = Box::new(Cursor::new(header).chain(text));
    Ok(csv_reader(text, delimiter))
}

fn csv_reader<R: Read>(source: R, delimiter: u8) -> csv::Reader<R> {
    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(source)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
        let text = text(Cursor::new(bytes.into())).map_err(|error| error.to_string())?;
        let line = |line: io::Result<Line>| {
            let Line { number, text } = line.map_err(|error| error.to_string())?;
            text.map_err(|problem| format!("line {number}: {problem}"))
        };
        lines(text).map(line).collect()
    }

    #[test]
    fn lines_end_as_on_any_system() {
        for text in
            ["一只猫\n\na cat\n", "一只猫\r\n\r\na cat\r\n", "一只猫\r\ra cat", "\u{feff}一只猫\n\r\na cat\r"]
        {
            assert_eq!(read(text), Ok(vec!["一只猫".into(), String::new(), "a cat".into()]), "{text:?}");
        }
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("\u{feff}"), Ok(vec![]));
        assert_eq!(read("\n"), Ok(vec![String::new()]));
        assert_eq!(read("a \u{feff}b\u{2028}c"), Ok(vec!["a \u{feff}b\u{2028}c".into()]));
    }

    #[test]
    fn an_end_between_two_pieces_is_one_end() {
        // The buffer holds 65536 bytes.
        let text = format!("{}\r\nb", "a".repeat((1 << 16) - 1));
        assert_eq!(read(text).map(|lines| (lines.len(), lines[1].clone())), Ok((2, "b".into())));
    }

    #[test]
    fn compressed_texts_are_known_by_their_content() -> io::Result<()> {
        let text = "\u{feff}一只猫\na cat";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes())?;
        // Two members in one file are concatenated, as in gzip.
        let gzip = [gzip.finish()?, {
            let mut more = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            more.write_all(b"s\n")?;
            more.finish()?
        }]
        .concat();
        assert_eq!(read(gzip.clone()), Ok(vec!["一只猫".into(), "a cats".into()]));
        assert_eq!(read(zstd::encode_all(text.as_bytes(), 1)?), Ok(vec!["一只猫".into(), "a cat".into()]));
        assert!(read(&gzip[..gzip.len() / 3]).is_err());
        Ok(())
    }

    #[test]
    fn other_encodings_are_refused_by_name() {
        for mark in [&b"\xff\xfea\0\n\0"[..], b"\xfe\xff\0a\0\n"] {
            assert_eq!(read(mark), Err(UTF_16.to_owned()));
            assert_eq!(decode(mark), Err(UTF_16.to_owned()));
        }
        // GB 18030
        let found = "line 3: expected text in UTF-8, found the byte 0xc3";
        assert_eq!(
            read(b"a\nb\n\xc3\xa8\xd6"),
            Err("line 3: expected text in UTF-8, found the byte 0xd6".into())
        );
        assert_eq!(read(b"a\r\nb\n\xc3(\n"), Err(found.into()));
        assert_eq!(decode(b"a\r\nb\n\xc3(\n"), Err(found.into()));
        assert_eq!(decode("\u{feff}猫".as_bytes()), Ok("猫"));
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless =
            text(io::repeat(0)).map(|text| lines(text).map(|line| line.map(|_| ())).collect::<Vec<_>>());
        let errors: Vec<String> =
            endless.into_iter().flatten().map(|line| line.unwrap_err().to_string()).collect();
        assert_eq!(errors, ["line 1: expected at most 67108864 bytes, found more"]);
    }

    #[test]
    fn formats_are_known_by_the_ending() {
        let kind = |name: &str| ListFormat::of(Path::new(name));
        assert_eq!(
            [kind("a"), kind("a.txt.gz"), kind(".jsonl"), kind("a.jsonl.txt")],
            [ListFormat::Lines; 4]
        );
        assert_eq!([kind("a.jsonl"), kind("a.NDJSON"), kind("a.b.jsonl.zst")], [ListFormat::JsonLines; 3]);
        assert_eq!(
            [kind("a.csv.GZ"), kind("a.tsv")],
            [b',', b'\t'].map(|delimiter| ListFormat::Csv { delimiter })
        );
        assert_eq!(kind("a.parquet"), ListFormat::Parquet);
    }
}
