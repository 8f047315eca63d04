//! `scheduler_config.json`.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    BetaSchedule, Ddim, EulerDiscrete, FinalSigma, Pndm, PredictionType, Scheduler, SchedulerKind,
    SigmaInterpolation, SigmaSpacing, TimestepSpacing, limit::Limit,
};
use crate::{Error, Result};

/// What a checkpoint says about its noise levels, in the names of diffusers.
///
/// A field that the file leaves out has the default that diffusers gives it; where that default depends on the class,
/// the field is an `Option` here and is decided by [`SchedulerConfig::build`]. So a file of one class can be run by
/// another scheduler, and only the betas and what both classes know is carried over, as in diffusers' `from_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// `_class_name`, which may be one that this crate does not know.
    pub class_name: String,
    /// The number of noise levels in training.
    pub num_train_timesteps: usize,
    /// The first beta, where `trained_betas` does not give all of them.
    pub beta_start: f64,
    /// The last beta.
    pub beta_end: f64,
    /// The curve between them.
    pub beta_schedule: BetaSchedule,
    /// All betas, `num_train_timesteps` of them.
    pub trained_betas: Option<Vec<f32>>,
    /// Whether the betas are rescaled so that no signal is left at the last timestep.
    pub rescale_betas_zero_snr: bool,
    /// What the model predicts.
    pub prediction_type: PredictionType,
    /// How the steps are spread over the timesteps.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to every timestep of the leading spacing.
    pub steps_offset: usize,
    /// Whether the sample after the last step counts as free of noise, instead of as noisy as at timestep 0.
    pub set_alpha_to_one: Option<bool>,
    /// DDIM: whether the predicted clean sample is clipped.
    pub clip_sample: bool,
    /// DDIM: to what absolute value.
    pub clip_sample_range: f64,
    /// DDIM: whether the predicted clean sample is limited by a quantile of itself, in place of clipping.
    pub thresholding: bool,
    /// DDIM: that quantile, 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// DDIM: the largest limit.
    pub sample_max_value: f64,
    /// PNDM: whether the run starts without Runge-Kutta steps.
    pub skip_prk_steps: bool,
    /// Euler: how the sigmas are spread.
    pub sigma_spacing: SigmaSpacing,
    /// Euler: how sigmas between the training's are found.
    pub interpolation_type: SigmaInterpolation,
    /// Euler: the smallest sigma of a Karras or exponential spacing.
    pub sigma_min: Option<f64>,
    /// Euler: the largest.
    pub sigma_max: Option<f64>,
    /// Euler: the sigma after the last step.
    pub final_sigmas_type: FinalSigma,
    /// Euler with velocity prediction: whether the model is told `ln(σ) / 4` in place of the timestep.
    pub continuous_timesteps: bool,
    /// The file, for messages.
    file: String,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// When the file cannot be read, and those of [`SchedulerConfig::from_json`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        Self::from_json(json, path.display().to_string())
    }

    /// Reads the content of a `scheduler_config.json`; `file` is its name in messages. Unknown fields are ignored.
    ///
    /// # Errors
    /// When it is not a JSON object, a field has a value that it cannot have, or two fields contradict each
    /// other.
    pub fn from_json(json: impl AsRef<[u8]>, file: impl Into<String>) -> Result<Self> {
        let file = file.into();
        let fields = match serde_json::from_slice(json.as_ref()) {
            Ok(fields) => fields,
            Err(error) => return Err(Error::content(file, format!("expected a JSON object: {error}"))),
        };
        let fields = Fields { fields, file: &file };
        let num_train_timesteps = fields.get("num_train_timesteps")?.unwrap_or(1000);
        let config = Self {
            class_name: fields.get("_class_name")?.ok_or_else(|| {
                fields.error("_class_name", format!("is missing, expected one of {}", known_classes()))
            })?,
            num_train_timesteps,
            beta_start: fields.get("beta_start")?.unwrap_or(0.0001),
            beta_end: fields.get("beta_end")?.unwrap_or(0.02),
            beta_schedule: fields
                .choice("beta_schedule", "linear, scaled_linear, squaredcos_cap_v2")?
                .unwrap_or(BetaSchedule::Linear),
            trained_betas: fields.get("trained_betas")?,
            rescale_betas_zero_snr: fields.get("rescale_betas_zero_snr")?.unwrap_or(false),
            prediction_type: fields
                .choice("prediction_type", "epsilon, v_prediction, sample")?
                .unwrap_or(PredictionType::Epsilon),
            timestep_spacing: fields.choice("timestep_spacing", "leading, trailing, linspace")?,
            steps_offset: fields.get("steps_offset")?.unwrap_or(0),
            set_alpha_to_one: fields.get("set_alpha_to_one")?,
            clip_sample: fields.get("clip_sample")?.unwrap_or(true),
            clip_sample_range: fields.get("clip_sample_range")?.unwrap_or(1.0),
            thresholding: fields.get("thresholding")?.unwrap_or(false),
            dynamic_thresholding_ratio: fields.get("dynamic_thresholding_ratio")?.unwrap_or(0.995),
            sample_max_value: fields.get("sample_max_value")?.unwrap_or(1.0),
            skip_prk_steps: fields.get("skip_prk_steps")?.unwrap_or(false),
            sigma_spacing: fields.sigma_spacing()?,
            interpolation_type: fields
                .choice("interpolation_type", "linear, log_linear")?
                .unwrap_or(SigmaInterpolation::Linear),
            sigma_min: fields.get("sigma_min")?,
            sigma_max: fields.get("sigma_max")?,
            final_sigmas_type: fields
                .choice("final_sigmas_type", "zero, sigma_min")?
                .unwrap_or(FinalSigma::Zero),
            continuous_timesteps: match fields.get::<String>("timestep_type")?.as_deref() {
                None | Some("discrete") => false,
                Some("continuous") => true,
                Some(other) => {
                    return Err(fields.error(
                        "timestep_type",
                        format!("is {other:?}, expected one of discrete, continuous"),
                    ));
                }
            },
            file: file.clone(),
        };
        config.check()?;
        Ok(config)
    }

    /// The same noise levels for another class of scheduler.
    pub fn with_kind(mut self, kind: SchedulerKind) -> Self {
        self.class_name = kind.class_name().to_owned();
        self
    }

    /// The configuration as diffusers' `AltDiffusionPipeline` corrects it on loading: `steps_offset` is 1 and the
    /// predicted sample is not clipped, since latents have no range. Older published files say otherwise.
    pub fn for_latents(mut self) -> Self {
        if self.steps_offset != 1 {
            tracing::debug!("{}: steps_offset is {}, using 1", self.file, self.steps_offset);
            self.steps_offset = 1;
        }
        self.clip_sample = false;
        self
    }

    /// The class of scheduler that the file names.
    ///
    /// # Errors
    /// When it is not a known one.
    pub fn kind(&self) -> Result<SchedulerKind> {
        SchedulerKind::from_class_name(&self.class_name).ok_or_else(|| {
            self.error(
                "_class_name",
                format!("is {:?}, which is not known; expected one of {}", self.class_name, known_classes()),
            )
        })
    }

    /// A scheduler for one run of `steps` steps.
    ///
    /// # Errors
    /// When the class is not known, there are no steps or more than training timesteps, or the scheduler cannot run
    /// with a field of the configuration.
    pub fn build(&self, steps: usize) -> Result<Box<dyn Scheduler>> {
        Ok(match self.kind()? {
            SchedulerKind::Ddim => Box::new(Ddim::new(self, steps)?),
            SchedulerKind::Pndm => Box::new(Pndm::new(self, steps)?),
            SchedulerKind::EulerDiscrete => Box::new(EulerDiscrete::new(self, steps)?),
        })
    }

    pub(super) fn limit(&self) -> Limit {
        if self.thresholding {
            Limit::Threshold { ratio: self.dynamic_thresholding_ratio, max: self.sample_max_value }
        } else if self.clip_sample {
            Limit::Clip { range: self.clip_sample_range }
        } else {
            Limit::None
        }
    }

    pub(super) fn error(&self, field: &'static str, problem: impl Into<String>) -> Error {
        Error::Field { file: self.file.clone(), field, problem: problem.into() }
    }

    /// Values that no scheduler can run with.
    fn check(&self) -> Result<()> {
        let timesteps = self.num_train_timesteps;
        if timesteps == 0 || timesteps > MAX_TRAIN_TIMESTEPS {
            return Err(self.error(
                "num_train_timesteps",
                format!("is {timesteps}, expected 1 to {MAX_TRAIN_TIMESTEPS}"),
            ));
        }
        match &self.trained_betas {
            Some(betas) => {
                if betas.len() != timesteps {
                    return Err(self.error(
                        "trained_betas",
                        format!("has {} values, but num_train_timesteps is {timesteps}", betas.len()),
                    ));
                }
                if let Some(beta) = betas.iter().find(|beta| !(0.0..=1.0).contains(*beta)) {
                    return Err(self.error("trained_betas", format!("has {beta}, expected 0 to 1")));
                }
            }
            None => {
                for (field, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
                    if !(0.0..=1.0).contains(&beta) {
                        return Err(self.error(field, format!("is {beta}, expected 0 to 1")));
                    }
                }
                if self.beta_start > self.beta_end && self.beta_schedule != BetaSchedule::SquaredCosine {
                    return Err(self.error(
                        "beta_start",
                        format!("is {}, larger than beta_end, {}", self.beta_start, self.beta_end),
                    ));
                }
            }
        }
        if self.steps_offset >= timesteps {
            return Err(self.error(
                "steps_offset",
                format!("is {}, but num_train_timesteps is {timesteps}", self.steps_offset),
            ));
        }
        for (field, value) in [
            ("clip_sample_range", self.clip_sample_range),
            ("sample_max_value", self.sample_max_value),
            ("sigma_min", self.sigma_min.unwrap_or(1.0)),
            ("sigma_max", self.sigma_max.unwrap_or(1.0)),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(self.error(field, format!("is {value}, expected more than 0")));
            }
        }
        if !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
            return Err(self.error(
                "dynamic_thresholding_ratio",
                format!("is {}, expected 0 to 1", self.dynamic_thresholding_ratio),
            ));
        }
        match (self.sigma_min, self.sigma_max) {
            (Some(min), Some(max)) if min > max => {
                Err(self.error("sigma_min", format!("is {min}, larger than sigma_max, {max}")))
            }
            _ => Ok(()),
        }
    }
}

