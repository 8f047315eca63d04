//! Checks a configuration's fields: which are used, which change nothing, and which ask for something unsupported.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::json::parse_json;
use crate::error::{Error, Result};
use crate::file_data::FileData;

/// A configuration file with a table of its fields.
pub trait ConfigFile: DeserializeOwned {
    /// The table of its fields.
    const FIELDS: FieldTable;
}

/// What is known about the fields of a configuration file. Every field that the reference implementation writes is in
/// one of the lists.
#[derive(Debug)]
pub struct FieldTable {
    /// Fields that are used.
    pub used: &'static [&'static str],
    /// Fields that change nothing here, grouped by reason.
    pub harmless: &'static [(&'static str, &'static [&'static str])],
    /// Fields of which only some values are supported; null always is, since Python writes it for unset fields.
    pub fixed: &'static [(&'static str, &'static [Accepted])],
    /// Fields that hold a configuration themselves.
    pub nested: &'static [(&'static str, &'static FieldTable)],
}

/// A supported value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Accepted {
    /// `true` or `false`.
    Is(bool),
    /// A text.
    Text(&'static str),
    /// A number.
    Number(f64),
    /// An empty list, object or string.
    Empty,
}

impl Accepted {
    fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Is(expected), Value::Bool(found)) => expected == *found,
            (Self::Text(expected), Value::String(found)) => expected == found,
            (Self::Number(expected), Value::Number(found)) => found.as_f64() == Some(expected),
            (Self::Empty, Value::Array(found)) => found.is_empty(),
            (Self::Empty, Value::Object(found)) => found.is_empty(),
            (Self::Empty, Value::String(found)) => found.is_empty(),
            _ => false,
        }
    }

    fn in_json(self) -> String {
        match self {
            Self::Is(value) => value.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Number(number) => number.to_string(),
            Self::Empty => "nothing".to_owned(),
        }
    }
}

/// A field with an unsupported value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field.
    pub field: &'static str,
    /// The supported values.
    pub expected: String,
    /// The value found.
    pub found: String,
}

impl FieldTable {
    /// The first field with an unsupported value. A list is accepted if each of its values is.
    pub fn refused(&self, fields: &Map<String, Value>) -> Option<Refusal> {
        self.fixed.iter().find_map(|&(field, accepted)| {
            let value = fields.get(field)?;
            let fits = |value: &Value| value.is_null() || accepted.iter().any(|one| one.accepts(value));
            let each = |values: &Vec<Value>| !values.is_empty() && values.iter().all(fits);
            if fits(value) || value.as_array().is_some_and(each) {
                return None;
            }
            let expected: Vec<String> = accepted.iter().map(|one| one.in_json()).collect();
            let expected = if expected.is_empty() { "null".to_owned() } else { expected.join(" or ") };
            Some(Refusal { field, expected, found: value.to_string() })
        })
    }

    /// The fields in none of the lists. Those that start with an underscore are Python's own notes.
    pub fn unknown<'a>(&self, fields: &'a Map<String, Value>) -> Vec<&'a str> {
        fields
            .keys()
            .map(String::as_str)
            .filter(|field| !field.starts_with('_') && !self.knows(field))
            .collect()
    }

    /// Whether a field is in one of the lists.
    pub fn knows(&self, field: &str) -> bool {
        self.used.contains(&field)
            || self.harmless.iter().any(|(_, fields)| fields.contains(&field))
            || self.fixed.iter().any(|(fixed, _)| *fixed == field)
            || self.nested.iter().any(|(nested, _)| *nested == field)
    }

    /// Warns of unknown fields, once per file.
    pub fn warn_of_unknown(&self, file: &str, fields: &Map<String, Value>) {
        for field in self.unknown(fields) {
            warn_once(file, field);
        }
    }

    /// Refuses unsupported values, and warns of unknown fields, once per file.
    ///
    /// # Errors
    /// An [`Error::Config`] that names the file and field, what was expected and what was found.
    pub fn check(&self, file: &str, fields: &Map<String, Value>) -> Result<()> {
        self.check_in(file, "", fields)
    }

    /// Like [`check`](Self::check), for fields nested under `prefix`, which ends in a dot.
    fn check_in(&self, file: &str, prefix: &str, fields: &Map<String, Value>) -> Result<()> {
        if let Some(Refusal { field, expected, found }) = self.refused(fields) {
            let problem = format!("{prefix}{field} is {found}, which is not supported; expected {expected}");
            return Err(Error::config(file, problem));
        }
        for field in self.unknown(fields) {
            warn_once(file, &format!("{prefix}{field}"));
        }
        for (field, table) in self.nested {
            if let Some(Value::Object(fields)) = fields.get(*field) {
                table.check_in(file, &format!("{prefix}{field}."), fields)?;
            }
        }
        Ok(())
    }
}

