//! Reads `scheduler_config.json`.

mod check;
#[cfg(test)]
mod tests;

use std::path::Path;

use model_files::read_input;
use serde_json::{Map, Value};

use super::{
    Algorithm, BetaSchedule, FinalSigma, PredictionType, SchedulerKind, SigmaInterpolation, SigmaSpacing,
    SolverType, TimestepSpacing, VarianceType, fields::Fields, limit::Limit,
};
use crate::{Error, Result};

/// The largest file read, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// The noise levels and scheduler that a checkpoint configures, with diffusers' names.
///
/// A missing field has diffusers' default. Where that depends on the class, the field is an `Option`, which
/// [`SchedulerConfig::build`] resolves. So another scheduler can run a file of some class: only the betas and what
/// both classes know carry over, as with diffusers' `from_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// `_class_name`, which may not be a class known to this crate.
    pub class_name: String,
    /// The number of noise levels in training.
    pub num_train_timesteps: usize,
    /// The first beta, unless `trained_betas` lists all.
    pub beta_start: Option<f64>,
    /// The last beta.
    pub beta_end: Option<f64>,
    /// The curve between them.
    pub beta_schedule: Option<BetaSchedule>,
    /// All betas, `num_train_timesteps` of them.
    pub trained_betas: Option<Vec<f32>>,
    /// Whether to rescale the betas to zero terminal SNR.
    pub rescale_betas_zero_snr: bool,
    /// What the model predicts.
    pub prediction_type: PredictionType,
    /// The spacing of the timesteps.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to every timestep of the leading spacing.
    pub steps_offset: usize,
    /// DDIM, PNDM: whether the sample after the last step counts as noise-free, instead of as noisy as at timestep 0.
    pub set_alpha_to_one: Option<bool>,
    /// DDPM, DDIM, Heun, LCM: whether the predicted clean sample is clipped.
    pub clip_sample: Option<bool>,
    /// DDPM, DDIM, Heun, LCM: the absolute value it is clipped to.
    pub clip_sample_range: f64,
    /// Whether the predicted clean sample is limited by one of its own quantiles instead of clipped.
    pub thresholding: bool,
    /// That quantile, from 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// The upper bound of that limit.
    pub sample_max_value: f64,
    /// DDIM: how much of the noise removed in a step is replaced by new noise, from 0 (none) to 1 (as in DDPM). It is
    /// never in the file; in diffusers it is an argument of the pipeline.
    pub eta: f64,
    /// DDPM: the variance of the added noise.
    pub variance_type: VarianceType,
    /// PNDM: whether to start without Runge-Kutta steps.
    pub skip_prk_steps: bool,
    /// The spacing of the sigmas.
    pub sigma_spacing: SigmaSpacing,
    /// Euler: how to interpolate between the training sigmas.
    pub interpolation_type: SigmaInterpolation,
    /// Euler: the smallest sigma of a Karras, exponential or beta spacing.
    pub sigma_min: Option<f64>,
    /// Euler: the largest.
    pub sigma_max: Option<f64>,
    /// Euler, DPM-Solver, UniPC: the sigma after the last step.
    pub final_sigmas_type: FinalSigma,
    /// Euler with velocity prediction: whether the model takes `ln(σ) / 4` instead of the timestep.
    pub continuous_timesteps: bool,
    /// DPM-Solver, UniPC: the order of the method.
    pub solver_order: usize,
    /// DPM-Solver, UniPC: the variant of the method. Each treats the other's as its own default.
    pub solver_type: Option<SolverType>,
    /// DPM-Solver: the equation solved.
    pub algorithm_type: Algorithm,
    /// DPM-Solver, UniPC: whether the last steps of a run have a lower order.
    pub lower_order_final: Option<bool>,
    /// DPM-Solver multistep: whether the last step has order 1, regardless of the other fields.
    pub euler_at_final: bool,
    /// DPM-Solver: the smallest λ = ln(√ᾱ / √(1 − ᾱ)) to start from.
    pub lambda_min_clipped: f64,
    /// UniPC: whether to solve for the clean sample instead of the noise.
    pub predict_x0: bool,
    /// UniPC: the steps that are not corrected.
    pub disable_corrector: Vec<usize>,
    /// LCM: the number of steps that the model was distilled from.
    pub original_inference_steps: usize,
    /// LCM: the factor of the timestep in the boundary condition.
    pub timestep_scaling: f64,
    /// Fields that only unsupported classes use, and no scheduler here accepts.
    pub(super) refused: Map<String, Value>,
    /// The file's name, for messages.
    pub(super) file: String,
}

