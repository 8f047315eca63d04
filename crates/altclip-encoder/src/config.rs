//! Configuration files: JSON, read with serde.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::source::FileData;

/// Reads the JSON file at `path`.
///
/// # Errors
/// As [`parse_json`], and when the file cannot be read.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>) -> crate::Result<T> {
    parse_json(&FileData::open(path.as_ref())?)
}

/// Parses a JSON file.
///
/// # Errors
/// An [`Error::Config`] that names the file, the field (`down_block_types[2]`), what was expected there and what was found.
pub fn parse_json<T: DeserializeOwned>(file: &FileData) -> crate::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(file);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        // The path of an error about the whole document is ".".
        let field = if field == "." { String::new() } else { format!("{field}: ") };
        Error::config(file.name(), format!("{field}{}", error.into_inner()))
    })?;
    json.end().map_err(|error| Error::config(file.name(), error.to_string()))?;
    Ok(value)
}

/// Reads fields that stand beside those of another structure. Serde's own `flatten` forgets their names, which the
/// errors need.
///
/// # Errors
/// Names the field.
pub(crate) fn from_shared_fields<T: DeserializeOwned, E: serde::de::Error>(fields: &Value) -> Result<T, E> {
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

    fn error_of(json: &str) -> String {
        parse_json::<Config>(&FileData::owned("unet/config.json", json.into())).unwrap_err().to_string()
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
}