/// Parses a configuration file and checks its fields.
///
/// # Errors
/// See [`parse_json`] and [`FieldTable::check`].
pub fn parse_config<T: ConfigFile>(file: &FileData) -> Result<T> {
    let config = parse_json(file)?;
    // If the file cannot be parsed, a warning would be pointless.
    T::FIELDS.check(file.name(), &parse_json(file)?)?;
    Ok(config)
}

/// Warns of an unknown field. Several parts of a program may read a file, and should not all warn.
fn warn_once(file: &str, field: &str) {
    static REPORTED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let mut reported = REPORTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if reported.insert((file.to_owned(), field.to_owned())) {
        tracing::warn!("{file}: unknown field {field} has no effect");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Accepted::{Empty, Is, Number, Text};
    use super::*;

    static INNER: FieldTable =
        FieldTable { used: &["width"], harmless: &[], fixed: &[("causal", &[Is(false)])], nested: &[] };
    static TABLE: FieldTable = FieldTable {
        used: &["height"],
        harmless: &[("training", &["dropout"])],
        fixed: &[
            ("act_fn", &[Text("silu"), Text("swish")]),
            ("factor", &[Number(1.0)]),
            ("pruned", &[Empty]),
            ("kind", &[]),
        ],
        nested: &[("inner", &INNER)],
    };

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn values_that_are_not_built_are_refused_by_name() {
        for fields in [
            json!({"act_fn": "swish", "factor": 1, "pruned": {}, "kind": null}),
            json!({"act_fn": ["silu", "swish"], "factor": 1.0, "pruned": [], "inner": {"causal": false}}),
            json!({"act_fn": null, "inner": null}),
        ] {
            TABLE.check("a.json", &map(fields)).unwrap();
        }
        for (fields, message) in [
            (
                json!({"act_fn": "gelu"}),
                r#"act_fn is "gelu", which is not supported; expected "silu" or "swish""#,
            ),
            (json!({"act_fn": ["silu", "gelu"]}), r#"act_fn is ["silu","gelu"], which"#),
            (json!({"act_fn": []}), "act_fn is []"),
            (json!({"factor": 2.0}), "factor is 2.0, which is not supported; expected 1"),
            (json!({"pruned": {"1": [2]}}), "expected nothing"),
            (json!({"kind": "flow"}), r#"kind is "flow", which is not supported; expected null"#),
            (json!({"inner": {"causal": true}}), "inner.causal is true"),
        ] {
            let error = TABLE.check("a.json", &map(fields)).unwrap_err().to_string();
            assert!(error.starts_with("a.json: ") && error.contains(message), "{error}");
        }
    }

    #[test]
    fn fields_that_no_list_has_are_unknown() {
        let fields =
            map(json!({"height": 1, "dropout": 0.1, "_note": 1, "kind": null, "inner": {}, "heigth": 2}));
        assert_eq!(TABLE.unknown(&fields), ["heigth"]);
    }
}
