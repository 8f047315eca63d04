//! Reads JSON lines like Python.

use serde_json::{Map, Value};

/// Parses the object on a line.
///
/// `NaN` and `Infinity`, which Python writes but JSON lacks, become null, and unpaired surrogates U+FFFD. For
/// repeated fields the last counts.
///
/// # Errors
/// What is wrong with the line.
pub fn object(line: &str) -> Result<Map<String, Value>, String> {
    if line.trim_start().starts_with('[') {
        return Err("expected a JSON object: found a list; jq -c '.[]' writes its items, one per line".into());
    }
    // serde_json sees only this line, so its line number would mislead.
    let place = |error: serde_json::Error| error.to_string().replace(" at line 1 column ", " at byte ");
    serde_json::from_str(line).or_else(|error| {
        let lenient = serde_json::from_str(&as_json(line)).map_err(|_| ());
        lenient.map_err(|()| format!("expected a JSON object: {}", place(error)))
    })
}

/// The value at `path` in an object: a field's name, or names and list indices separated by dots, such as
/// `captions.0` or `image.path`. A name with dots takes precedence.
pub fn field<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| within(object.get(path.get(..dot)?)?, path.get(dot + 1..)?))
}

fn within<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => field(object, path),
        Value::Array(items) => {
            let (place, rest) =
                path.split_once('.').map_or((path, None), |(place, rest)| (place, Some(rest)));
            let item = items.get(place.parse::<usize>().ok()?)?;
            rest.map_or(Some(item), |rest| within(item, rest))
        }
        _ => None,
    }
}

/// Describes a value, for errors.
pub fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Converts a line in Python's `json` dialect to JSON.
fn as_json(line: &str) -> String {
    const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    let mut json = String::with_capacity(line.len());
    let (mut rest, mut in_string) = (line, false);
    while let Some(character) = rest.chars().next() {
        let length = if !in_string {
            in_string = character == '"';
            let word = WORDS.iter().find(|word| rest.starts_with(**word));
            word.map_or(character.len_utf8(), |word| {
                json.push_str("null");
                rest = rest.get(word.len()..).unwrap_or_default();
                0
            })
        } else if character == '\\' {
            match surrogate(rest) {
                Some(first) => {
                    let pair = (0xD800..0xDC00).contains(&first)
                        && rest.get(6..).and_then(surrogate).is_some_and(|second| second >= 0xDC00);
                    if !pair {
                        json.push_str("\\ufffd");
                        rest = rest.get(6..).unwrap_or_default();
                    }
                    if pair { 12 } else { 0 }
                }
                // An escaped character does not end the string.
                None => rest.chars().take(2).map(char::len_utf8).sum(),
            }
        } else {
            in_string = character != '"';
            character.len_utf8()
        };
        json.push_str(rest.get(..length).unwrap_or_default());
        rest = rest.get(length..).unwrap_or_default();
    }
    json
}

/// The surrogate that an escape at the start of `text` encodes.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok().filter(|code| (0xD800..0xE000).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_read() -> Result<(), String> {
        let line = r#"{"text": "NaN \" \\", "score": NaN, "b": [-Infinity, Infinity], "half": "a\ud83d", "text2": "\ud83d\ude00"}"#;
        let object = object(line)?;
        assert_eq!(field(&object, "text"), Some(&"NaN \" \\".into()));
        assert_eq!(field(&object, "text2"), Some(&"😀".into()));
        assert_eq!(field(&object, "half"), Some(&"a\u{fffd}".into()));
        assert_eq!([field(&object, "score"), field(&object, "b.1")], [Some(&Value::Null); 2]);
        Ok(())
    }

    #[test]
    fn of_two_fields_of_a_name_the_last_counts() -> Result<(), String> {
        assert_eq!(field(&object(r#"{"a": "1", "a": "2"}"#)?, "a"), Some(&"2".into()));
        Ok(())
    }

    #[test]
    fn paths_lead_into_objects_and_lists() -> Result<(), String> {
        let object = object(
            r#"{"a.b": "whole", "a": {"b": "part", "c.d": "dots", "e": [{"f": "deep"}]}, "list": ["x", "y"]}"#,
        )?;
        let found = |path: &str| field(&object, path).and_then(Value::as_str);
        assert_eq!(
            [found("a.b"), found("a.c.d"), found("a.e.0.f")],
            [Some("whole"), Some("dots"), Some("deep")]
        );
        assert_eq!(
            [found("list.1"), found("list.2"), found("list.x"), found("a.b.c"), found("")],
            [Some("y"), None, None, None, None]
        );
        Ok(())
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for line in
            ["", "[1]", "x", "{\"a\": NaN", "{\"a\": nan}", "{\"a\": \"\\u12\"}", "\"\\", "{\"a\": \"猫\\"]
        {
            assert!(
                object(line).is_err_and(|problem| problem.starts_with("expected a JSON object: ")),
                "{line}"
            );
        }
    }
}
