//! Runs a UNet repeatedly with the same prompts, from a recorded forward pass if the device supports it.

use std::sync::MutexGuard;

use candle_core::Tensor;

use super::context::CrossAttentionContext;
use super::model::UNet2DConditionModel;
use super::recorder::{Recorded, RecordedPass, pass_shape};
use super::residuals::AdditionalResiduals;
use crate::Result;

/// A UNet with the prompts of a run.
///
/// On a GPU the first forward pass for each image size is recorded, and later ones are replayed.
pub(crate) struct PreparedUNet<'a> {
    unet: &'a UNet2DConditionModel,
    context: CrossAttentionContext,
    /// The UNet's recorder, unless recording is off or another thread holds it.
    recorded: Option<MutexGuard<'a, Recorded>>,
    /// Whether the recorded pass has this run's prompts.
    has_context: bool,
}

impl<'a> PreparedUNet<'a> {
    /// Prepares a run with these prompts.
    pub(crate) fn new(unet: &'a UNet2DConditionModel, context: CrossAttentionContext) -> Self {
        Self::recording(unet, context, unet.device().is_cuda())
    }

    fn recording(unet: &'a UNet2DConditionModel, context: CrossAttentionContext, records: bool) -> Self {
        let recorded = if records && context.can_be_copied() { unet.recorder().try_lock() } else { None };
        Self { unet, context, recorded, has_context: false }
    }

    /// The UNet.
    pub(crate) fn unet(&self) -> &'a UNet2DConditionModel {
        self.unet
    }

    /// Like [`UNet2DConditionModel::forward_with_residuals`], with one timestep for all samples.
    ///
    /// # Errors
    /// If the tensors do not fit each other or the model.
    pub(crate) fn forward(
        &mut self,
        sample: &Tensor,
        timestep: f64,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor> {
        let unet = self.unet;
        let timesteps = for_each_sample(timestep, sample)?;
        if residuals.is_some() || self.recorded.is_none() {
            return unet.forward_with_residuals(sample, &timesteps, &self.context, residuals);
        }
        unet.check_inputs(sample, &timesteps, &self.context)?;
        let prediction = self.predict(&unet.to_input(sample)?, &timesteps)?;
        unet.to_prediction(&prediction, sample.dtype())
    }

    /// Predicts in the UNet's layout and dtype: (batch, height, width, in_channels) → (batch, height, width,
    /// out_channels).
    ///
    /// # Errors
    /// If the tensors do not fit each other or the model.
    pub(crate) fn predict_channels_last(&mut self, input: &Tensor, timestep: f64) -> Result<Tensor> {
        self.predict(input, &for_each_sample(timestep, input)?)
    }

    fn predict(&mut self, input: &Tensor, timesteps: &Tensor) -> Result<Tensor> {
        if let Some(recorded) = self.recorded.as_deref_mut() {
            let shape = pass_shape(input, &self.context);
            if let Recorded::Pass(pass) = recorded
                && pass.shape() == shape
            {
                let context = if self.has_context { None } else { Some(&self.context) };
                match pass.replay(input, timesteps, context) {
                    Ok(prediction) => {
                        self.has_context = true;
                        return Ok(prediction);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a recorded UNet pass failed");
                        *recorded = Recorded::Refused(shape.clone());
                    }
                }
            }
            if !matches!(recorded, Recorded::Refused(refused) if *refused == shape) {
                // Free the memory of the previous one first.
                *recorded = Recorded::Nothing;
                match record(self.unet, input, timesteps, &self.context) {
                    Ok((pass, prediction)) => {
                        *recorded = Recorded::Pass(Box::new(pass));
                        self.has_context = true;
                        return Ok(prediction);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "UNet passes are not recorded");
                        *recorded = Recorded::Refused(shape);
                    }
                }
            }
        }
        self.unet.predict(input, timesteps, &self.context, None)
    }
}

