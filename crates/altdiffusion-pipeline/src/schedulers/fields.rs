//! The fields of a `scheduler_config.json`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::SigmaSpacing;
use crate::{Error, Result};

/// The fields that the known classes of diffusers 0.31 have.
const KNOWN: [&str; 43] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
    // Nothing depends on these: what tensors once were, and what only has a meaning where a flow is asked for.
    "flow_shift",
    "noise_sampler_seed",
    "shift_terminal",
    "tensor_format",
    "time_shift_type",
    "timestep_values",
];

/// Fields of other versions of diffusers, with the value that changes nothing.
const HARMLESS: [(&str, Value); 4] = [
    ("predict_epsilon", Value::Bool(true)),
    ("use_dynamic_shifting", Value::Bool(false)),
    ("use_flow_sigmas", Value::Bool(false)),
    ("clip_sigmas", Value::Bool(false)),
];

/// The fields of a JSON object, each read with its name at hand for the message.
pub(super) struct Fields<'a> {
    fields: Map<String, Value>,
    file: &'a str,
}

impl<'a> Fields<'a> {
    /// Parses a file as Python writes it.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub(super) fn parse(json: &[u8], file: &'a str) -> Result<Self> {
        match serde_json::from_slice(&without_infinity(json)) {
            Ok(fields) => Ok(Self { fields, file }),
            Err(error) => Err(Error::content(file, format!("expected a JSON object: {error}"))),
        }
    }

    /// The field, or `None` where it is left out or null.
    pub(super) fn get<T: DeserializeOwned>(&self, field: &'static str) -> Result<Option<T>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.error(field, format!("cannot be read: {error}"))),
        }
    }

    /// The same for a field that is one of a few words, which the message lists.
    pub(super) fn choice<T: DeserializeOwned>(
        &self,
        field: &'static str,
        choices: &str,
    ) -> Result<Option<T>> {
        self.get(field).map_err(|_| {
            let found = self.fields.get(field).unwrap_or(&Value::Null);
            self.error(field, format!("is {found}, expected one of {choices}"))
        })
    }

    /// The way to spread the sigmas, of which there may be only one.
    pub(super) fn sigma_spacing(&self) -> Result<SigmaSpacing> {
        let spacings = [
            ("use_karras_sigmas", SigmaSpacing::Karras),
            ("use_exponential_sigmas", SigmaSpacing::Exponential),
            ("use_beta_sigmas", SigmaSpacing::Beta),
            ("use_lu_lambdas", SigmaSpacing::Lu),
        ];
        let mut found = None;
        for (field, spacing) in spacings {
            if self.get(field)?.unwrap_or(false) {
                if let Some((other, _)) = found {
                    let problem = format!("contradicts {other}: expected only one of them to be true");
                    return Err(self.error(field, problem));
                }
                found = Some((field, spacing));
            }
        }
        Ok(found.map_or(SigmaSpacing::Timesteps, |(_, spacing)| spacing))
    }

    /// The fields that nothing here knows, which may ask for something else than would be done.
    pub(super) fn unknown(&self) -> Vec<String> {
        let is_known = |name: &str, value: &Value| {
            name.starts_with('_')
                || value.is_null()
                || KNOWN.contains(&name)
                || HARMLESS.iter().any(|(known, harmless)| *known == name && harmless == value)
        };
        let unknown = self.fields.iter().filter(|(name, value)| !is_known(name, value));
        unknown.map(|(name, value)| format!("`{name}` is {value}")).collect()
    }

    pub(super) fn error(&self, field: &'static str, problem: impl Into<String>) -> Error {
        Error::Field { file: self.file.to_owned(), field, problem: problem.into() }
    }
}

/// The text with null for `-Infinity`, which Python writes for the default of `lambda_min_clipped` and which is no JSON.
fn without_infinity(json: &[u8]) -> Vec<u8> {
    const INFINITY: &[u8] = b"-Infinity";
    let mut result = Vec::with_capacity(json.len());
    let (mut rest, mut in_string) = (json, false);
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'"' => in_string = !in_string,
            // What is escaped does not end the string.
            b'\\' if in_string => {
                let (escape, after) = rest.split_at(rest.len().min(2));
                result.extend_from_slice(escape);
                rest = after;
                continue;
            }
            b'-' if !in_string => {
                if let Some(after) = rest.strip_prefix(INFINITY) {
                    result.extend_from_slice(b"null");
                    rest = after;
                    continue;
                }
            }
            _ => {}
        }
        result.push(byte);
        rest = after;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_read_as_python_writes_it() -> Result<()> {
        let json = br#"{"lambda_min_clipped": -Infinity, "_class_name": "a\"-Infinity", "beta_start": -1}"#;
        let fields = Fields::parse(json, "a.json")?;
        assert_eq!(fields.get::<f64>("lambda_min_clipped")?, None);
        assert_eq!(fields.get::<String>("_class_name")?.as_deref(), Some("a\"-Infinity"));
        assert_eq!(fields.get::<f64>("beta_start")?, Some(-1.0));
        assert!(Fields::parse(br#"{"lambda_min_clipped": Infinity}"#, "a.json").is_err());
        assert!(Fields::parse(br#""\"#, "a.json").is_err());
        Ok(())
    }
}
