//! Lists of strings in files: a line each, a JSON object on each line, or a column of a Parquet file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use altclip_encoder::embedder::PictureFile;
use altclip_training::pairs::parquet_column::{self, ColumnError, no_column};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

/// Most bytes of a line. A file without ends of lines would else be read into memory whole.
const MOST_LINE_BYTES: u64 = 64 << 20;

/// A file with a list of strings, which can be read again and again.
pub struct List {
    /// The option and the file, for errors.
    name: String,
    path: PathBuf,
    format: Format,
    /// What came through a pipe, for as long as it is needed.
    _copy: Option<NamedTempFile>,
}

#[derive(Debug, PartialEq, Eq)]
enum Format {
    Lines,
    JsonLines { column: String },
    Parquet { column: String },
}

/// What a list has of something, or why it has no more.
pub type Items<T> = Box<dyn Iterator<Item = Result<T>> + Send>;

impl List {
    /// The list at `path`, or on standard input for `-`. `option` is the one that gave it. The ending `.jsonl` or
    /// `.parquet` makes it a table, where the strings are in `column`, or in `usual_column` without that.
    ///
    /// # Errors
    /// If a column is given and the file is no table, or standard input or a pipe cannot be read.
    pub fn open(option: &str, path: &Path, column: Option<&str>, usual_column: &str) -> Result<Self> {
        let from_stdin = path == Path::new("-");
        let shown = if from_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let name = format!("{option} {shown}");
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let named = || column.unwrap_or(usual_column).to_owned();
        let format = match ending.as_str() {
            "jsonl" => Format::JsonLines { column: named() },
            "parquet" => Format::Parquet { column: named() },
            _ => Format::Lines,
        };
        if let (Format::Lines, Some(column)) = (&format, column) {
            bail!("{name}: expected a .jsonl or .parquet file, which has columns such as {column:?}");
        }
        // The list is read more than once, and a pipe can be read only once.
        let copy = if from_stdin {
            Some(copy_of(io::stdin().lock()).with_context(|| name.clone())?)
        } else {
            let file = File::open(path).with_context(|| name.clone())?;
            let metadata = file.metadata().with_context(|| name.clone())?;
            ensure!(!metadata.is_dir(), "{name}: expected a file, found a directory");
            if metadata.is_file() { None } else { Some(copy_of(file).with_context(|| name.clone())?) }
        };
        let path = copy.as_ref().map_or(path, NamedTempFile::path).to_owned();
        Ok(Self { name, path, format, _copy: copy })
    }

    /// What errors call the list.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The strings in turn. After an error there are no more.
    ///
    /// # Errors
    /// If the file cannot be opened, or has no such column.
    pub fn strings(&self) -> Result<Items<String>> {
        self.read(strings)
    }

    /// The pictures in turn: strings are their paths, and a Parquet file may hold the pictures themselves. After an error
    /// there are no more.
    ///
    /// # Errors
    /// If the file cannot be opened, or has no such column.
    pub fn pictures(&self) -> Result<Items<PictureFile>> {
        self.read(|file, format| match format {
            Format::Parquet { column } => Ok(of_column(parquet_column::pictures(file, column)?)),
            _ => Ok(Box::new(paths(strings(file, format)?).map(|path| Ok(path?.into())))),
        })
    }

    /// What each of the [`pictures`](Self::pictures) is called, from no more of the file than that needs.
    ///
    /// # Errors
    /// As for the pictures.
    pub fn picture_names(&self) -> Result<Items<PathBuf>> {
        self.read(|file, format| match format {
            Format::Parquet { column } => Ok(of_column(parquet_column::picture_names(file, column)?)),
            _ => Ok(Box::new(paths(strings(file, format)?))),
        })
    }

    /// Opens the file for `items`, puts the list's name before every error, and ends at the first one.
    fn read<T: 'static>(&self, items: impl FnOnce(File, &Format) -> Result<Items<T>>) -> Result<Items<T>> {
        let name = self.name.clone();
        let open = || items(File::open(&self.path)?, &self.format);
        let items = until_error(open().with_context(|| name.clone())?);
        Ok(Box::new(items.map(move |item| item.with_context(|| name.clone()))))
    }
}

fn strings(file: File, format: &Format) -> Result<Items<String>> {
    Ok(match format {
        Format::Lines => Box::new(lines(BufReader::new(file))),
        Format::JsonLines { column } => {
            let column = column.clone();
            let objects = lines(BufReader::new(file)).enumerate();
            Box::new(objects.filter_map(move |(index, line)| match line {
                Ok(line) if line.trim().is_empty() => None,
                Ok(line) => Some(json_string(&line, &column).with_context(|| format!("line {}", index + 1))),
                Err(error) => Some(Err(error)),
            }))
        }
        Format::Parquet { column } => of_column(parquet_column::strings(file, column)?),
    })
}

