//! Implements latent consistency sampling.

use candle_core::Tensor;

use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, at, limit::Limit,
    noise_like,
};
use crate::random::Noise;
use crate::{Error, Result};

/// The data's standard deviation in the boundary condition.
const SIGMA_DATA: f32 = 0.5;

/// Latent consistency models (Luo et al. 2023, <https://arxiv.org/abs/2310.04378>), algorithm 3: predicts the clean
/// sample at once, and takes it to the next noise level with new noise. For models distilled to run in few steps.
#[derive(Debug, Clone)]
pub struct Lcm {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    limit: Limit,
    timestep_scaling: f32,
    /// Timesteps, descending.
    timesteps: Vec<usize>,
    /// The same, as passed to the model.
    model_timesteps: Vec<f64>,
}

impl Lcm {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than in the distillation, which itself had more than the training, or the run
    /// would have to predict an image from pure noise (no signal at its first timestep, with epsilon prediction).
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::Lcm, config)?;
        let schedule = NoiseSchedule::rescaled(config);
        let timesteps = match steps {
            Steps::Timesteps(given) => given.clone(),
            _ => spread(config, steps.count())?,
        };
        schedule.check_signal(config, &timesteps)?;
        Ok(Self {
            schedule,
            prediction: config.prediction_type,
            limit: config.limit(false),
            timestep_scaling: config.timestep_scaling as f32,
            model_timesteps: timesteps.iter().map(|&timestep| timestep as f64).collect(),
            timesteps,
        })
    }
}

/// Picks `steps` of the timesteps that the model was distilled on, evenly from the last one down.
fn spread(config: &SchedulerConfig, steps: usize) -> Result<Vec<usize>> {
    let (train, distilled) = (config.num_train_timesteps, config.original_inference_steps);
    if distilled > train {
        return Err(config.error(
            "original_inference_steps",
            format!("is {distilled}, but num_train_timesteps is {train}"),
        ));
    }
    if steps == 0 || steps > distilled {
        let problem = format!("{steps} steps, expected 1 to {distilled}, which the model was distilled from");
        return Err(Error::option("steps", problem));
    }
    let stride = train / distilled;
    let distance = distilled as f64 / steps as f64;
    Ok((0..steps).map(|step| (distilled - (step as f64 * distance) as usize) * stride - 1).collect())
}

impl Scheduler for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.model_timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        at(&self.timesteps, index)?;
        Ok(sample.clone())
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor> {
        let timestep = at(&self.timesteps, index)?;
        let alpha_bar = self.schedule.alpha_bar(timestep)?;
        let (clean, _) = self.prediction.clean_and_noise(model_output, sample, alpha_bar)?;
        let clean = self.limit.apply(&clean)?;
        // The consistency function is the sample itself at timestep 0, and the prediction far from it.
        let scaled = timestep as f32 * self.timestep_scaling;
        let norm = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let denoised = ((clean * f64::from(scaled / norm.sqrt()))?
            + (sample * f64::from(SIGMA_DATA * SIGMA_DATA / norm))?)?;
        match self.timesteps.get(index + 1) {
            None => Ok(denoised),
            Some(&next) => {
                let next_alpha_bar = self.schedule.alpha_bar(next)?;
                let noise = (noise_like(noise, sample)? * f64::from((1.0 - next_alpha_bar).sqrt()))?;
                Ok(((denoised * f64::from(next_alpha_bar.sqrt()))? + noise)?)
            }
        }
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.schedule.add_noise(original, noise, at(&self.timesteps, index)?)
    }
}
