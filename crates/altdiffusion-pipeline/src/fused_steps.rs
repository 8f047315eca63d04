//! Computes guidance and the scheduler's step in one kernel, without waiting for the host between steps.

use std::collections::VecDeque;

use candle_core::{Device, Tensor};
use fused_ops::LinearStep;

use crate::Result;
use crate::schedulers::{LinearUpdate, Scheduler, Term, linear_updates};
use crate::unet::PreparedUNet;

/// The fused steps of a run; the scheduler's updates must be linear.
pub(crate) struct FusedSteps {
    updates: Vec<LinearUpdate>,
    /// (steps, 7): the coefficients of each [`LinearStep`].
    coefficients: Tensor,
    guided: bool,
    first_index: usize,
    /// The UNet's input in the next step.
    input: Option<Tensor>,
    /// Samples and guided outputs of earlier steps, newest first.
    before: VecDeque<(Tensor, Tensor)>,
    /// How many earlier steps an update may use.
    longest: usize,
}

impl FusedSteps {
    /// Prepares the steps of `scheduler` from `first_index` on, with guidance of this scale if the prompt is guided;
    /// `None` if they are not linear, use too many tensors, or there are none.
    ///
    /// # Errors
    /// If the scheduler or a tensor operation fails.
    pub(crate) fn new(
        scheduler: &dyn Scheduler,
        first_index: usize,
        guidance_scale: Option<f64>,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Some(updates) = linear_updates(scheduler, first_index)? else { return Ok(None) };
        let is_long = |update: &LinearUpdate| update.history.len() > LinearStep::MAX_HISTORY;
        if updates.is_empty() || updates.iter().any(is_long) {
            return Ok(None);
        }
        let scale = guidance_scale.unwrap_or_default() as f32;
        let coefficients: Vec<Vec<f32>> =
            updates.iter().map(|update| numbers(update, scale).to_vec()).collect();
        let ages = updates.iter().flat_map(|update| &update.history).map(|(term, _)| match term {
            Term::Sample(age) | Term::Output(age) => *age,
        });
        Ok(Some(Self {
            longest: ages.max().unwrap_or(0),
            coefficients: Tensor::new(coefficients, device)?,
            updates,
            guided: guidance_scale.is_some(),
            first_index,
            input: None,
            before: VecDeque::new(),
        }))
    }

    /// Runs step `index` and returns the latents (images, channels, height, width), f32.
    ///
    /// # Errors
    /// If there is no such step, or the shapes do not fit together.
    pub(crate) fn step(
        &mut self,
        unet: &mut PreparedUNet,
        scheduler: &dyn Scheduler,
        index: usize,
        timestep: f64,
        latents: &Tensor,
    ) -> Result<Tensor> {
        let input = match self.input.take() {
            Some(input) => input,
            None => {
                let sample = scheduler.scale_model_input(latents, self.first_index)?;
                let sample = if self.guided { Tensor::cat(&[&sample, &sample], 0)? } else { sample };
                unet.unet().to_input(&sample)?
            }
        };
        let prediction = unet.predict_channels_last(&input, timestep)?;
        self.apply(index, &prediction, latents)
    }

    /// Computes the next sample and the model's next input from its prediction for `sample` at step `index`.
    ///
    /// * `prediction` (images or twice as many, height, width, channels), the unconditional half first
    /// * `sample` (images, channels, height, width), f32
    fn apply(&mut self, index: usize, prediction: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let terms = self.updates.get(index).map(|update| update.history.as_slice()).unwrap_or_default();
        let earlier = terms.iter().filter_map(|(term, _)| match *term {
            Term::Sample(age) => self.before.get(age - 1).map(|(sample, _)| sample),
            Term::Output(age) => self.before.get(age - 1).map(|(_, output)| output),
        });
        let history: Vec<&Tensor> = earlier.collect();
        let coefficients = self.coefficients.get(index)?;
        let step = LinearStep { coefficients: &coefficients, history: &history, guided: self.guided };
        let stepped = step.apply(prediction, sample)?;
        self.before.push_front((sample.clone(), stepped.output));
        self.before.truncate(self.longest);
        self.input = Some(stepped.model_input);
        Ok(stepped.sample)
    }
}

/// The coefficients of a step, in the order of [`LinearStep::coefficients`].
fn numbers(update: &LinearUpdate, guidance_scale: f32) -> [f32; 7] {
    let history = |place: usize| update.history.get(place).map_or(0.0, |(_, weight)| *weight);
    [guidance_scale, update.sample, update.output, history(0), history(1), history(2), update.input]
}