fn of_column<T: 'static>(items: impl Iterator<Item = Result<T, ColumnError>> + Send + 'static) -> Items<T> {
    Box::new(items.map(|item| Ok(item?)))
}

/// Strings as paths, without those that are blank.
fn paths(strings: Items<String>) -> impl Iterator<Item = Result<PathBuf>> + Send {
    let strings = strings.filter(|string| !string.as_ref().is_ok_and(|string| string.trim().is_empty()));
    strings.map(|string| string.map(PathBuf::from))
}

fn copy_of(mut from: impl Read) -> io::Result<NamedTempFile> {
    let mut copy = NamedTempFile::new()?;
    io::copy(&mut from, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// Everything up to the first error, and that too.
fn until_error<T>(items: impl Iterator<Item = Result<T>>) -> impl Iterator<Item = Result<T>> {
    let mut failed = false;
    items.take_while(move |item| {
        let before = failed;
        failed = item.is_err();
        !before
    })
}

/// The lines of a text in UTF-8, without what ends them.
fn lines(mut reader: impl BufRead) -> impl Iterator<Item = Result<String>> {
    let mut number = 0;
    std::iter::from_fn(move || {
        number += 1;
        let line = read_line(&mut reader).transpose()?;
        Some(line.and_then(|bytes| utf8(bytes, number == 1)).with_context(|| format!("line {number}")))
    })
}

fn read_line(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.by_ref().take(MOST_LINE_BYTES + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    ensure!(line.len() as u64 <= MOST_LINE_BYTES, "expected at most {MOST_LINE_BYTES} bytes, found more");
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(Some(line))
}

fn utf8(line: Vec<u8>, is_first: bool) -> Result<String> {
    let line = String::from_utf8(line).map_err(|_| anyhow!("expected text in UTF-8, found other bytes"))?;
    // Editors on Windows begin a file with this mark.
    Ok(match line.strip_prefix('\u{feff}') {
        Some(rest) if is_first => rest.to_owned(),
        _ => line,
    })
}

fn json_string(line: &str, column: &str) -> Result<String> {
    // The only line that serde_json sees is not the only one of the file.
    let place = |error: serde_json::Error| error.to_string().replace(" at line 1 column ", " at byte ");
    let mut object: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| anyhow!("expected a JSON object: {}", place(error)))?;
    match object.remove(column) {
        Some(Value::String(string)) => Ok(string),
        Some(other) => bail!("expected a string in column {column:?}, found {}", kind(&other)),
        None => bail!("{}", no_column(column, object.keys().map(String::as_str))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(name: &str, content: &[u8], column: Option<&str>) -> Result<Vec<String>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join(name);
        std::fs::write(&path, content)?;
        List::open("--texts", &path, column, "text")?.strings()?.collect()
    }

    fn message(name: &str, content: &[u8], column: Option<&str>) -> String {
        strings(name, content, column).err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn every_line_is_a_string() -> Result<()> {
        assert_eq!(
            strings("a.txt", "\u{feff}一只猫\r\n\na cat\n".as_bytes(), None)?,
            ["一只猫", "", "a cat"]
        );
        assert_eq!(strings("a.txt", b"\nlast", None)?, ["", "last"]);
        assert!(strings("a.txt", b"", None)?.is_empty());
        Ok(())
    }

    #[test]
    fn objects_have_their_string_in_a_column() -> Result<()> {
        let content = b"{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"\"}\n";
        assert_eq!(strings("a.jsonl", content, None)?, ["a\nb", ""]);
        assert_eq!(strings("a.JSONL", b"{\"t\": \"c\"}", Some("t"))?, ["c"]);
        Ok(())
    }

    #[test]
    fn errors_name_the_line_and_what_is_there() {
        let found = message("a.txt", b"one\ntwo\n\xff\nfour", None);
        assert!(found.ends_with("a.txt: line 3: expected text in UTF-8, found other bytes"), "{found}");
        let found = message("a.jsonl", b"{\"b\": \"\", \"a\": 1}", None);
        assert!(found.ends_with("line 1: no column \"text\", there are \"a\", \"b\""), "{found}");
        let found = message("a.jsonl", b"{\"text\": \"\"}\n{\"text\": 1}", None);
        assert!(found.ends_with("line 2: expected a string in column \"text\", found a number"), "{found}");
        for content in [b"{\"text\": \"\"".as_slice(), b"[1]", b"x"] {
            let found = message("a.jsonl", content, None);
            assert!(found.contains("line 1: expected a JSON object"), "{found}");
        }
        assert!(message("a.txt", b"", Some("t")).contains("expected a .jsonl or .parquet file"));
        assert!(!message("a.parquet", b"PAR1 is how it would begin", None).is_empty());
    }
}
