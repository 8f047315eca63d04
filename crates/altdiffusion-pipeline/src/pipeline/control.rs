//! Loads ControlNets and prepares the images they follow.

use std::path::Path;

use candle_core::DType;
use model_files::source::ModelSource;

use super::model::AltDiffusion;
use crate::control::{Control, PreparedControl, PreparedControls};
use crate::controlnet::ControlNetModel;
use crate::options::GenerateOptions;
use crate::text_states::TextStates;
use crate::{Error, Result, image_input};

impl AltDiffusion {
    /// Loads the ControlNet called `name` for this model, to compute in `dtype`: one file, or a directory or hub
    /// repository with its configuration. Its weights may be differences from those of this model's UNet.
    ///
    /// # Errors
    /// If it is missing or damaged, or was made for another model.
    pub fn load_controlnet(&self, name: &str, dtype: DType) -> Result<ControlNetModel> {
        let (path, base) = (Path::new(name), self.denoiser.weights.as_ref());
        let net = match path.is_file() {
            true => ControlNetModel::from_file_over(path, base, dtype, &self.device)?,
            false => ControlNetModel::from_source_over(&ModelSource::open(name)?, base, dtype, &self.device)?,
        };
        self.check_controlnet(&net)?;
        Ok(net)
    }

    /// Checks that a ControlNet fits this model's UNet and autoencoder.
    ///
    /// # Errors
    /// Names the field of the configuration that differs, or says that the denoiser takes no ControlNets.
    pub fn check_controlnet(&self, net: &ControlNetModel) -> Result<()> {
        if !self.denoiser_spec().controlnet {
            let problem =
                "cannot be used with this denoiser, which adds no residuals (DenoiserSpec::controlnet)";
            return Err(Error::option("control image", problem));
        }
        if let Some(unet) = self.unet_config() {
            net.check_fits(unet)?;
        }
        let (found, expected) = (net.config().downscale(), self.vae_config().downscale());
        if found != expected {
            return Err(Error::Config {
                model: "ControlNetModel",
                field: "conditioning_embedding_out_channels",
                expected: format!("numbers that divide images by {expected}, as the autoencoder does"),
                found: format!("{:?}", net.config().conditioning_embedding_out_channels),
            });
        }
        Ok(())
    }

    /// Checks the image prompts.
    pub(super) fn check_image_prompts(&self, options: &GenerateOptions) -> Result<()> {
        let spec = self.denoiser_spec();
        if !spec.ip_adapter && !options.image_prompts.is_empty() {
            let problem = "cannot be used with this denoiser, which does not attend to images (DenoiserSpec::ip_adapter)";
            return Err(Error::option("image prompt", problem));
        }
        options.image_prompts.iter().try_for_each(|prompt| prompt.check(spec))
    }

    /// Checks the images to follow.
    pub(super) fn check_controls(&self, options: &GenerateOptions) -> Result<()> {
        if options.controls.is_empty() {
            return match options.guess_mode {
                true => Err(Error::option("guess mode", "expected a control image that it is for")),
                false => Ok(()),
            };
        }
        for control in &options.controls {
            control.check()?;
            self.check_controlnet(&control.net)?;
        }
        let [_, _, height, width] = self.latent_shape(options)?;
        let drawn = (width * self.vae_config().downscale(), height * self.vae_config().downscale());
        match options.controls.iter().find(|control| control.size() != drawn) {
            Some(control) => {
                let ((width, height), (drawn_width, drawn_height)) = (control.size(), drawn);
                let problem = format!(
                    "is {width} × {height}, the generated image {drawn_width} × {drawn_height}: resize it, or give width and \
                     height"
                );
                Err(Error::option("control image", problem))
            }
            None => Ok(()),
        }
    }

    /// The size of a run that follows this image, which must have the same size.
    pub(super) fn size_of_control(&self, control: &Control) -> Result<(usize, usize)> {
        let (width, height) = control.size();
        let multiple = self.size_multiple();
        if !(width.is_multiple_of(multiple) && height.is_multiple_of(multiple)) {
            let down = |side: usize| (side / multiple).max(1) * multiple;
            let problem = format!(
                "is {width} × {height}, and what is drawn has sides that {multiple} divides: resize it, such as to \
                 {} × {}",
                down(width),
                down(height)
            );
            return Err(Error::option("control image", problem));
        }
        Ok((width, height))
    }

    /// Prepares the ControlNets for the options' texts, with `images` images each.
    pub(super) fn controls(
        &self,
        options: &GenerateOptions,
        states: &TextStates,
        images: usize,
    ) -> Result<PreparedControls> {
        let Some(first) = options.controls.first() else { return Ok(PreparedControls::default()) };
        // As in diffusers, the first one decides.
        let guess_mode = options.guess_mode || first.net.config().global_pool_conditions;
        let states = match guess_mode && options.is_guided() {
            true => &states.conditioned_half()?,
            false => states,
        };
        let states = states.repeat_each(images)?;
        let mut controls = Vec::with_capacity(options.controls.len());
        for control in &options.controls {
            let net = &control.net;
            let pixels = image_input::colours(&control.image)?.to_device(&self.device)?;
            let condition = net.embed_image(&pixels)?;
            let context = net.project_context(states.hidden_states(), states.key_bias())?;
            controls.push(PreparedControl::new(control, condition, context));
        }
        Ok(PreparedControls { controls, guess_mode })
    }
}