/// The timestep, repeated for each of `samples`.
fn for_each_sample(timestep: f64, samples: &Tensor) -> Result<Tensor> {
    Ok(Tensor::full(timestep as f32, samples.dim(0)?, samples.device())?)
}

/// Records a forward pass of a clone, which shares the weights.
fn record(
    unet: &UNet2DConditionModel,
    input: &Tensor,
    timesteps: &Tensor,
    context: &CrossAttentionContext,
) -> Result<(RecordedPass, Tensor)> {
    let unet = unet.clone();
    RecordedPass::new(input, timesteps, context, move |input, timesteps, context| {
        unet.predict(input, timesteps, context, None)
    })
}

impl Drop for PreparedUNet<'_> {
    /// The next run, possibly on another thread, writes to the same tensors.
    fn drop(&mut self) {
        if self.recorded.is_some()
            && let Err(error) = self.unet.device().synchronize()
        {
            tracing::debug!(%error, "the device failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use test_support::{Random, largest_difference};

    use super::super::tiny::{WIDTH, tiny_unet};
    use super::*;

    /// Runs with longer and shorter prompts, with and without a bias, and of another size.
    #[test]
    fn recorded_passes_are_the_passes() -> Result<()> {
        let unet = tiny_unet()?;
        let mut random = Random::new(1);
        for (tokens, biased, side) in
            [(5, false, 8), (3, true, 8), (32, false, 8), (33, true, 8), (4, true, 6)]
        {
            let bias = random.uniform(&[2, tokens]);
            let context =
                unet.project_context(&random.normal(&[2, tokens, WIDTH]), biased.then_some(&bias))?;
            let mut prepared = PreparedUNet::recording(&unet, context.clone(), true);
            assert!(prepared.recorded.is_some());
            let mut before: Option<(Tensor, Vec<f32>)> = None;
            for timestep in [981f32, 441., 1.] {
                let (sample, timesteps) =
                    (random.normal(&[2, 4, side, side]), Tensor::full(timestep, 2, &Device::Cpu)?);
                let found = prepared.forward(&sample, timestep.into(), None)?;
                let expected = unet.forward(&sample, &timesteps, &context)?;
                // Masked keys change only the order of summation.
                let difference = largest_difference(&found, &expected);
                assert!(difference < 1e-5, "{tokens} tokens, timestep {timestep}: {difference}");
                assert!(matches!(prepared.recorded.as_deref(), Some(Recorded::Pass(_))));
                if let Some((tensor, values)) = &before {
                    assert_eq!(
                        &tensor.flatten_all()?.to_vec1::<f32>()?,
                        values,
                        "a result that was handed out"
                    );
                }
                before = Some((found.clone(), found.flatten_all()?.to_vec1()?));
            }
            // Meanwhile another thread runs without recording.
            assert!(PreparedUNet::recording(&unet, context, true).recorded.is_none());
        }
        Ok(())
    }

    /// A prompt that overflowed must leave nothing behind for a shorter one.
    #[test]
    fn a_prompt_of_nan_leaves_the_next_one_alone() -> Result<()> {
        let unet = tiny_unet()?;
        let mut random = Random::new(1);
        let nan = Tensor::full(f32::NAN, (1, 7, WIDTH), &Device::Cpu)?;
        let sample = random.normal(&[1, 4, 8, 8]);
        for (states, is_finite) in [(nan, false), (random.normal(&[1, 3, WIDTH]), true)] {
            let context = unet.project_context(&states, None)?;
            let found = PreparedUNet::recording(&unet, context, true).forward(&sample, 441.0, None)?;
            let found = found.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(found.iter().all(|value| value.is_finite()), is_finite);
        }
        Ok(())
    }

    #[test]
    fn on_the_processor_nothing_is_recorded() -> Result<()> {
        let unet = tiny_unet()?;
        let mut random = Random::new(1);
        let context = unet.project_context(&random.normal(&[1, 3, WIDTH]), None)?;
        assert!(PreparedUNet::new(&unet, context).recorded.is_none());
        Ok(())
    }
}
