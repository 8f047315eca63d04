//! `scheduler_config.json`.

use std::path::Path;

use super::{
    Algorithm, BetaSchedule, Ddim, Ddpm, DpmSolverMultistep, DpmSolverSinglestep, EulerAncestralDiscrete,
    EulerDiscrete, FinalSigma, HeunDiscrete, Lcm, LmsDiscrete, Pndm, PredictionType, Scheduler,
    SchedulerKind, SigmaInterpolation, SigmaSpacing, SolverType, Steps, TimestepSpacing, UniPcMultistep,
    VarianceType, fields::Fields, limit::Limit,
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
    pub beta_start: Option<f64>,
    /// The last beta.
    pub beta_end: Option<f64>,
    /// The curve between them.
    pub beta_schedule: Option<BetaSchedule>,
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
    /// DDIM, PNDM: whether the sample after the last step counts as free of noise, instead of as noisy as at timestep 0.
    pub set_alpha_to_one: Option<bool>,
    /// DDPM, DDIM, Heun, LCM: whether the predicted clean sample is clipped.
    pub clip_sample: Option<bool>,
    /// The same: to what absolute value.
    pub clip_sample_range: f64,
    /// Whether the predicted clean sample is limited by a quantile of itself, in place of clipping.
    pub thresholding: bool,
    /// That quantile, 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// The largest limit.
    pub sample_max_value: f64,
    /// DDIM: how much of the noise that the step takes away it replaces by new one, 0 (none) to 1 (as in DDPM). No file
    /// says it; in diffusers it is an argument of the pipeline.
    pub eta: f64,
    /// DDPM: the variance of the added noise.
    pub variance_type: VarianceType,
    /// PNDM: whether the run starts without Runge-Kutta steps.
    pub skip_prk_steps: bool,
    /// How the sigmas are spread.
    pub sigma_spacing: SigmaSpacing,
    /// Euler: how sigmas between the training's are found.
    pub interpolation_type: SigmaInterpolation,
    /// Euler: the smallest sigma of a Karras, exponential or beta spacing.
    pub sigma_min: Option<f64>,
    /// Euler: the largest.
    pub sigma_max: Option<f64>,
    /// Euler, DPM-Solver, UniPC: the sigma after the last step.
    pub final_sigmas_type: FinalSigma,
    /// Euler with velocity prediction: whether the model is told `ln(σ) / 4` in place of the timestep.
    pub continuous_timesteps: bool,
    /// DPM-Solver, UniPC: the order of the method.
    pub solver_order: usize,
    /// DPM-Solver, UniPC: the variant of the method. Each takes the other's for its own default.
    pub solver_type: Option<SolverType>,
    /// DPM-Solver: the equation that is solved.
    pub algorithm_type: Algorithm,
    /// DPM-Solver, UniPC: whether the last steps of a run have a lower order.
    pub lower_order_final: Option<bool>,
    /// DPM-Solver multistep: whether the last step has order 1, whatever else is said.
    pub euler_at_final: bool,
    /// DPM-Solver: the smallest λ = ln(√ᾱ / √(1 − ᾱ)) that a run may start from.
    pub lambda_min_clipped: f64,
    /// UniPC: whether it solves for the clean sample, instead of for the noise.
    pub predict_x0: bool,
    /// UniPC: the steps after which nothing is corrected.
    pub disable_corrector: Vec<usize>,
    /// LCM: the steps of the run that the model was distilled from.
    pub original_inference_steps: usize,
    /// LCM: what the timestep is multiplied by in the boundary condition.
    pub timestep_scaling: f64,
    /// Fields that nothing here knows, with their values.
    unknown: Vec<String>,
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

    /// Reads the content of a `scheduler_config.json`; `file` is its name in messages. Fields that no known class has are
    /// an error only when the class of the file is run.
    ///
    /// # Errors
    /// When it is not a JSON object, a field has a value that it cannot have, or two fields contradict each
    /// other.
    pub fn from_json(json: impl AsRef<[u8]>, file: impl Into<String>) -> Result<Self> {
        let file = file.into();
        let fields = Fields::parse(json.as_ref(), &file)?;
        if fields.get::<serde_json::Value>("solver_p")?.is_some() {
            return Err(fields.error("solver_p", "names another scheduler, expected null"));
        }
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
                .unwrap_or(PredictionType::Epsilon),
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
            lambda_min_clipped: fields.get("lambda_min_clipped")?.unwrap_or(f64::NEG_INFINITY),
            predict_x0: fields.get("predict_x0")?.unwrap_or(true),
            disable_corrector: fields.get("disable_corrector")?.unwrap_or_default(),
            original_inference_steps: fields.get("original_inference_steps")?.unwrap_or(50),
            timestep_scaling: fields.get("timestep_scaling")?.unwrap_or(10.0),
            unknown: fields.unknown(),
            file: file.clone(),
        };
        config.check()?;
        Ok(config)
    }

    /// The same noise levels for another scheduler. What only the class of the file knew no longer counts.
    pub fn with_kind(mut self, kind: SchedulerKind) -> Self {
        kind.class_name().clone_into(&mut self.class_name);
        match kind {
            SchedulerKind::DpmSolverMultistep => self.algorithm_type = Algorithm::DpmSolverPlusPlus,
            SchedulerKind::DpmSolverMultistepSde => self.algorithm_type = Algorithm::SdeDpmSolverPlusPlus,
            _ => {}
        }
        self.unknown.clear();
        self
    }

    /// The same with the sigmas spread in another way.
    ///
    /// # Errors
    /// When the scheduler has no sigmas to spread so.
    pub fn with_sigma_spacing(mut self, spacing: SigmaSpacing) -> Result<Self> {
        let kind = self.kind()?;
        if !kind.takes_sigma_spacing(spacing) {
            let others = SchedulerKind::names(|kind| kind.takes_sigma_spacing(spacing));
            let problem = format!("{spacing} is not possible with {kind}; expected one of {others}");
            return Err(Error::option("sigma spacing", problem));
        }
        self.sigma_spacing = spacing;
        Ok(self)
    }

    /// The same with the steps spread in another way over the timesteps.
    ///
    /// # Errors
    /// When the scheduler has but one way.
    pub fn with_timestep_spacing(mut self, spacing: TimestepSpacing) -> Result<Self> {
        let kind = self.kind()?;
        if !kind.takes_timestep_spacing() {
            let others = SchedulerKind::names(SchedulerKind::takes_timestep_spacing);
            let problem = format!("{kind} has but one; expected one of {others}");
            return Err(Error::option("timestep spacing", problem));
        }
        self.timestep_spacing = Some(spacing);
        Ok(self)
    }

    /// The same with noise added in each step of DDIM: [`SchedulerConfig::eta`].
    ///
    /// # Errors
    /// When it is not in 0 to 1, or not 0 and the scheduler is another one.
    pub fn with_eta(mut self, eta: f64) -> Result<Self> {
        let kind = self.kind()?;
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::option("eta", format!("{eta}, expected 0 to 1")));
        }
        if eta != 0.0 && kind != SchedulerKind::Ddim {
            return Err(Error::option("eta", format!("{eta} has no meaning for {kind}; expected ddim")));
        }
        self.eta = eta;
        Ok(self)
    }

    /// The configuration as diffusers' `AltDiffusionPipeline` corrects it on loading: `steps_offset` is 1 and the
    /// predicted sample is not clipped, since latents have no range. Older published files say otherwise.
    pub fn for_latents(mut self) -> Self {
        if self.steps_offset != 1 {
            tracing::debug!("{}: steps_offset is {}, using 1", self.file, self.steps_offset);
            self.steps_offset = 1;
        }
        self.clip_sample = Some(false);
        self
    }

    /// The scheduler that the file names.
    ///
    /// # Errors
    /// When it is not a known one.
    pub fn kind(&self) -> Result<SchedulerKind> {
        let kind = SchedulerKind::from_class_name(&self.class_name).ok_or_else(|| {
            self.error(
                "_class_name",
                format!("is {:?}, which is not known; expected one of {}", self.class_name, known_classes()),
            )
        })?;
        Ok(match kind {
            SchedulerKind::DpmSolverMultistep if self.algorithm_type.is_stochastic() => {
                SchedulerKind::DpmSolverMultistepSde
            }
            kind => kind,
        })
    }

    /// A scheduler for one run of `steps` steps.
    ///
    /// # Errors
    /// Those of [`SchedulerConfig::build_for`].
    pub fn build(&self, steps: usize) -> Result<Box<dyn Scheduler>> {
        self.build_for(&Steps::Count(steps))
    }

    /// A scheduler for one run.
    ///
    /// # Errors
    /// When the class is not known, there are no steps or more than training timesteps, the scheduler cannot run with a
    /// field of the configuration or with steps like these, or the file of this class has a field that nothing here
    /// knows.
    pub fn build_for(&self, steps: &Steps) -> Result<Box<dyn Scheduler>> {
        let kind = self.kind()?;
        if !self.unknown.is_empty() {
            let unknown = self.unknown.join(", ");
            let problem =
                format!("{unknown}, which is not supported; expected a known field, or another scheduler");
            return Err(Error::content(&self.file, problem));
        }
        Ok(match kind {
            SchedulerKind::Ddpm => Box::new(Ddpm::new(self, steps)?),
            SchedulerKind::Ddim => Box::new(Ddim::new(self, steps)?),
            SchedulerKind::Pndm => Box::new(Pndm::new(self, steps)?),
            SchedulerKind::LmsDiscrete => Box::new(LmsDiscrete::new(self, steps)?),
            SchedulerKind::HeunDiscrete => Box::new(HeunDiscrete::new(self, steps)?),
            SchedulerKind::EulerDiscrete => Box::new(EulerDiscrete::new(self, steps)?),
            SchedulerKind::EulerAncestralDiscrete => Box::new(EulerAncestralDiscrete::new(self, steps)?),
            SchedulerKind::DpmSolverMultistep | SchedulerKind::DpmSolverMultistepSde => {
                Box::new(DpmSolverMultistep::new(self, steps)?)
            }
            SchedulerKind::DpmSolverSinglestep => Box::new(DpmSolverSinglestep::new(self, steps)?),
            SchedulerKind::UniPcMultistep => Box::new(UniPcMultistep::new(self, steps)?),
            SchedulerKind::Lcm => Box::new(Lcm::new(self, steps)?),
        })
    }

    /// The first beta, the last one and the curve between them, with the defaults of the class.
    pub(super) fn betas(&self) -> (f64, f64, BetaSchedule) {
        let kind = SchedulerKind::from_class_name(&self.class_name);
        let (start, end, schedule) = kind.unwrap_or(SchedulerKind::Ddim).default_betas();
        (
            self.beta_start.unwrap_or(start),
            self.beta_end.unwrap_or(end),
            self.beta_schedule.unwrap_or(schedule),
        )
    }

    /// How the sigmas are spread, if the class knows this way; what it does not know it leaves alone, as in diffusers.
    pub(super) fn known_sigma_spacing(&self) -> SigmaSpacing {
        let kind = self.kind().ok().filter(|kind| kind.takes_sigma_spacing(self.sigma_spacing));
        kind.map_or(SigmaSpacing::Timesteps, |_| self.sigma_spacing)
    }

    /// The limit of a class that clips where nothing is said, or does not, by `clips`.
    pub(super) fn limit(&self, clips: bool) -> Limit {
        match self.threshold() {
            Limit::None => self.clip(clips),
            threshold => threshold,
        }
    }

    /// The limit of a class that only clips.
    pub(super) fn clip(&self, clips: bool) -> Limit {
        if self.clip_sample.unwrap_or(clips) {
            Limit::Clip { range: self.clip_sample_range }
        } else {
            Limit::None
        }
    }

    /// The limit of a class that only knows thresholds.
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
                let (start, end, schedule) = self.betas();
                for (field, beta) in [("beta_start", start), ("beta_end", end)] {
                    if !(0.0..=1.0).contains(&beta) {
                        return Err(self.error(field, format!("is {beta}, expected 0 to 1")));
                    }
                }
                if start > end && !schedule.is_fixed() {
                    return Err(self.error("beta_start", format!("is {start}, larger than beta_end, {end}")));
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
            ("timestep_scaling", self.timestep_scaling),
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
        if self.lambda_min_clipped.is_nan() {
            return Err(self.error("lambda_min_clipped", "is NaN, expected a number"));
        }
        for (field, count) in
            [("solver_order", self.solver_order), ("original_inference_steps", self.original_inference_steps)]
        {
            if count == 0 {
                return Err(self.error(field, "is 0, expected at least 1"));
            }
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
    let mut classes = SchedulerKind::ALL.map(SchedulerKind::class_name).to_vec();
    classes.dedup();
    classes.join(", ")
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
        let config = read(r#""_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0"#)?;
        let message = message(config.build(20).map(|_| ()));
        for part in
            ["scheduler_config.json", "_class_name", "FlowMatchEulerDiscreteScheduler", "DDIMScheduler"]
        {
            assert!(message.contains(part), "{message}");
        }
        config.with_kind(SchedulerKind::Ddim).build(20)?;
        Ok(())
    }

    #[test]
    fn fields_of_later_classes_are_errors_where_they_would_change_the_result() -> Result<()> {
        let class = r#""_class_name": "UniPCMultistepScheduler""#;
        read(&format!(r#"{class}, "use_flow_sigmas": false, "flow_shift": 1.0"#))?.build(20)?;
        let flow = read(&format!(r#"{class}, "use_flow_sigmas": true"#))?;
        let message = message(flow.build(20).map(|_| ()));
        assert!(message.contains("scheduler_config.json: `use_flow_sigmas` is true"), "{message}");
        flow.with_kind(SchedulerKind::Ddim).build(20)?;
        Ok(())
    }

    #[test]
    fn each_class_has_its_own_defaults() -> Result<()> {
        for (class, betas) in [
            ("DDIMScheduler", (0.0001, 0.02, BetaSchedule::Linear)),
            ("HeunDiscreteScheduler", (0.00085, 0.012, BetaSchedule::Linear)),
            ("LCMScheduler", (0.00085, 0.012, BetaSchedule::ScaledLinear)),
        ] {
            assert_eq!(read(&format!(r#""_class_name": "{class}""#))?.betas(), betas);
        }
        Ok(())
    }

    #[test]
    fn a_spacing_that_the_class_does_not_know_is_left_alone() -> Result<()> {
        let lu = read(r#""_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": true"#)?;
        assert_eq!(lu.known_sigma_spacing(), SigmaSpacing::Lu);
        for kind in [SchedulerKind::HeunDiscrete, SchedulerKind::UniPcMultistep, SchedulerKind::Ddim] {
            assert_eq!(lu.clone().with_kind(kind).known_sigma_spacing(), SigmaSpacing::Timesteps);
        }
        let karras = read(r#""_class_name": "DDIMScheduler", "use_karras_sigmas": true"#)?;
        assert_eq!(karras.known_sigma_spacing(), SigmaSpacing::Timesteps);
        let euler = karras.with_kind(SchedulerKind::EulerDiscrete);
        assert_eq!(euler.known_sigma_spacing(), SigmaSpacing::Karras);
        Ok(())
    }

    #[test]
    fn a_class_of_two_kinds_is_told_by_its_algorithm() -> Result<()> {
        let class = r#""_class_name": "DPMSolverMultistepScheduler""#;
        let plain = read(class)?;
        assert_eq!(plain.kind()?, SchedulerKind::DpmSolverMultistep);
        let stochastic = read(&format!(r#"{class}, "algorithm_type": "sde-dpmsolver++""#))?;
        assert_eq!(stochastic.kind()?, SchedulerKind::DpmSolverMultistepSde);
        for kind in SchedulerKind::ALL {
            assert_eq!(plain.clone().with_kind(kind).kind()?, kind);
            assert_eq!(stochastic.clone().with_kind(kind).kind()?, kind);
        }
        Ok(())
    }

    #[test]
    fn what_a_scheduler_cannot_do_names_those_that_can() -> Result<()> {
        let ddim = read(r#""_class_name": "DDIMScheduler""#)?;
        let single = ddim.clone().with_kind(SchedulerKind::DpmSolverSinglestep);
        for (message, parts) in [
            (message(ddim.clone().with_sigma_spacing(SigmaSpacing::Karras)), ["karras", "ddim", "heun"]),
            (
                message(single.clone().with_timestep_spacing(TimestepSpacing::Trailing)),
                ["dpm++-s", "one", "ddim"],
            ),
            (message(single.with_eta(0.5)), ["eta", "dpm++-s", "ddim"]),
            (message(ddim.clone().with_eta(1.5)), ["eta", "1.5", "0 to 1"]),
            (message(ddim.build_for(&Steps::Timesteps(vec![3])).map(|_| ())), ["timesteps", "ddim", "heun"]),
            (
                message(ddim.build_for(&Steps::Sigmas(vec![1.0, 0.0])).map(|_| ())),
                ["sigmas", "ddim", "euler"],
            ),
        ] {
            for part in parts {
                assert!(message.contains(part), "{message}");
            }
        }
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
            (r#""beta_schedule": "quadratic""#, "beta_schedule"),
            (r#""prediction_type": "flow_prediction""#, "prediction_type"),
            (r#""timestep_spacing": "even""#, "timestep_spacing"),
            (r#""steps_offset": -1"#, "steps_offset"),
            (r#""steps_offset": 1000"#, "steps_offset"),
            (r#""clip_sample_range": 0.0"#, "clip_sample_range"),
            (r#""use_karras_sigmas": true, "use_exponential_sigmas": true"#, "use_exponential_sigmas"),
            (r#""use_karras_sigmas": true, "use_beta_sigmas": true"#, "use_beta_sigmas"),
            (r#""algorithm_type": "rk4""#, "algorithm_type"),
            (r#""solver_type": "euler""#, "solver_type"),
            (r#""solver_order": 0"#, "solver_order"),
            (r#""solver_p": {}"#, "solver_p"),
            (r#""variance_type": "learned_range""#, "variance_type"),
            (r#""original_inference_steps": 0"#, "original_inference_steps"),
            (r#""timestep_scaling": 0"#, "timestep_scaling"),
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
        assert_eq!(config.clip_sample, Some(false));
        Ok(())
    }
}
