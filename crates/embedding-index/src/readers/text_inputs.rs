//! Lists the texts that a job embeds.

use super::{Items, ListFile};
use crate::error::{Error, Result};

/// Texts in memory, followed by those of a list. They are iterated more than once, in the same order.
#[derive(Debug, Default)]
pub struct TextInputs {
    texts: Vec<String>,
    list: Option<ListFile>,
    key_column: Option<String>,
}

impl TextInputs {
    /// These texts, followed by those of the list.
    pub fn new(texts: Vec<String>, list: Option<ListFile>) -> Self {
        Self { texts, list, key_column: None }
    }

    /// Sets the column with the keys of the list's texts, which identify their rows in a database. By default a key
    /// is the list's name and a number, such as `captions.txt:7`.
    #[must_use]
    pub fn key_column(self, column: Option<String>) -> Self {
        Self { key_column: column, ..self }
    }

    /// Iterates the texts. The inner error is that of a row without a text, as in [`ListFile::strings`].
    ///
    /// # Errors
    /// If the list cannot be read, or is empty.
    pub fn iter(&self) -> Result<Items<Result<String>>> {
        let texts = self.texts.clone().into_iter().map(|text| Ok(Ok(text)));
        let Some(list) = &self.list else { return Ok(Box::new(texts)) };
        Ok(Box::new(texts.chain(strings_of(list)?)))
    }

    /// Iterates the texts, each after its key. A text in memory is its own key.
    ///
    /// # Errors
    /// Like [`iter`](Self::iter); also if the list has no column of keys.
    pub fn keyed(&self) -> Result<Items<Result<(String, String)>>> {
        let texts = self.texts.clone().into_iter().map(|text| Ok::<_, Error>(Ok((text.clone(), text))));
        let Some(list) = &self.list else { return Ok(Box::new(texts)) };
        let strings = strings_of(list)?;
        let listed = list.keys(self.key_column.as_deref())?.zip(strings);
        Ok(Box::new(texts.chain(listed.map(|(key, text)| {
            let (key, text) = (key?, text?);
            // A row without a text needs no key.
            match text {
                Ok(text) => Ok(Ok((key?, text))),
                Err(missing) => Ok(Err(missing)),
            }
        }))))
    }
}

/// The strings of a list that must have some.
fn strings_of(list: &ListFile) -> Result<impl Iterator<Item = Result<Result<String>>> + Send + use<>> {
    let mut strings = list.strings()?.peekable();
    if strings.peek().is_none() {
        return Err(Error::format(list.name(), "expected at least one text, found none"));
    }
    Ok(strings)
}

impl<S: Into<String>> FromIterator<S> for TextInputs {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        Self::new(texts.into_iter().map(Into::into).collect(), None)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use test_support::TestResult;

    fn keyed(path: &Path, column: Option<&str>) -> Result<Vec<(String, String)>> {
        let list = ListFile::open(path, None)?.with_name("the list");
        let inputs = TextInputs::new(vec!["own".to_owned()], Some(list));
        inputs.key_column(column.map(str::to_owned)).keyed()?.map(|text| text?).collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(key, text)| (key.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn keys_are_numbers_or_a_column() -> TestResult {
        let folder = tempfile::tempdir()?;
        let (lines, table, objects) =
            (folder.path().join("a.txt"), folder.path().join("a.csv"), folder.path().join("a.jsonl"));
        fs::write(&lines, "一只猫\n\n")?;
        fs::write(&table, "id,text\n7,a\nx y,b\n")?;
        fs::write(&objects, "{\"id\": 7, \"text\": \"a\"}\n\n{\"id\": \"x\", \"text\": \"b\"}\n")?;
        let numbered = |path: &Path, number: usize| format!("{}:{number}", path.display());
        let (first, second) = (numbered(&lines, 1), numbered(&lines, 2));
        assert_eq!(keyed(&lines, None)?, owned(&[("own", "own"), (&first, "一只猫"), (&second, "")]));
        assert_eq!(keyed(&table, Some("id"))?, owned(&[("own", "own"), ("7", "a"), ("x y", "b")]));
        assert_eq!(keyed(&objects, Some("id"))?, owned(&[("own", "own"), ("7", "a"), ("x", "b")]));
        let second = numbered(&objects, 2);
        assert_eq!(keyed(&objects, None)?[2], (second, "b".to_owned()));
        Ok(())
    }

    #[test]
    fn rows_without_a_text_need_no_key_and_keep_their_number() -> TestResult {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.jsonl");
        let lines = [
            "{\"id\": 1, \"text\": \"a\"}",
            "{\"text\": null}",
            "{\"id\": 3}",
            "{\"id\": 4, \"text\": \"b\"}",
        ];
        fs::write(&path, lines.join("\n"))?;
        for (column, expected) in [(Some("id"), ["1", "4"]), (None, ["a.jsonl:1", "a.jsonl:4"])] {
            let list = ListFile::open(&path, None)?.with_name("the list");
            let inputs = TextInputs::new(Vec::new(), Some(list)).key_column(column.map(str::to_owned));
            let rows: Vec<_> = inputs.keyed()?.collect::<Result<_>>()?;
            let problems: Vec<String> =
                rows.iter().filter_map(|row| row.as_ref().err()).map(ToString::to_string).collect();
            assert_eq!(
                problems,
                [
                    "the list: line 2: column \"text\": null",
                    "the list: line 3: no column \"text\", there are \"id\""
                ]
            );
            let keys: Vec<&String> = rows.iter().flatten().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), 2);
            assert!(keys.iter().zip(expected).all(|(key, end)| key.ends_with(end)), "{keys:?}");
        }
        fs::write(&path, "{\"text\": \"a\", \"id\": null}\n")?;
        let error = keyed(&path, Some("id")).err().ok_or("no error")?.to_string();
        assert_eq!(error, "the list: line 1: column \"id\": null");
        Ok(())
    }

    #[test]
    fn what_is_no_key_is_refused() -> TestResult {
        let folder = tempfile::tempdir()?;
        let message = |name: &str, content: &str| -> TestResult<String> {
            let path = folder.path().join(name);
            fs::write(&path, content)?;
            Ok(keyed(&path, Some("id")).err().map(|error| error.to_string()).unwrap_or_default())
        };
        let lines = message("a.txt", "a\n")?;
        assert!(lines.contains("expected a .jsonl, .csv, .tsv or .parquet file"), "{lines}");
        let none = message("a.csv", "key,text\n1,a\n")?;
        assert_eq!(none, "the list: no column \"id\", there are \"key\", \"text\"");
        let list = message("a.jsonl", "{\"id\": [1], \"text\": \"a\"}\n")?;
        assert!(
            list.ends_with("line 1: column \"id\": expected a string or a whole number, found a list"),
            "{list}"
        );
        Ok(())
    }
}
