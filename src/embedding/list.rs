//! Reads lists of strings from files: a line each, or a column of a JSON lines, CSV or Parquet file.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use altclip_encoder::embedder::ImageSource;
use altclip_training::pairs::no_string;
use altclip_training::pairs::parquet_column::{self, ColumnError, no_column};
use altclip_training::text_file::{self, Kind, Line};
use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::NamedTempFile;

/// Most bytes that come through a pipe, of which a copy is made.
const MOST_PIPE_BYTES: u64 = 64 << 30;

/// A file with a list of strings, which can be read again and again.
pub struct List {
    /// The option and the file, for errors.
    name: String,
    path: PathBuf,
    kind: Kind,
    /// Of a table, where the strings are.
    column: String,
    /// What came through a pipe, for as long as it is needed.
    _copy: Option<NamedTempFile>,
}

/// What a list has of something, or why it has no more.
pub type Items<T> = Box<dyn Iterator<Item = Result<T>> + Send>;

impl List {
    /// The list at `path`, or on standard input for `-`. `option` is the one that gave it. The ending `.jsonl`, `.csv`,
    /// `.tsv` or `.parquet` makes it a table, where the strings are in `column`, or in `usual_column` without that.
    ///
    /// # Errors
    /// If a column is given and the file is no table, or standard input or a pipe cannot be read.
    pub fn open(option: &str, path: &Path, column: Option<&str>, usual_column: &str) -> Result<Self> {
        let from_stdin = path == Path::new("-");
        let shown = if from_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let name = format!("{option} {shown}");
        let kind = Kind::of(path);
        if let (Kind::Lines, Some(column)) = (kind, column) {
            bail!(
                "{name}: expected a .jsonl, .csv, .tsv or .parquet file, which has columns such as {column:?}"
            );
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
        Ok(Self { name, path, kind, column: column.unwrap_or(usual_column).to_owned(), _copy: copy })
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
        self.read(|| self.open_strings())
    }

    /// The images in turn: strings are their paths, and a Parquet file may hold the images themselves. After an error
    /// there are no more.
    ///
    /// # Errors
    /// If the file cannot be opened, or has no such column.
    pub fn images(&self) -> Result<Items<ImageSource>> {
        self.read(|| match self.kind {
            Kind::Parquet => Ok(of_column(parquet_column::images(File::open(&self.path)?, &self.column)?)),
            _ => Ok(Box::new(paths(self.open_strings()?).map(|path| Ok(path?.into())))),
        })
    }

    /// What each of the [`images`](Self::images) is called, from no more of the file than that needs.
    ///
    /// # Errors
    /// As for the images.
    pub fn image_names(&self) -> Result<Items<PathBuf>> {
        self.read(|| match self.kind {
            Kind::Parquet => {
                Ok(of_column(parquet_column::image_names(File::open(&self.path)?, &self.column)?))
            }
            _ => Ok(Box::new(paths(self.open_strings()?))),
        })
    }

    /// Puts the list's name before every error of the items that `open` finds, and ends at the first one.
    fn read<T: 'static>(&self, open: impl FnOnce() -> Result<Items<T>>) -> Result<Items<T>> {
        let name = self.name.clone();
        let items = until_error(open().with_context(|| name.clone())?);
        Ok(Box::new(items.map(move |item| item.with_context(|| name.clone()))))
    }

    fn open_strings(&self) -> Result<Items<String>> {
        let column = self.column.clone();
        Ok(match self.kind {
            Kind::Lines => Box::new(lines(&self.path)?.map(|line| Ok(line?.1))),
            Kind::JsonLines => {
                let objects = lines(&self.path)?
                    .filter(|line| !line.as_ref().is_ok_and(|(_, line)| line.trim().is_empty()));
                Box::new(objects.map(move |line| {
                    let (number, line) = line?;
                    json_string(&line, &column).with_context(|| format!("line {number}"))
                }))
            }
            Kind::Csv { delimiter } => csv_strings(&self.path, delimiter, &column)?,
            Kind::Parquet => of_column(parquet_column::strings(File::open(&self.path)?, &column)?),
        })
    }
}

/// The lines of a file and their numbers.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<(usize, String)>> + Send + use<>> {
    Ok(text_file::lines(text_file::open(path)?).map(|line| {
        let Line { number, text } = line?;
        Ok((number, text.map_err(|problem| anyhow!("line {number}: {problem}"))?))
    }))
}

fn csv_strings(path: &Path, delimiter: u8, column: &str) -> Result<Items<String>> {
    let mut reader = text_file::csv(text_file::open(path)?, delimiter);
    let header = reader.headers().context("expected a header")?;
    let place = header.iter().position(|name| name == column);
    let place = place.with_context(|| no_column(column, header.iter()))?;
    let column = column.to_owned();
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let value = record.get(place).map(str::to_owned);
        value.with_context(|| format!("line {line}: no value in column {column:?}"))
    })))
}

fn of_column<T: 'static>(items: impl Iterator<Item = Result<T, ColumnError>> + Send + 'static) -> Items<T> {
    Box::new(items.map(|item| Ok(item?)))
}

/// Strings as paths, without those that are blank.
fn paths(strings: Items<String>) -> impl Iterator<Item = Result<PathBuf>> + Send {
    let strings = strings.filter(|string| !string.as_ref().is_ok_and(|string| string.trim().is_empty()));
    strings.map(|string| string.map(PathBuf::from))
}

/// What comes through a pipe, in a file. What never ends is refused before it fills the disk.
fn copy_of(mut from: impl Read) -> Result<NamedTempFile> {
    let mut copy = NamedTempFile::new()?;
    // Devices such as /dev/zero have no line that ends.
    let begin = io::copy(&mut from.by_ref().take(text_file::MOST_LINE_BYTES as u64 + 1), &mut copy)?;
    if begin > text_file::MOST_LINE_BYTES as u64 {
        let first = text_file::lines(text_file::open(copy.path())?).next();
        first.transpose()?;
    }
    let rest = io::copy(&mut from.take(MOST_PIPE_BYTES), &mut copy)?;
    ensure!(
        rest < MOST_PIPE_BYTES,
        "expected at most {MOST_PIPE_BYTES} bytes through a pipe, found more; write them to a file"
    );
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

fn json_string(line: &str, column: &str) -> Result<String> {
    let object = text_file::object(line).map_err(anyhow::Error::msg)?;
    match text_file::field(&object, column) {
        Some(serde_json::Value::String(string)) => Ok(string.clone()),
        Some(other) => bail!("column {column:?}: {}", no_string(column, text_file::describe(other))),
        None => bail!("{}", no_column(column, object.keys().map(String::as_str))),
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
    fn records_have_their_string_in_a_column() -> Result<()> {
        let content = "\u{feff}id,text\r\n1,\"a, b\"\r\n2,一只猫\r\n";
        assert_eq!(strings("a.csv", content.as_bytes(), None)?, ["a, b", "一只猫"]);
        assert_eq!(strings("a.tsv", b"t\tu\nx y\tz", Some("u"))?, ["z"]);
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
        assert!(message("a.txt", b"", Some("t")).contains("expected a .jsonl, .csv, .tsv or .parquet file"));
        assert!(!message("a.parquet", b"PAR1 is how it would begin", None).is_empty());
    }
}
