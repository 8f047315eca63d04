//! Parses JSON files, with errors that name the file and the field.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::text;
use crate::error::{Error, Result};
use crate::file_data::FileData;

/// Reads the JSON file at `path`.
///
/// # Errors
/// Like [`parse_json`]; also if the file cannot be read.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T> {
    parse_json(&FileData::open(path.as_ref())?)
}

/// Parses a JSON file like Python: the last of several equal fields counts, and a byte order mark, which some editors
/// write, is ignored. `NaN` and the infinities, which JSON lacks, become strings with these names.
///
/// # Errors
/// An [`Error::Config`] that names the file and the field (`down_block_types[2]`), what was expected and what was
/// found.
pub fn parse_json<T: DeserializeOwned>(file: &FileData) -> Result<T> {
    let problem = |problem: String| Error::config(file.name(), problem);
    let text = text::prepare(file).map_err(problem)?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| problem(error.to_string()))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        // For an error about the whole document, the path is ".".
        let field = if field == "." { String::new() } else { format!("{field}: ") };
        problem(format!("{field}{}", error.into_inner()))
    })
}

/// Parses flattened fields. Serde's own `flatten` loses their names, which errors need.
///
/// # Errors
/// Names the field.
pub fn from_shared_fields<T: DeserializeOwned, E: serde::de::Error>(
    fields: &Value,
) -> std::result::Result<T, E> {
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { format!("{field}: ") };
        E::custom(format!("{field}{}", error.into_inner()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only the errors of reading it are looked at")]
    struct Config {
        layers: Vec<Layer>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only the errors of reading it are looked at")]
    struct Layer {
        width: usize,
    }

    fn error_of(json: impl AsRef<[u8]>) -> String {
        let file = FileData::owned("unet/config.json", json.as_ref().to_vec());
        parse_json::<Config>(&file).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_file_and_the_field() {
        let error = error_of(r#"{"layers": [{"width": 8}, {"width": -1}]}"#);
        assert!(
            error.starts_with("unet/config.json: layers[1].width: invalid value: integer `-1`"),
            "{error}"
        );
        let error = error_of(r#"{"layers": [{}]}"#);
        assert!(error.starts_with("unet/config.json: layers[0]: missing field `width`"), "{error}");
        let error = error_of("{}");
        assert!(error.starts_with("unet/config.json: missing field `layers`"), "{error}");
        assert!(error_of("").contains("EOF"));
        assert!(error_of(r#"{"layers": []} x"#).contains("trailing"));
    }

    #[test]
    fn what_python_reads_is_read() {
        for json in [
            "\u{FEFF}{\"width\": 7}",
            r#"{"width": 5, "width": 7}"#,
            r#"{"width": 7, "scale": NaN, "low": -Infinity, "high": [Infinity]}"#,
            r#"{"width": 7, "note": "// no comment, \" NaN"}"#,
        ] {
            let layer: Layer = parse_json(&FileData::owned("a.json", json.into())).unwrap();
            assert_eq!(layer.width, 7, "{json}");
        }
        let literals: Value =
            parse_json(&FileData::owned("a.json", b"[NaN, Infinity, -Infinity, -1]".to_vec())).unwrap();
        assert_eq!(literals, serde_json::json!(["NaN", "Infinity", "-Infinity", -1]));
    }

    #[test]
    fn what_is_no_json_is_refused_in_a_line_that_says_why() {
        let utf16 = |big: bool| -> Vec<u8> {
            let units = "\u{FEFF}{\"layers\": []}".encode_utf16();
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        let without_mark = utf16(false).split_off(2);
        for (json, reason) in [
            (utf16(false), "expected JSON in UTF-8, found UTF-16"),
            (utf16(true), "expected JSON in UTF-8, found UTF-16"),
            (without_mark, "expected JSON in UTF-8, found UTF-16"),
            (b"{\"layers\": [] // none\n}".to_vec(), "line 1 is a comment"),
            (b"{\n/* none */\"layers\": []}".to_vec(), "line 2 is a comment"),
            (b"{\"layers\": [{\"width\": NaN}]}".to_vec(), "layers[0].width: invalid type: string \"NaN\""),
            (vec![b'['; 100_000], "recursion limit exceeded"),
            (
                format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000)).into_bytes(),
                "recursion limit exceeded",
            ),
            (b"{\"layers\": \xFF}".to_vec(), "expected value"),
            (b"{\"layers\": [\"\xFF\"]}".to_vec(), "invalid unicode"),
            (b"{'layers': []}".to_vec(), "key must be a string"),
            (b"<html>".to_vec(), "found a web page"),
            (b"\n<!DOCTYPE html><html></html>".to_vec(), "found a web page"),
            (vec![b' '; 100_000_001], "expected at most 100000000 bytes, found 100000001"),
        ] {
            let error = error_of(&json);
            assert!(error.starts_with("unet/config.json: ") && error.contains(reason), "{error}");
            assert!(!error.contains('\n') && error.len() < 300, "{error}");
        }
    }
}