/// The name in errors of a configuration that did not come from a file.
pub(super) const NO_FILE: &str = "scheduler configuration";

/// The noise levels of Stable Diffusion and AltDiffusion, with DDIM.
impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: SchedulerKind::Ddim.class_name().to_owned(),
            num_train_timesteps: 1000,
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some(BetaSchedule::ScaledLinear),
            trained_betas: None,
            rescale_betas_zero_snr: false,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: None,
            steps_offset: 1,
            set_alpha_to_one: Some(false),
            clip_sample: Some(false),
            clip_sample_range: 1.0,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            eta: 0.0,
            variance_type: VarianceType::FixedSmall,
            skip_prk_steps: false,
            sigma_spacing: SigmaSpacing::Timesteps,
            interpolation_type: SigmaInterpolation::Linear,
            sigma_min: None,
            sigma_max: None,
            final_sigmas_type: FinalSigma::Zero,
            continuous_timesteps: false,
            solver_order: 2,
            solver_type: None,
            algorithm_type: Algorithm::DpmSolverPlusPlus,
            lower_order_final: None,
            euler_at_final: false,
            lambda_min_clipped: f64::NEG_INFINITY,
            predict_x0: true,
            disable_corrector: Vec::new(),
            original_inference_steps: 50,
            timestep_scaling: 10.0,
            refused: Map::new(),
            file: NO_FILE.to_owned(),
        }
    }
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// If the file cannot be read; see also [`SchedulerConfig::from_json`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = read_input(path, MOST_BYTES).map_err(|source| Error::io(path, source))?;
        Self::from_json(json, path.display().to_string())
    }

    /// Parses a `scheduler_config.json`; `file` is its name in messages. Fields that no known class has are ignored
    /// with a warning, as in diffusers. What is not supported is an error only when a scheduler of that class is
    /// built.
    ///
    /// # Errors
    /// If it is not a JSON object, a field has an invalid value, or two fields contradict each other.
    pub fn from_json(json: impl AsRef<[u8]>, file: impl Into<String>) -> Result<Self> {
        let file = file.into();
        let fields = Fields::parse(json.as_ref(), &file)?;
        fields.warn_of_unknown();
        Ok(Self::from_fields(&fields, &file)?.without_unread_spacing())
    }

    /// Reads the fields, after unknown ones were warned about. `eta` is 0, because diffusers' files never have it.
    pub(super) fn from_fields(fields: &Fields, file: &str) -> Result<Self> {
        // diffusers' former spelling of "sample".
        let predicts = match fields.get("predict_epsilon")? {
            Some(false) => PredictionType::Sample,
            _ => PredictionType::Epsilon,
        };
        let config = Self {
            class_name: fields.get("_class_name")?.ok_or_else(|| {
                fields.error("_class_name", format!("is missing, expected one of {}", known_classes()))
            })?,
            num_train_timesteps: fields.get("num_train_timesteps")?.unwrap_or(1000),
            beta_start: fields.get("beta_start")?,
            beta_end: fields.get("beta_end")?,
            beta_schedule: fields
                .choice("beta_schedule", "linear, scaled_linear, squaredcos_cap_v2, sigmoid, exp")?,
            trained_betas: fields.get("trained_betas")?,
            rescale_betas_zero_snr: fields.get("rescale_betas_zero_snr")?.unwrap_or(false),
            prediction_type: fields
                .choice("prediction_type", "epsilon, v_prediction, sample")?
                .unwrap_or(predicts),
            timestep_spacing: fields.choice("timestep_spacing", "leading, trailing, linspace")?,
            steps_offset: fields.get("steps_offset")?.unwrap_or(0),
            set_alpha_to_one: fields.get("set_alpha_to_one")?,
            clip_sample: fields.get("clip_sample")?,
            clip_sample_range: fields.get("clip_sample_range")?.unwrap_or(1.0),
            thresholding: fields.get("thresholding")?.unwrap_or(false),
            dynamic_thresholding_ratio: fields.get("dynamic_thresholding_ratio")?.unwrap_or(0.995),
            sample_max_value: fields.get("sample_max_value")?.unwrap_or(1.0),
            eta: 0.0,
            variance_type: fields
                .choice("variance_type", "fixed_small, fixed_small_log, fixed_large")?
                .unwrap_or(VarianceType::FixedSmall),
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
            solver_order: fields.get("solver_order")?.unwrap_or(2),
            solver_type: fields.choice("solver_type", "midpoint, heun, logrho, bh1, bh2")?,
            algorithm_type: fields
                .choice("algorithm_type", "dpmsolver++, sde-dpmsolver++, dpmsolver, sde-dpmsolver")?
                .unwrap_or(Algorithm::DpmSolverPlusPlus),
            lower_order_final: fields.get("lower_order_final")?,
            euler_at_final: fields.get("euler_at_final")?.unwrap_or(false),
            lambda_min_clipped: fields.number("lambda_min_clipped")?.unwrap_or(f64::NEG_INFINITY),
            predict_x0: fields.get("predict_x0")?.unwrap_or(true),
            disable_corrector: fields.get("disable_corrector")?.unwrap_or_default(),
            original_inference_steps: fields.get("original_inference_steps")?.unwrap_or(50),
            timestep_scaling: fields.get("timestep_scaling")?.unwrap_or(10.0),
            refused: fields.refused(),
            file: file.to_owned(),
        };
        config.check()?;
        Ok(config)
    }

    /// The scheduler that the file names.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn kind(&self) -> Result<SchedulerKind> {
        let kind = SchedulerKind::from_class_name(&self.class_name).ok_or_else(|| {
            self.error(
                "_class_name",
                format!(
                    "is {:?}, which is not there; choose another scheduler, or expected one of {}",
                    self.class_name,
                    known_classes()
                ),
            )
        })?;
        Ok(match kind {
            SchedulerKind::DpmSolverMultistep if self.algorithm_type.is_stochastic() => {
                SchedulerKind::DpmSolverMultistepSde
            }
            kind => kind,
        })
    }

    /// The first beta, the last one and the curve between them, with the class's defaults.
    pub(super) fn betas(&self) -> (f64, f64, BetaSchedule) {
        let kind = SchedulerKind::from_class_name(&self.class_name);
        let (start, end, schedule) = kind.unwrap_or(SchedulerKind::Ddim).default_betas();
        (
            self.beta_start.unwrap_or(start),
            self.beta_end.unwrap_or(end),
            self.beta_schedule.unwrap_or(schedule),
        )
    }

    /// The spacing of the sigmas, if the class supports it; others are ignored, as in diffusers.
    pub(super) fn known_sigma_spacing(&self) -> SigmaSpacing {
        let kind = self.kind().ok().filter(|kind| kind.takes_sigma_spacing(self.sigma_spacing));
        kind.map_or(SigmaSpacing::Timesteps, |_| self.sigma_spacing)
    }

    /// The limit for a class that, unless the file says otherwise, clips if `clips`.
    pub(super) fn limit(&self, clips: bool) -> Limit {
        match self.threshold() {
            Limit::None => self.clip(clips),
            threshold => threshold,
        }
    }

    /// The limit for a class that only clips.
    pub(super) fn clip(&self, clips: bool) -> Limit {
        if self.clip_sample.unwrap_or(clips) {
            Limit::Clip { range: self.clip_sample_range }
        } else {
            Limit::None
        }
    }

    /// The limit for a class that only thresholds.
    pub(super) fn threshold(&self) -> Limit {
        if self.thresholding {
            Limit::Threshold { ratio: self.dynamic_thresholding_ratio, max: self.sample_max_value }
        } else {
            Limit::None
        }
    }

    pub(super) fn error(&self, field: &'static str, problem: impl Into<String>) -> Error {
        Error::Field { file: self.file.clone(), field, problem: problem.into() }
    }
}

fn known_classes() -> String {
    let mut classes = SchedulerKind::ALL.map(SchedulerKind::class_name).to_vec();
    classes.dedup();
    classes.join(", ")
}
