//! Reads what dual encoders' configurations have in common.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The configuration of one tower within that of the whole model: under its name and, in files of older versions of
/// transformers, again with the suffix `_dict`, which then takes precedence.
#[derive(Debug, Default)]
pub(super) struct Towers<T> {
    pub text: T,
    pub vision: crate::vision::VisionConfig,
}

#[derive(Deserialize)]
struct RawTowers {
    text_config: Option<Map<String, Value>>,
    text_config_dict: Option<Map<String, Value>>,
    vision_config: Option<Map<String, Value>>,
    vision_config_dict: Option<Map<String, Value>>,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Towers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawTowers::deserialize(deserializer)?;
        Ok(Self {
            text: merged("text_config", raw.text_config, raw.text_config_dict).map_err(D::Error::custom)?,
            vision: merged("vision_config", raw.vision_config, raw.vision_config_dict)
                .map_err(D::Error::custom)?,
        })
    }
}

fn merged<T: DeserializeOwned>(
    name: &str,
    config: Option<Map<String, Value>>,
    overriding: Option<Map<String, Value>>,
) -> Result<T, String> {
    let mut fields = config.unwrap_or_default();
    fields.extend(overriding.unwrap_or_default());
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("{name}: {error}"))
}
