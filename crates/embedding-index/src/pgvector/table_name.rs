//! Names of tables in SQL.

/// The longest name that PostgreSQL does not cut.
const MOST_BYTES: usize = 63;
/// What is appended to the name of the table for unfinished jobs.
const PROGRESS: &str = "_progress";

/// A table's name, and its schema if that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    schema: Option<String>,
    name: String,
}

impl TableName {
    /// Parses `NAME` or `SCHEMA.NAME`, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let longest = MOST_BYTES - PROGRESS.len();
        let is_valid =
            |name: &str, most| !name.is_empty() && name.len() <= most && !name.contains(['.', '\0']);
        if !is_valid(name, longest) || !schema.is_none_or(|schema| is_valid(schema, MOST_BYTES)) {
            return Err(format!(
                "expected the name of a table, or its schema and name with a dot between, of at most {longest} bytes, found {text:?}"
            ));
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    /// The name in SQL.
    pub(super) fn sql(&self) -> String {
        self.with_schema(&self.name)
    }

    /// The name of the table for unfinished jobs in SQL.
    pub(super) fn progress_sql(&self) -> String {
        self.with_schema(&format!("{}{PROGRESS}", self.name))
    }

    fn with_schema(&self, name: &str) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(name)),
            None => quoted(name),
        }
    }
}

/// A name with its case and all its characters.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        for (text, sql, progress) in [
            ("embeddings", "\"embeddings\"", "\"embeddings_progress\""),
            ("Search.Photos", "\"Search\".\"Photos\"", "\"Search\".\"Photos_progress\""),
            ("a\"; drop table b; --", "\"a\"\"; drop table b; --\"", "\"a\"\"; drop table b; --_progress\""),
            ("图片", "\"图片\"", "\"图片_progress\""),
        ] {
            let name = TableName::parse(text);
            assert_eq!(name.as_ref().map(TableName::sql).as_deref(), Ok(sql));
            assert_eq!(name.map(|name| name.progress_sql()).as_deref(), Ok(progress));
        }
    }

    #[test]
    fn names_that_would_be_cut_or_mean_another_are_refused() {
        assert!(TableName::parse(&"a".repeat(54)).is_ok());
        for text in ["", ".", "a.", ".b", "a.b.c", "a\0b", &"a".repeat(55), &format!("{}.b", "s".repeat(64))]
        {
            assert!(TableName::parse(text).is_err(), "{text:?}");
        }
    }
}
