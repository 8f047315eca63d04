//! Says how the values of a table's column become the strings of a list.

use std::fs::File;

use serde_json::{Map, Value};

use super::Items;
use super::parquet_column::{self, ColumnError, no_column};
use super::text_file;
use super::text_table::no_string;

/// The strings and nulls of a column.
type Strings = Result<Items<Option<String>, ColumnError>, ColumnError>;

/// How the values of a column become strings.
#[derive(Clone, Copy)]
pub(super) struct Values {
    of_json: fn(&str, &Value) -> Result<String, String>,
    pub(super) of_parquet: fn(File, &str) -> Strings,
}

/// Only strings.
pub(super) const STRINGS: Values =
    Values { of_json: json_string, of_parquet: parquet_column::optional_strings };
/// Strings and whole numbers.
pub(super) const KEYS: Values = Values { of_json: json_key, of_parquet: parquet_column::keys };

impl Values {
    /// The value in an object. The inner error says why there is none.
    ///
    /// # Errors
    /// If it has another kind of value in this column.
    pub(super) fn in_object(
        self,
        object: &Map<String, Value>,
        column: &str,
    ) -> Result<Result<String, String>, String> {
        match text_file::field(object, column) {
            Some(Value::Null) => Ok(Err(format!("column {column:?}: null"))),
            Some(value) => {
                let string = (self.of_json)(column, value);
                string.map(Ok).map_err(|problem| format!("column {column:?}: {problem}"))
            }
            None => Ok(Err(no_column(column, object.keys().map(String::as_str)))),
        }
    }
}

fn json_string(column: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(string) => Ok(string.clone()),
        other => Err(no_string(column, text_file::describe(other))),
    }
}

fn json_key(_: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(string) => Ok(string.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        other => Err(format!("expected a string or a whole number, found {}", text_file::describe(other))),
    }
}
