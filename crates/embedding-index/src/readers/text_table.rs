//! Reads columns of texts from JSON lines, CSV, TSV or Parquet.

use super::parquet_column;
use super::skipped::Skipped;
use super::text_file::{self, Line, ListFormat};
use crate::error::{Error, Result};
use model_files::open_file;
use serde_json::Value;
use std::path::Path;

/// The rows of a file that have a value in all requested columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextTable {
    /// The values of each row, in the order of the requested columns.
    pub rows: Vec<Vec<String>>,
    /// The line or row of the file where each begins, counted from 1.
    pub numbers: Vec<usize>,
    /// Rows that were skipped.
    pub skipped: Skipped,
}

impl TextTable {
    /// Reads these columns from a file: a JSON object per line (`.jsonl`), a header and records (`.csv`, `.tsv`),
    /// either optionally compressed (`.gz`, `.zst`), or columns of strings (`.parquet`). For nested values, a column
    /// is a dotted path, such as `captions.0`. A row that cannot be read, or lacks a value, is skipped and counted.
    ///
    /// # Errors
    /// If the file cannot be read, has another ending or no such column, or no row is left.
    pub fn read(path: &Path, columns: &[&str]) -> Result<Self> {
        let table = match ListFormat::of(path) {
            ListFormat::JsonLines => read_jsonl(path, columns)?,
            ListFormat::Csv { delimiter } => read_csv(path, columns, delimiter)?,
            ListFormat::Parquet => read_parquet(path, columns)?,
            ListFormat::Lines => {
                return Err(Error::format(
                    path,
                    "expected a file that ends in .jsonl, .csv, .tsv or .parquet",
                ));
            }
        };
        if table.rows.is_empty() {
            let columns = columns.join(", ");
            let why =
                if table.skipped.count == 0 { "it has none".to_owned() } else { table.skipped.to_string() };
            return Err(Error::format(path, format!("expected rows with the columns {columns}: {why}")));
        }
        Ok(table)
    }

    /// Appends a row.
    pub(super) fn push(&mut self, number: usize, values: Vec<String>) {
        self.numbers.push(number);
        self.rows.push(values);
    }

    /// Appends a row, or counts it as skipped. `unit` is what the number counts.
    fn add(&mut self, unit: &str, number: usize, columns: &[&str], values: Vec<Option<String>>) {
        match complete(columns, values) {
            Ok(values) => self.push(number, values),
            Err(missing) => self.skipped.add(|| format!("{unit} {number}: {missing}")),
        }
    }
}

/// The values of some columns if none is empty; otherwise says which is.
pub(super) fn complete(columns: &[&str], values: Vec<Option<String>>) -> Result<Vec<String>, String> {
    let is_missing = |value: &Option<String>| value.as_deref().is_none_or(|text| text.trim().is_empty());
    match columns.iter().zip(&values).find(|(_, value)| is_missing(value)) {
        Some((column, _)) => Err(format!("`{column}` is empty")),
        None => Ok(values.into_iter().flatten().collect()),
    }
}

fn read_jsonl(path: &Path, columns: &[&str]) -> Result<TextTable> {
    let mut table = TextTable::default();
    let mut found: Vec<bool> = vec![false; columns.len()];
    let mut names: Vec<String> = Vec::new();
    for line in text_file::lines(text_file::open(path).map_err(Error::io(path))?) {
        let Line { number, text } = line.map_err(Error::io(path))?;
        if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
            continue;
        }
        match text.and_then(|text| text_file::object(&text)) {
            Ok(object) => {
                if names.is_empty() {
                    names = object.keys().cloned().collect();
                }
                let values: Vec<Option<&Value>> =
                    columns.iter().map(|column| text_file::field(&object, column)).collect();
                found.iter_mut().zip(&values).for_each(|(found, value)| *found |= value.is_some());
                match columns.iter().zip(&values).find(|(_, value)| is_no_text(**value)) {
                    Some((column, Some(value))) => table.skipped.add(|| {
                        format!(
                            "line {number}: `{column}`: {}",
                            no_string(column, text_file::describe(value))
                        )
                    }),
                    _ => {
                        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
                        table.add("line", number, columns, values.into_iter().map(text).collect());
                    }
                }
            }
            Err(problem) => table.skipped.add(|| format!("line {number}: {problem}")),
        }
    }
    match columns.iter().zip(found).find(|(_, found)| !found) {
        Some((column, _)) if !names.is_empty() => Err(no_column(path, column, &names)),
        _ => Ok(table),
    }
}

/// Whether there is a value that is not a string.
fn is_no_text(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_string() && !value.is_null())
}

/// The error for a value that is not a string.
pub(super) fn no_string(column: &str, found: &str) -> String {
    let hint = if found == "a list" { format!("; {column}.0 is its first item") } else { String::new() };
    format!("expected a string, found {found}{hint}")
}

