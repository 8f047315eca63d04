//! Draws images: the run is on its own thread, and asks Python for noise and reports its steps.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use altclip_encoder::images::{self, Background, DecodeOptions};
use altdiffusion_pipeline::random::NoiseFactory;
use altdiffusion_pipeline::{
    AltDiffusion, Cancellation, Control, GenerateOptions, Generated, Progress, TextStates,
};
use image::{DynamicImage, RgbImage};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::arrays::Numbers;
use crate::controlnet::ControlNet;
use crate::errors::{Failure, Result};
use crate::questions::{Answer, Answerer, AskedNoise, Asker, Message, connected};
use crate::work::{next, started};

/// An image: its name, and the contents of its file unless that is the name.
type Image = (PathBuf, Option<PyBackedBytes>);

/// What a run needs that is not plain data.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Inputs<'py> {
    image: Option<Image>,
    mask: Option<Image>,
    controls: Vec<FollowedImage<'py>>,
    latents: Option<Numbers>,
    prompt_embeds: Option<Numbers>,
    negative_prompt_embeds: Option<Numbers>,
    /// A function from a shape, and whether the noise is for all images, to an array.
    noise: Option<Bound<'py, PyAny>>,
    /// A function of the index of a step, its timestep and the latents.
    callback: Option<Bound<'py, PyAny>>,
}

/// A ControlNet with the image it follows, how closely, and the share of the steps from which and up to which it does.
type FollowedImage<'py> = (Bound<'py, ControlNet>, Image, f64, f64, f64);

/// Images, (images, height, width, 3); whether each was flagged; and the latents.
pub(crate) type Drawn<'py> = (Bound<'py, PyAny>, Option<Vec<bool>>, Bound<'py, PyAny>);

/// Draws what `options`, as JSON, and `inputs` say.
pub(crate) fn generate<'py>(
    py: Python<'py>,
    model: Arc<AltDiffusion>,
    options: &str,
    mut inputs: Inputs<'py>,
) -> PyResult<Drawn<'py>> {
    let (asker, mut answerer) = connected();
    let cancellation = Cancellation::new();
    let run = inputs.run(options, &asker, &cancellation).map_err(|failure| failure.exception(py))?;
    let reports = inputs.callback.is_some();
    // The result comes as the last message.
    started(py, move || {
        asker.tell(Message::Done(run.draw(&model, &asker, reports)));
        Ok(())
    })?;
    let generated = inputs.answer(py, &mut answerer, &cancellation).inspect_err(|_| cancellation.cancel())?;
    let Generated { images, flagged, latents, .. } = generated;
    let latents = Numbers::of(&latents).map_err(|failure| failure.exception(py))?;
    Ok((joined(images).array(py)?, flagged, latents.array(py)?))
}

/// A run whose images are not read yet.
struct Run {
    options: GenerateOptions,
    image: Option<Image>,
    mask: Option<Image>,
    controls: Vec<(Arc<altdiffusion_pipeline::ControlNetModel>, Image, f64, f64, f64)>,
}

impl Inputs<'_> {
    fn run(&mut self, json: &str, asker: &Asker<Generated>, cancellation: &Cancellation) -> Result<Run> {
        let mut options: GenerateOptions =
            serde_json::from_str(json).map_err(|error| Failure::input(error.to_string()))?;
        options = options.cancellation(cancellation.clone());
        if let Some(latents) = self.latents.take() {
            options = options.initial_latents(latents.tensor()?);
        }
        if let Some(states) = self.prompt_embeds.take() {
            options = options.prompt_states(TextStates::from_hidden_states(states.tensor()?)?);
        }
        if let Some(states) = self.negative_prompt_embeds.take() {
            options = options.negative_states(TextStates::from_hidden_states(states.tensor()?)?);
        }
        if self.noise.is_some() {
            let asker = asker.clone();
            options =
                options.noise_factory(NoiseFactory::new(move |_| Ok(Box::new(AskedNoise(asker.clone())))));
        }
        let controls = std::mem::take(&mut self.controls).into_iter();
        let controls = controls
            .map(|(net, image, scale, start, end)| (Arc::clone(&net.get().0), image, scale, start, end));
        Ok(Run { options, image: self.image.take(), mask: self.mask.take(), controls: controls.collect() })
    }

    /// Answers the run until it ends.
    fn answer(
        &self,
        py: Python<'_>,
        answerer: &mut Answerer<Generated>,
        cancellation: &Cancellation,
    ) -> PyResult<Generated> {
        loop {
            let answer = match next(py, &mut answerer.messages, cancellation)? {
                Some(Message::Done(result)) => return result.map_err(|failure| failure.exception(py)),
                Some(Message::Step(index, timestep, latents)) => {
                    if let Some(callback) = &self.callback {
                        callback.call1((index, timestep, latents.array(py)?))?;
                    }
                    Answer::Continue
                }
                Some(Message::Noise { shape, shared }) => Answer::Noise(self.noise(&shape, shared)?),
                None => return Err(Failure::other("the run ended without a result").exception(py)),
            };
            // If the run has ended, its result is the next message.
            let _ = answerer.answers.send(answer);
        }
    }

    fn noise(&self, shape: &[usize], shared: bool) -> PyResult<Numbers> {
        let Some(noise) = &self.noise else { return Ok(Numbers { values: Vec::new(), shape: vec![0] }) };
        noise.call1((shape, shared))?.extract()
    }
}

impl Run {
    fn draw(self, model: &AltDiffusion, asker: &Asker<Generated>, reports: bool) -> Result<Generated> {
        let mut options = self.options;
        if let Some(image) = &self.image {
            options = options.image(read(image)?.into_rgb8());
        }
        if let Some(mask) = &self.mask {
            options = options.mask(images::grey(&read(mask)?.into_rgb8()));
        }
        for (net, image, scale, start, end) in self.controls {
            let image = read(&image)?.into_rgb8();
            options = options.control(Control::new(net, image).scale(scale).start(start).end(end));
        }
        let mut failure = None;
        let generated = model.generate_observed(&options, |progress| {
            let Progress::Step(step) = progress else { return ControlFlow::Continue(()) };
            if !reports {
                return ControlFlow::Continue(());
            }
            match Numbers::of(step.latents) {
                Ok(latents) => match asker.ask(Message::Step(step.index, step.timestep, latents)) {
                    Some(_) => ControlFlow::Continue(()),
                    None => ControlFlow::Break(()),
                },
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(generated?),
        }
    }
}

/// Reads an image, with the colours under what is transparent.
fn read((name, contents): &Image) -> Result<DynamicImage> {
    let options = DecodeOptions::default();
    let image = match contents {
        Some(contents) => images::decode(&name.display().to_string(), contents, options)?,
        None => images::open(name, options)?,
    };
    Ok(DynamicImage::ImageRgb8(images::flatten(&image, Background::None).into_owned()))
}

/// The pixels of images that have one size.
fn joined(images: Vec<RgbImage>) -> Numbers<u8> {
    let (width, height) = images.first().map_or((0, 0), RgbImage::dimensions);
    let shape = vec![images.len(), height as usize, width as usize, 3];
    Numbers { values: images.into_iter().flat_map(RgbImage::into_raw).collect(), shape }
}
