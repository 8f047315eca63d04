//! Reads the fields of a `scheduler_config.json`.

use model_files::config::Accepted::Is;
use model_files::config::{FieldTable, Refusal, parse_json};
use model_files::source::FileData;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::SigmaSpacing;
use crate::{Error, Result};

/// The fields of diffusers' schedulers. The values in `fixed` only matter to classes with those fields:
/// [`SchedulerKind::takes_flows`](super::SchedulerKind::takes_flows).
const FIELDS: FieldTable = FieldTable {
    used: &[
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
        "predict_epsilon",
        "predict_x0",
        "prediction_type",
        "rescale_betas_zero_snr",
        "sample_max_value",
        "set_alpha_to_one",
        "sigma_max",
        "sigma_min",
        "skip_prk_steps",
        "solver_order",
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
    ],
    harmless: &[
        (
            "has a meaning only where a flow is asked for",
            &["flow_shift", "shift_terminal", "time_shift_type"],
        ),
        ("says in what arrays Python computes", &["dtype", "tensor_format", "timestep_values"]),
        ("is the seed's to say", &["noise_sampler_seed"]),
    ],
    fixed: &[
        ("clip_sigmas", &[Is(false)]),
        ("solver_p", &[]),
        ("use_dynamic_shifting", &[Is(false)]),
        ("use_flow_sigmas", &[Is(false)]),
    ],
    nested: &[],
};

/// A field added by this crate; in diffusers it is an argument of the pipeline.
pub(super) const ETA: &str = "eta";

/// The fields that select a spacing of the sigmas.
const SIGMA_SPACINGS: [(&str, SigmaSpacing); 4] = [
    ("use_karras_sigmas", SigmaSpacing::Karras),
    ("use_exponential_sigmas", SigmaSpacing::Exponential),
    ("use_beta_sigmas", SigmaSpacing::Beta),
    ("use_lu_lambdas", SigmaSpacing::Lu),
];

/// The field that selects a spacing of the sigmas; none for that of the timesteps.
pub(super) fn sigma_spacing_field(spacing: SigmaSpacing) -> Option<&'static str> {
    SIGMA_SPACINGS.iter().find(|(_, other)| *other == spacing).map(|(field, _)| *field)
}

/// The fields of a JSON object, read with their names for error messages.
pub(super) struct Fields<'a> {
    fields: Map<String, Value>,
    file: &'a str,
}

impl<'a> Fields<'a> {
    /// Parses a file as Python writes it.
    ///
    /// # Errors
    /// If it is not a JSON object.
    pub(super) fn parse(json: &[u8], file: &'a str) -> Result<Self> {
        Ok(Self::new(parse_json(&FileData::owned(file, json.to_vec()))?, file))
    }

    /// Takes the fields of an object.
    pub(super) fn new(fields: Map<String, Value>, file: &'a str) -> Self {
        Self { fields, file }
    }

    /// Warns of fields that no class has.
    pub(super) fn warn_of_unknown(&self) {
        FIELDS.warn_of_unknown(self.file, &self.fields);
    }

    /// A field that no class has, if there is one.
    pub(super) fn unknown(&self) -> Option<&str> {
        let is_known = |field: &str| field.starts_with('_') || field == ETA || FIELDS.knows(field);
        self.fields.keys().map(String::as_str).find(|field| !is_known(field))
    }

    /// A number, possibly infinite.
    pub(super) fn number(&self, field: &'static str) -> Result<Option<f64>> {
        match self.fields.get(field).and_then(Value::as_str) {
            Some("-Infinity" | "-inf") => Ok(Some(f64::NEG_INFINITY)),
            Some("Infinity" | "inf") => Ok(Some(f64::INFINITY)),
            _ => self.get(field),
        }
    }

    /// The fields with values that only some classes accept.
    pub(super) fn refused(&self) -> Map<String, Value> {
        let is_fixed = |field: &str| FIELDS.fixed.iter().any(|(fixed, _)| *fixed == field);
        let fixed = self.fields.iter().filter(|(field, _)| is_fixed(field));
        fixed.map(|(field, value)| (field.clone(), value.clone())).collect()
    }

    /// The value of a field; `None` if missing or null.
    pub(super) fn get<T: DeserializeOwned>(&self, field: &'static str) -> Result<Option<T>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.error(field, format!("cannot be read: {error}"))),
        }
    }

    /// The value of a field that is one of a few words, which the error lists.
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

    /// The spacing of the sigmas; at most one may be selected.
    pub(super) fn sigma_spacing(&self) -> Result<SigmaSpacing> {
        let mut found = None;
        for (field, spacing) in SIGMA_SPACINGS {
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

    pub(super) fn error(&self, field: &'static str, problem: impl Into<String>) -> Error {
        Error::Field { file: self.file.to_owned(), field, problem: problem.into() }
    }
}

/// The first value that a class with such fields does not support.
pub(super) fn unsupported(refused: &Map<String, Value>) -> Option<String> {
    let Refusal { field, expected, found } = FIELDS.refused(refused)?;
    Some(format!("`{field}` is {found}, which is not supported; expected {expected}, or another scheduler"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::SchedulerKind;

    #[test]
    fn infinity_is_read_as_python_writes_it() -> Result<()> {
        let json = br#"{"lambda_min_clipped": -Infinity, "_class_name": "a\"-Infinity", "beta_start": -1}"#;
        let fields = Fields::parse(json, "a.json")?;
        assert_eq!(fields.number("lambda_min_clipped")?, Some(f64::NEG_INFINITY));
        assert_eq!(fields.get::<String>("_class_name")?.as_deref(), Some("a\"-Infinity"));
        assert_eq!(fields.number("beta_start")?, Some(-1.0));
        assert!(Fields::parse(br#"{"beta_start": NaN}"#, "a.json")?.number("beta_start").is_err());
        assert!(Fields::parse(br#""\"#, "a.json").is_err());
        Ok(())
    }

    /// The parameters of the constructors of diffusers' classes, old and new.
    #[test]
    fn every_field_of_the_known_classes_is_known() {
        let classes: std::collections::BTreeMap<String, Vec<String>> =
            test_support::golden_json("config_fields.json");
        let known = classes.iter().filter(|(class, _)| SchedulerKind::from_class_name(class).is_some());
        let mut count = 0;
        for (class, fields) in known {
            count += 1;
            for field in fields {
                assert!(FIELDS.knows(field), "{class}: {field}");
            }
        }
        assert!(count > SchedulerKind::ALL.len(), "{count}");
    }
}