fn read_csv(path: &Path, columns: &[&str], delimiter: u8) -> Result<TextTable> {
    let text = text_file::open(path).map_err(Error::io(path))?;
    let mut reader = text_file::csv(text, delimiter, columns).map_err(Error::io(path))?;
    let names: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(str::to_owned).collect(),
        Err(error) => return Err(Error::format(path, format!("expected a header: {error}"))),
    };
    let place = |column: &&str| {
        names.iter().position(|name| name == column).ok_or_else(|| no_column(path, column, &names))
    };
    let places = columns.iter().map(place).collect::<Result<Vec<usize>>>()?;
    let mut table = TextTable::default();
    let mut record = csv::StringRecord::new();
    loop {
        let line = usize::try_from(reader.position().line()).unwrap_or(usize::MAX);
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(table),
            Ok(true) => {
                let value = |&place: &usize| record.get(place).map(str::to_owned);
                table.add("line", line, columns, places.iter().map(value).collect());
            }
            Err(error) if error.is_io_error() => return Err(Error::format(path, error)),
            Err(error) => table.skipped.add(|| format!("line {line}: {error}")),
        }
    }
}

fn read_parquet(path: &Path, columns: &[&str]) -> Result<TextTable> {
    let strings = |column: &&str| {
        let file = open_file(path).map_err(Error::io(path))?;
        parquet_column::optional_strings(file, column).map_err(Error::column(path))
    };
    let mut strings = columns.iter().map(strings).collect::<Result<Vec<_>>>()?;
    let mut row = || -> Option<Vec<_>> { strings.iter_mut().map(Iterator::next).collect() };
    let rows = std::iter::from_fn(|| row().filter(|values| !values.is_empty()));
    let mut table = TextTable::default();
    for (number, values) in (1..).zip(rows) {
        let values = values.into_iter().collect::<Result<_, _>>();
        table.add("row", number, columns, values.map_err(Error::column(path))?);
    }
    Ok(table)
}

pub(super) fn no_column(path: &Path, column: &str, names: &[String]) -> Error {
    Error::format(path, format!("expected a column `{column}`, found {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: impl AsRef<[u8]>, columns: &[&str]) -> std::result::Result<TextTable, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = folder.path().join(name);
        std::fs::write(&path, text).map_err(|e| e.to_string())?;
        let shown = format!("{}/", folder.path().display());
        TextTable::read(&path, columns).map_err(|error| error.to_string().replace(&shown, ""))
    }

    #[test]
    fn rows_keep_the_order_of_the_columns() {
        let texts = [
            ("a.jsonl", "{\"en\": \"cat\", \"zh\": \"猫\"}\n\n{\"zh\": \"狗\", \"en\": \"dog\"}\n"),
            ("a.csv", "en,x,zh\ncat,1,猫\n\"dog\",2,狗\n"),
            ("a.TSV", "\u{feff}zh\ten\n猫\tcat\n狗\tdog\n"),
            ("a.csv", "en;x;zh\ncat;1;猫\n\"dog\";2;狗\n"),
        ];
        for (name, text) in texts {
            let rows = read(name, text, &["zh", "en"]).map(|table| (table.rows, table.skipped.count));
            assert_eq!(rows, Ok((vec![vec!["猫".into(), "cat".into()], vec!["狗".into(), "dog".into()]], 0)));
        }
    }

    #[test]
    fn what_is_missing_is_named_and_counted() {
        let text = "{\"en\": \"cat\", \"zh\": \" \"}\n{\"en\": \"dog\", \"zh\": \"狗\"}\nno json\n{\"en\": \"ant\"}\n{\"zh\": 3}\n";
        let skipped = read("a.jsonl", text, &["en", "zh"]).map(|table| table.skipped.to_string());
        let expected = "skipped 4: line 1: `zh` is empty; line 3: expected a JSON object: expected ident at byte 2; \
                        line 4: `zh` is empty; and 1 more";
        assert_eq!(skipped.as_deref(), Ok(expected));
        let skipped =
            read("a.csv", "en,zh\ncat,猫\ndog\n", &["en", "zh"]).map(|table| table.skipped.to_string());
        assert_eq!(skipped.as_deref(), Ok("skipped 1: line 3: `zh` is empty"));
        let bytes = [&b"en,zh\ncat,\xff\n"[..], "dog,狗\n".as_bytes()].concat();
        let table = read("a.csv", bytes, &["en", "zh"]);
        assert_eq!(table.map(|table| (table.rows.len(), table.skipped.count)), Ok((1, 1)));
    }

    #[test]
    fn a_file_without_a_column_is_one_error() {
        let error = |name, text| read(name, text, &["en", "zh"]).err();
        let expected = |name| Some(format!("{name}: expected a column `zh`, found en, fr"));
        assert_eq!(error("a.csv", "en,fr\na,b\n"), expected("a.csv"));
        assert_eq!(error("a.jsonl", "{\"en\": \"a\", \"fr\": \"b\"}\n"), expected("a.jsonl"));
        let none = error("a.csv", "en,zh\n");
        assert_eq!(none.as_deref(), Some("a.csv: expected rows with the columns en, zh: it has none"));
        let ending = error("a.txt", "en");
        assert_eq!(
            ending.as_deref(),
            Some("a.txt: expected a file that ends in .jsonl, .csv, .tsv or .parquet")
        );
    }
}