/// More than any model has been trained with; a larger number is a slip that would ask for gigabytes.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

fn known_classes() -> String {
    SchedulerKind::ALL.map(SchedulerKind::class_name).join(", ")
}

/// The fields of a JSON object, each read with its name at hand for the message.
struct Fields<'a> {
    fields: Map<String, Value>,
    file: &'a str,
}

impl Fields<'_> {
    /// The field, or `None` where it is left out or null.
    fn get<T: DeserializeOwned>(&self, field: &'static str) -> Result<Option<T>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.error(field, format!("cannot be read: {error}"))),
        }
    }

    /// The same for a field that is one of a few words, which the message lists.
    fn choice<T: DeserializeOwned>(&self, field: &'static str, choices: &str) -> Result<Option<T>> {
        self.get(field).map_err(|_| {
            let found = self.fields.get(field).unwrap_or(&Value::Null);
            self.error(field, format!("is {found}, expected one of {choices}"))
        })
    }

    fn sigma_spacing(&self) -> Result<SigmaSpacing> {
        if self.get("use_beta_sigmas")?.unwrap_or(false) {
            return Err(self.error(
                "use_beta_sigmas",
                "is true, which is not supported; use_karras_sigmas and use_exponential_sigmas are",
            ));
        }
        match (
            self.get("use_karras_sigmas")?.unwrap_or(false),
            self.get("use_exponential_sigmas")?.unwrap_or(false),
        ) {
            (false, false) => Ok(SigmaSpacing::Timesteps),
            (true, false) => Ok(SigmaSpacing::Karras),
            (false, true) => Ok(SigmaSpacing::Exponential),
            (true, true) => Err(self.error(
                "use_karras_sigmas",
                "contradicts use_exponential_sigmas: expected only one of them to be true",
            )),
        }
    }

    fn error(&self, field: &'static str, problem: impl Into<String>) -> Error {
        Error::Field { file: self.file.to_owned(), field, problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<SchedulerConfig> {
        SchedulerConfig::from_json(format!("{{{fields}}}"), "scheduler_config.json")
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn unknown_fields_and_nulls_are_left_alone() -> Result<()> {
        let config = read(
            r#""_class_name": "PNDMScheduler", "_diffusers_version": "0.11.0", "trained_betas": null, "solver_order": 2"#,
        )?;
        assert_eq!(config.kind()?, SchedulerKind::Pndm);
        assert_eq!(config.trained_betas, None);
        assert_eq!(config.num_train_timesteps, 1000);
        Ok(())
    }

    #[test]
    fn an_unknown_class_is_an_error_only_when_it_is_run() -> Result<()> {
        let config = read(r#""_class_name": "DPMSolverMultistepScheduler""#)?;
        let message = message(config.build(20).map(|_| ()));
        for part in ["scheduler_config.json", "_class_name", "DPMSolverMultistepScheduler", "DDIMScheduler"] {
            assert!(message.contains(part), "{message}");
        }
        config.with_kind(SchedulerKind::Ddim).build(20)?;
        Ok(())
    }

    #[test]
    fn impossible_values_name_the_file_and_the_field() {
        for (fields, field) in [
            (r#""num_train_timesteps": 0"#, "num_train_timesteps"),
            (r#""num_train_timesteps": "many""#, "num_train_timesteps"),
            (r#""num_train_timesteps": 3, "trained_betas": [0.1]"#, "trained_betas"),
            (r#""num_train_timesteps": 1, "trained_betas": [-0.1]"#, "trained_betas"),
            (r#""beta_start": 2.0"#, "beta_start"),
            (r#""beta_start": 0.1, "beta_end": 0.01"#, "beta_start"),
            (r#""beta_schedule": "sigmoid""#, "beta_schedule"),
            (r#""prediction_type": "flow_prediction""#, "prediction_type"),
            (r#""timestep_spacing": "even""#, "timestep_spacing"),
            (r#""steps_offset": -1"#, "steps_offset"),
            (r#""steps_offset": 1000"#, "steps_offset"),
            (r#""clip_sample_range": 0.0"#, "clip_sample_range"),
            (r#""use_karras_sigmas": true, "use_exponential_sigmas": true"#, "use_karras_sigmas"),
            (r#""use_beta_sigmas": true"#, "use_beta_sigmas"),
            (r#""sigma_min": 3.0, "sigma_max": 2.0"#, "sigma_min"),
            (r#""final_sigmas_type": "one""#, "final_sigmas_type"),
            (r#""timestep_type": "other""#, "timestep_type"),
        ] {
            let message = message(read(&format!(r#""_class_name": "DDIMScheduler", {fields}"#)));
            assert!(message.contains("scheduler_config.json"), "{fields}: {message}");
            assert!(message.contains(&format!("`{field}`")), "{fields}: {message}");
        }
        assert!(message(read("")).contains("_class_name"));
        assert!(message(SchedulerConfig::from_json("[]", "a.json")).contains("a.json"));
    }

    #[test]
    fn the_pipeline_corrects_older_files() -> Result<()> {
        let config = read(r#""_class_name": "DDIMScheduler", "clip_sample": true"#)?.for_latents();
        assert_eq!(config.steps_offset, 1);
        assert!(!config.clip_sample);
        Ok(())
    }
}
