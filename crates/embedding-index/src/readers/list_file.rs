//! Reads lists of strings from files: one per line, or a column of JSON lines, CSV or Parquet.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use altclip_encoder::embedder::ImageSource;
use model_files::{Temporary, open_input};

use super::list_values::{KEYS, STRINGS, Values};
use super::parquet_column::{self, ColumnError, no_column};
use super::text_file::{self, Line, ListFormat};
use super::{IMAGE_COLUMN, Items};
use crate::error::{Error, Result};

/// The most bytes read from a pipe, which is copied to a file.
const MOST_PIPE_BYTES: u64 = 64 << 30;
/// The default column of texts.
const TEXT_COLUMN: &str = "text";

/// A file with a list of strings, which can be read repeatedly.
#[derive(Debug)]
pub struct ListFile {
    name: String,
    /// Its path, or what its reader was called; the beginning of keys.
    origin: String,
    path: PathBuf,
    format: ListFormat,
    column: Option<String>,
    /// The copy of a pipe's content.
    _copy: Option<Temporary>,
}

impl ListFile {
    /// Opens the list at `path`. With the ending `.jsonl`, `.csv`, `.tsv` or `.parquet` it is a table, with the
    /// strings in `column`, by default `text` or `image`. In other files, each line is a string.
    ///
    /// # Errors
    /// If a column is given but the file is not a table, or it cannot be read.
    pub fn open(path: &Path, column: Option<&str>) -> Result<Self> {
        let list = Self::new(path, ListFormat::of(path), column)?;
        let file = open_input(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if metadata.is_file() { Ok(list) } else { list.copied(file) }
    }

    /// Reads a list from `source`, such as standard input, to its end. Errors call it `name`.
    ///
    /// # Errors
    /// If a column is given but `format` is not a table, or `source` cannot be read.
    pub fn from_reader(
        source: impl Read,
        name: &str,
        format: ListFormat,
        column: Option<&str>,
    ) -> Result<Self> {
        Self::new(Path::new(name), format, column)?.copied(source)
    }

    fn new(path: &Path, format: ListFormat, column: Option<&str>) -> Result<Self> {
        if let (ListFormat::Lines, Some(column)) = (format, column) {
            return Err(no_columns(path, column));
        }
        let (name, column) = (path.display().to_string(), column.map(str::to_owned));
        Ok(Self { origin: name.clone(), name, path: path.to_owned(), format, column, _copy: None })
    }

    /// The list is read more than once, which a pipe does not allow.
    fn copied(self, source: impl Read) -> Result<Self> {
        let copy = copy_of(source, &self.name)?;
        Ok(Self { path: copy.path().to_owned(), _copy: Some(copy), ..self })
    }

    /// Sets the list's name in errors.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The list's name in errors: its path, or the name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Iterates the strings, ending after an error. The inner error is that of a row without a string: its value is
    /// null or missing, or it is a row of JSON lines or CSV that cannot be read. It does not end the list, unless the first
    /// row cannot be read, as in a file in another format or encoding.
    ///
    /// # Errors
    /// If the file cannot be opened, or has no such column.
    pub fn strings(&self) -> Result<Items<Result<String>>> {
        Ok(until_error(self.values_of(self.column_or(TEXT_COLUMN), STRINGS)?))
    }

    /// Iterates the keys of the [`strings`](Self::strings): the strings or whole numbers of another column, or
    /// without one the list's name and their numbers, without an end.
    ///
    /// # Errors
    /// If a column is given but the file is not a table or has no such column, or it cannot be opened.
    pub(super) fn keys(&self, column: Option<&str>) -> Result<Items<Result<String>>> {
        let Some(column) = column else {
            let origin = self.origin.clone();
            return Ok(Box::new((1_usize..).map(move |number| Ok(Ok(numbered(&origin, number))))));
        };
        if self.format == ListFormat::Lines {
            return Err(no_columns(&self.name, column));
        }
        Ok(until_error(self.values_of(column, KEYS)?))
    }

    /// The key of an item: the list's name and the item's number, counted from 1.
    pub(super) fn key(&self, number: usize) -> String {
        numbered(&self.origin, number)
    }

    /// Iterates the images, ending after an error: strings are their paths, and a Parquet file may contain the
    /// images. A row without one is an image without content, which cannot be read.
    ///
    /// # Errors
    /// If the file cannot be opened, or has no such column.
    pub fn images(&self) -> Result<Items<ImageSource>> {
        Ok(until_error(match self.format {
            ListFormat::Parquet => self.parquet(parquet_column::images, self.column_or(IMAGE_COLUMN))?,
            _ => Box::new(paths(self.image_strings()?).map(|path| {
                Ok(path?.map_or_else(
                    |missing| ImageSource::Bytes { name: name_of(&missing), bytes: Vec::new() },
                    Into::into,
                ))
            })),
        }))
    }

    /// Iterates the names of the [`images`](Self::images), reading no more of the file than necessary.
    ///
    /// # Errors
    /// Like [`images`](Self::images).
    pub fn image_names(&self) -> Result<Items<PathBuf>> {
        Ok(until_error(match self.format {
            ListFormat::Parquet => self.parquet(parquet_column::image_names, self.column_or(IMAGE_COLUMN))?,
            _ => Box::new(
                paths(self.image_strings()?)
                    .map(|path| Ok(path?.unwrap_or_else(|missing| name_of(&missing)))),
            ),
        }))
    }

    fn column_or<'a>(&'a self, default: &'a str) -> &'a str {
        self.column.as_deref().unwrap_or(default)
    }

    fn image_strings(&self) -> Result<Items<Result<String>>> {
        self.values_of(self.column_or(IMAGE_COLUMN), STRINGS)
    }

    fn values_of(&self, column: &str, values: Values) -> Result<Items<Result<String>>> {
        Ok(match self.format {
            ListFormat::Lines => {
                let name = self.name.clone();
                Box::new(self.lines()?.map(move |line| {
                    let (number, line) = line?;
                    let at_line = |problem| Error::format(&name, format!("line {number}: {problem}"));
                    Ok(Ok(line.map_err(at_line)?))
                }))
            }
            ListFormat::JsonLines => {
                self.check_has(column)?;
                let (name, column) = (self.name.clone(), column.to_owned());
                let rows = self.lines()?.filter(|line| !line.as_ref().is_ok_and(|(_, line)| is_blank(line)));
                Box::new(rows.enumerate().map(move |(row, line)| {
                    let (number, line) = line?;
                    let at_line = |problem: String| Error::format(&name, format!("line {number}: {problem}"));
                    match line.and_then(|line| text_file::object(&line)) {
                        Ok(object) => {
                            Ok(values.in_object(&object, &column).map_err(at_line)?.map_err(at_line))
                        }
                        Err(problem) => unreadable(row, at_line(problem)),
                    }
                }))
            }
            ListFormat::Csv { delimiter } => self.csv_strings(delimiter, column)?,
            ListFormat::Parquet => {
                let (name, column) = (self.name.clone(), column.to_owned());
                let values = self.parquet(values.of_parquet, &column)?;
                Box::new((1..).zip(values).map(move |(row, value)| {
                    let missing = || ColumnError::Row { row, problem: format!("column {column:?}: null") };
                    Ok(value?.ok_or_else(|| Error::column(&name)(missing())))
                }))
            }
        })
    }

    /// Refuses a column that no JSON object has. One that only some have is there, and the others are without a value.
    fn check_has(&self, column: &str) -> Result<()> {
        let mut first = None;
        for line in self.lines()? {
            // What cannot be read is reported where it is read.
            let Ok((number, line)) = line else { return Ok(()) };
            if is_blank(&line) {
                continue;
            }
            let Ok(object) = line.and_then(|line| text_file::object(&line)) else {
                if first.is_none() {
                    return Ok(());
                }
                continue;
            };
            if text_file::field(&object, column).is_some() {
                return Ok(());
            }
            first.get_or_insert_with(|| {
                let problem = no_column(column, object.keys().map(String::as_str));
                Error::format(&self.name, format!("line {number}: {problem}"))
            });
        }
        first.map_or(Ok(()), Err)
    }

    /// The lines of the file with their numbers. The inner error is that of a line that is not UTF-8.
    fn lines(&self) -> Result<impl Iterator<Item = Result<(usize, LineText)>> + Send + use<>> {
        let name = self.name.clone();
        let text = text_file::open(&self.path).map_err(Error::io(&name))?;
        Ok(text_file::lines(text).map(move |line| {
            let Line { number, text } = line.map_err(Error::io(&name))?;
            Ok((number, text))
        }))
    }

    fn csv_strings(&self, delimiter: u8, column: &str) -> Result<Items<Result<String>>> {
        let name = self.name.clone();
        let text = text_file::open(&self.path).map_err(Error::io(&name))?;
        let mut reader = text_file::csv(text, delimiter, &[column]).map_err(Error::io(&name))?;
        let header = reader.headers();
        let header = header.map_err(|error| Error::format(&name, format!("expected a header: {error}")))?;
        let place = header.iter().position(|name| name == column);
        let place = place.ok_or_else(|| Error::format(&name, no_column(column, header.iter())))?;
        let column = column.to_owned();
        Ok(Box::new(reader.into_records().enumerate().map(move |(row, record)| {
            let record = match record {
                Ok(record) => record,
                Err(error) if error.is_io_error() => return Err(Error::format(&name, error)),
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    return unreadable(row, Error::format(&name, format!("line {line}: {error}")));
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            let value = record.get(place).map(str::to_owned);
            let missing = || Error::format(&name, format!("line {line}: no value in column {column:?}"));
            Ok(value.ok_or_else(missing))
        })))
    }

    fn parquet<T: 'static>(
        &self,
        read: impl FnOnce(File, &str) -> Result<Items<T, ColumnError>, ColumnError>,
        column: &str,
    ) -> Result<Items<T>> {
        let name = self.name.clone();
        let file = File::open(&self.path).map_err(Error::io(&name))?;
        let items = read(file, column).map_err(Error::column(&name))?;
        Ok(Box::new(items.map(move |item| item.map_err(Error::column(&name)))))
    }
}

/// A line, or the error of one that is not UTF-8.
type LineText = std::result::Result<String, String>;

fn is_blank(line: &LineText) -> bool {
    line.as_ref().is_ok_and(|line| line.trim().is_empty())
}

/// A row that cannot be read, counted from 0: it has no string. If it is the first, the whole file may be in another
/// format or encoding.
fn unreadable(row: usize, problem: Error) -> Result<Result<String>> {
    if row == 0 { Err(problem) } else { Ok(Err(problem)) }
}

fn numbered(origin: &str, number: usize) -> String {
    format!("{origin}:{number}")
}

/// The error for a column of a file that has none.
fn no_columns(file: impl AsRef<Path>, column: &str) -> Error {
    let expected = "expected a .jsonl, .csv, .tsv or .parquet file, which has columns such as";
    Error::format(file, format!("{expected} {column:?}"))
}

/// Strings as paths, skipping blank ones.
fn paths(strings: Items<Result<String>>) -> impl Iterator<Item = Result<Result<PathBuf>>> + Send {
    let strings = strings.filter(|string| !matches!(string, Ok(Ok(string)) if string.trim().is_empty()));
    strings.map(|string| Ok(string?.map(PathBuf::from)))
}

/// The name of an image that a row lacks: where it is missing.
fn name_of(missing: &Error) -> PathBuf {
    PathBuf::from(missing.to_string())
}

/// Copies a pipe's content to a file, refusing endless input before it fills the disk.
fn copy_of(mut source: impl Read, name: &str) -> Result<Temporary> {
    let copy = Temporary::file(&std::env::temp_dir()).map_err(Error::io(name))?;
    let mut file = File::create(copy.path()).map_err(Error::io(name))?;
    // Some pipes are one endless line.
    let begin = io::copy(&mut source.by_ref().take(text_file::MOST_LINE_BYTES as u64 + 1), &mut file);
    if begin.map_err(Error::io(name))? > text_file::MOST_LINE_BYTES as u64 {
        let first = text_file::lines(text_file::open(copy.path()).map_err(Error::io(name))?).next();
        first.transpose().map_err(Error::io(name))?;
    }
    let more = io::copy(&mut source.take(MOST_PIPE_BYTES), &mut file).map_err(Error::io(name))?;
    if more >= MOST_PIPE_BYTES {
        let problem = format!(
            "expected at most {MOST_PIPE_BYTES} bytes through a pipe, found more; write them to a file"
        );
        return Err(Error::format(name, problem));
    }
    Ok(copy)
}

/// Everything up to and including the first error.
fn until_error<T: 'static>(items: Items<T>) -> Items<T> {
    let mut failed = false;
    Box::new(items.take_while(move |item| {
        let before = failed;
        failed = item.is_err();
        !before
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::TestResult;

    fn strings(name: &str, content: &[u8], column: Option<&str>) -> TestResult<Vec<String>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join(name);
        std::fs::write(&path, content)?;
        let strings = ListFile::open(&path, column)?.strings()?;
        Ok(strings.map(|string| string?).collect::<Result<_>>()?)
    }

    fn message(name: &str, content: &[u8], column: Option<&str>) -> String {
        strings(name, content, column).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_line_is_a_string() -> TestResult {
        assert_eq!(
            strings("a.txt", "\u{feff}一只猫\r\n\na cat\n".as_bytes(), None)?,
            ["一只猫", "", "a cat"]
        );
        assert_eq!(strings("a.txt", b"\nlast", None)?, ["", "last"]);
        assert!(strings("a.txt", b"", None)?.is_empty());
        Ok(())
    }

    #[test]
    fn objects_have_their_string_in_a_column() -> TestResult {
        let content = b"{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"\"}\n";
        assert_eq!(strings("a.jsonl", content, None)?, ["a\nb", ""]);
        assert_eq!(strings("a.JSONL", b"{\"t\": \"c\"}", Some("t"))?, ["c"]);
        assert_eq!(strings("a.json", b"{\"text\": \"d\"}\n{\"text\": \"e\"}", None)?, ["d", "e"]);
        Ok(())
    }

    #[test]
    fn records_have_their_string_in_a_column() -> TestResult {
        let content = "\u{feff}id,text\r\n1,\"a, b\"\r\n2,一只猫\r\n";
        assert_eq!(strings("a.csv", content.as_bytes(), None)?, ["a, b", "一只猫"]);
        assert_eq!(strings("a.tsv", b"t\tu\nx y\tz", Some("u"))?, ["z"]);
        assert_eq!(
            strings("a.csv", "\u{feff}id;text\r\n1;\"a; b\"\r\n2;c, d\r\n".as_bytes(), None)?,
            ["a; b", "c, d"]
        );
        assert_eq!(strings("a.csv", b"id\ttext\n1\ta, b\n", None)?, ["a, b"]);
        assert_eq!(strings("a.tsv", b"id,text\n1,a\n", None)?, ["a"]);
        // The separator of the ending comes first.
        assert_eq!(strings("a.csv", b"a;text,text\n1;2,3\n", None)?, ["3"]);
        let found = message("a.csv", b"id,text\n1\n", None);
        assert!(found.ends_with("line 2: no value in column \"text\""), "{found}");
        assert!(message("a.csv", b"id\n1\n", None).ends_with("no column \"text\", there are \"id\""));
        Ok(())
    }

    #[test]
    fn errors_name_the_line_and_what_is_there() {
        let found = message("a.txt", b"one\ntwo\n\xff\nfour", None);
        assert!(found.ends_with("a.txt: line 3: expected text in UTF-8, found the byte 0xff"), "{found}");
        let found = message("a.jsonl", b"{\"b\": \"\", \"a\": 1}", None);
        assert!(found.ends_with("line 1: no column \"text\", there are \"a\", \"b\""), "{found}");
        let found = message("a.jsonl", b"{\"text\": \"\"}\n{\"text\": 1}", None);
        assert!(found.ends_with("line 2: column \"text\": expected a string, found a number"), "{found}");
        for content in [b"{\"text\": \"\"".as_slice(), b"[1]", b"x"] {
            let found = message("a.jsonl", content, None);
            assert!(found.contains("line 1: expected a JSON object"), "{found}");
        }
        // In the first row, the file may be in another format or encoding; further down, only the row is lost.
        let rows = |name: &str, content: &[u8]| -> TestResult<Vec<bool>> {
            let directory = tempfile::tempdir()?;
            let path = directory.path().join(name);
            std::fs::write(&path, content)?;
            let strings = ListFile::open(&path, None)?.strings()?;
            Ok(strings.map(|string| Ok(string?.is_ok())).collect::<Result<_>>()?)
        };
        let found = rows("a.jsonl", b"{\"text\": \"a\"}\n{\"te\n\xff\n\n{\"text\": \"b\"}\n");
        assert_eq!(found.unwrap(), [true, false, false, true]);
        assert_eq!(rows("a.csv", b"text\na\n\xff\nb\n").unwrap(), [true, false, true]);
        for (name, content) in
            [("a.jsonl", b"\xff\n{\"text\": \"b\"}\n".as_slice()), ("a.csv", b"text\n\xff\nb\n")]
        {
            let found = message(name, content, None);
            let line = if name == "a.csv" { "line 2: " } else { "line 1: " };
            assert!(found.contains(line), "{found}");
        }
        // A column that no readable object has is still missed.
        let found = message("a.jsonl", b"{\"b\": 1}\n{\"te\n{\"c\": 1}\n", None);
        assert!(found.ends_with("line 1: no column \"text\", there are \"b\""), "{found}");
        // As a text, it would be embedded with all its brackets.
        for content in [b"[{\"text\": \"a\"}]".as_slice(), b"[\n  {\"text\": \"a\"}\n]"] {
            let found = message("a.json", content, None);
            assert!(found.contains("line 1: expected a JSON object: found a list"), "{found}");
        }
        assert!(message("a.txt", b"", Some("t")).contains("expected a .jsonl, .csv, .tsv or .parquet file"));
        assert!(!message("a.parquet", b"PAR1 is how it would begin", None).is_empty());
    }
}
