//! Draws on the model's thread.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use altclip_encoder::conditioner::ConditionerConfig;
use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use altdiffusion_pipeline::random::BatchPosition;
use altdiffusion_pipeline::{
    AltDiffusion, Control, ControlNetModel, Error, GenerateOptions, LatentPreview, LoadOptions, Progress,
    Seeds, Step,
};
use image::RgbImage;

use super::adapters::AdapterFolders;
use super::previews::PreviewClock;
use super::record::record;
use super::request::{DrawEvent, DrawRequest, Drawn, NamedLora};
use super::status::{DrawJob, DrawingStatus, Running};
use crate::metrics::Metrics;
use crate::model_thread::{Stage, Work};
use crate::models::ImageModel;
use crate::problem::Problem;
use crate::sync::Receiver;

/// ControlNets that stay loaded.
const LOADED_NETS: usize = 2;

/// A model's work.
pub(super) struct DrawingWork {
    model: ImageModel,
    folders: Arc<AdapterFolders>,
    status: Arc<DrawingStatus>,
    metrics: Arc<Metrics>,
    loaded: Option<Loaded>,
}

/// The model in memory.
struct Loaded {
    pipeline: AltDiffusion,
    /// Merged into its weights.
    loras: Vec<NamedLora>,
    /// Textual inversions of the folder that prompts named, also if they do not fit the model.
    words: Vec<String>,
    /// Those among them that do.
    learned: Vec<String>,
    nets: Vec<(String, Arc<ControlNetModel>)>,
    preview: Option<LatentPreview>,
    hash: Hash,
}

/// The model's hash, which is computed while the model draws.
enum Hash {
    Pending(JoinHandle<altdiffusion_pipeline::Result<String>>),
    Known(Option<String>),
}

impl Hash {
    fn wait(&mut self) -> Option<String> {
        if let Self::Pending(_) = self
            && let Self::Pending(hash) = std::mem::replace(self, Self::Known(None))
        {
            match hash.join() {
                Ok(Ok(hash)) => *self = Self::Known(Some(hash)),
                // The images are worth more than the hash.
                Ok(Err(error)) => tracing::warn!("the model's hash: {error}"),
                Err(_) => tracing::warn!("the model's hash could not be computed"),
            }
        }
        match self {
            Self::Known(hash) => hash.clone(),
            Self::Pending(_) => None,
        }
    }
}

impl DrawingWork {
    pub(super) fn new(
        model: ImageModel,
        folders: Arc<AdapterFolders>,
        status: Arc<DrawingStatus>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { model, folders, status, metrics, loaded: None }
    }

    /// Loads the model with these LoRAs and textual inversions, unless it is.
    fn load(&mut self, loras: &[NamedLora], mut words: Vec<String>, stage: &Stage) -> Result<(), Problem> {
        if let Some(loaded) = self.loaded.as_ref().filter(|loaded| loaded.loras == loras) {
            if words.iter().all(|word| loaded.words.contains(word)) {
                return Ok(());
            }
            // Those that other prompts named stay, so that prompts in turns do not load the model each time.
            let known = self.folders.words();
            let others = loaded.words.iter().filter(|word| known.contains(word) && !words.contains(word));
            words = others.cloned().chain(words.clone()).collect();
        }
        // Before the memory is taken again.
        self.loaded = None;
        let (model, folders, status) = (&self.model, &self.folders, &self.status);
        let start = Instant::now();
        let loaded = stage.loading(|| {
            let parts = (model.parts)()?;
            let width = ConditionerConfig::read(parts.text_encoder_config())?.spec().embedding_width;
            let _ = status.word_width.set(width);
            let mut options = model.options.clone();
            for NamedLora { name, strength } in loras {
                options = options.lora(folders.lora(name)?, *strength);
            }
            for word in &words {
                options = with_word(options, folders, word, width)?;
            }
            let fits = |word: &&String| options.words.iter().any(|learned| learned.word() == word.as_str());
            let learned = words.iter().filter(fits).cloned().collect();
            let hash = Hash::Pending(std::thread::spawn(parts.hasher()));
            let pipeline = AltDiffusion::load(parts, options)?;
            let (loras, nets) = (loras.to_vec(), Vec::new());
            Ok::<_, Problem>(Loaded { pipeline, loras, words, learned, nets, preview: None, hash })
        })?;
        if let Ok(size) = loaded.pipeline.default_size() {
            let _ = self.status.default_size.set(size);
        }
        self.metrics.add_seconds("load", start.elapsed());
        tracing::info!(model = self.model.name, seconds = start.elapsed().as_secs_f64(), "loaded");
        self.loaded = Some(loaded);
        Ok(())
    }

    fn draw(&mut self, job: &DrawJob, stage: &Stage) -> Result<(), Problem> {
        let request = &job.request;
        self.load(&request.loras, words_of(&self.folders, &request.options), stage)?;
        let Some(loaded) = &mut self.loaded else { return Err(Problem::failed()) };
        let mut options = request.options.clone().seeds(Seeds::Consecutive);
        for control in &request.controls {
            let net = loaded.net(&control.model, &self.folders, self.model.options.dtype)?;
            let control_image = Control::new(net, control.image.clone());
            options =
                options.control(control_image.scale(control.scale).start(control.start).end(control.end));
        }
        if let Some(area) = &request.area {
            let (image, mask) = area.cropped();
            options = options.image(image).mask(mask);
        }
        if request.previews.is_some() && loaded.preview.is_none() {
            loaded.preview = Some(loaded.pipeline.latent_preview()?);
        }
        let mut clock = request.previews.map(PreviewClock::new);
        // Each image alone: the pixels are those that the seed gives to one image.
        for index in 0..request.images {
            let position = BatchPosition { index, images: request.images };
            let mut one = options.clone().images(1);
            one = one.batch_position(position);
            let start = Instant::now();
            let drawn = draw_one(loaded, &self.status, job, &one, index, clock.as_mut())?;
            let Some((image, flagged)) = drawn else { return Ok(()) };
            self.metrics.add_image(start.elapsed());
            let drawn = finish(&self.model, loaded, request, &one, index, image, (flagged, start))?;
            let interrupted = job.interruption.is_interrupted();
            if job.events.send(DrawEvent::Image(drawn)).is_err() || interrupted {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether a prompt contains a word.
fn is_named(word: &str, options: &GenerateOptions) -> bool {
    options.prompts.iter().chain([&options.negative_prompt]).any(|prompt| prompt.contains(word))
}

/// The words of the folder that the prompts contain.
fn words_of(folders: &AdapterFolders, options: &GenerateOptions) -> Vec<String> {
    folders.words().into_iter().filter(|word| is_named(word, options)).collect()
}

/// Adds a word of the folder. One that was learned for another text encoder remains text, as in
/// stable-diffusion-webui, and so does one that a LoRA brings itself.
fn with_word(
    options: LoadOptions,
    folders: &AdapterFolders,
    word: &str,
    width: usize,
) -> Result<LoadOptions, Problem> {
    if options.words.iter().any(|known| known.word() == word) {
        return Ok(options);
    }
    let learned = folders.word(word)?;
    if learned.vectors().dims().last() != Some(&width) {
        tracing::warn!(word, "left out: its vectors are not as long as this model's");
        return Ok(options);
    }
    Ok(options.word(learned))
}

impl Loaded {
    fn net(
        &mut self,
        name: &str,
        folders: &AdapterFolders,
        dtype: altdiffusion_pipeline::DType,
    ) -> Result<Arc<ControlNetModel>, Problem> {
        if let Some((_, net)) = self.nets.iter().find(|(known, _)| known == name) {
            return Ok(Arc::clone(net));
        }
        let net = Arc::new(folders.controlnet(name, dtype, self.pipeline.device())?);
        if self.nets.len() == LOADED_NETS {
            self.nets.remove(0);
        }
        self.nets.push((name.to_owned(), Arc::clone(&net)));
        Ok(net)
    }
}

/// Draws one image, and says whether it was flagged; `None` if the client has gone, or has the work ended early.
fn draw_one(
    loaded: &Loaded,
    status: &DrawingStatus,
    job: &DrawJob,
    options: &GenerateOptions,
    image: usize,
    mut clock: Option<&mut PreviewClock>,
) -> Result<Option<(RgbImage, bool)>, Problem> {
    let stop = || job.events.is_closed() || job.interruption.is_interrupted();
    let on_progress = |progress: Progress<'_>| {
        match progress {
            Progress::Denoising { steps } => {
                status.set_running(|running| update(running, image, 0, steps, None));
            }
            Progress::Step(Step { index, total, latents, .. }) => {
                let (step, steps) = (index + 1, total);
                let is_due = clock.as_mut().is_some_and(|clock| clock.is_due(step, steps, Instant::now()));
                let preview = loaded.preview.as_ref().filter(|_| is_due);
                let file = preview.and_then(|preview| preview_file(preview, latents));
                status.set_running(|running| update(running, image, step, steps, file.clone()));
                let _ = job.events.send(DrawEvent::Step { image, step, steps, preview: file });
            }
            Progress::Decoding { .. } => {}
        }
        if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match loaded.pipeline.generate_observed(options, on_progress) {
        Ok(generated) => {
            let flagged = generated.flagged.is_some_and(|flagged| flagged.contains(&true));
            Ok(generated.images.into_iter().next().map(|image| (image, flagged)))
        }
        Err(Error::Cancelled { latents, .. }) => {
            let keeps = job.request.keeps_interrupted && job.interruption.is_interrupted();
            let Some(latents) = latents.filter(|_| keeps) else { return Ok(None) };
            let images = loaded.pipeline.enlarge(loaded.pipeline.decode(&latents)?, options.scale)?;
            Ok(images.into_iter().next().map(|image| (image, false)))
        }
        Err(error) => Err(error.into()),
    }
}

fn update(running: &mut Option<Running>, image: usize, step: usize, steps: usize, preview: Option<Vec<u8>>) {
    if let Some(running) = running {
        (running.image, running.step, running.steps) = (image, step, steps);
        running.preview = preview.or(running.preview.take());
    }
}

fn preview_file(preview: &LatentPreview, latents: &candle_core::Tensor) -> Option<Vec<u8>> {
    let image = preview.images(latents).ok()?.into_iter().next()?;
    ImageFileFormat::Png.encode(&image, None).ok()
}

/// Puts a redrawn area back, and encodes the image with its record.
fn finish(
    model: &ImageModel,
    loaded: &mut Loaded,
    request: &DrawRequest,
    options: &GenerateOptions,
    index: usize,
    image: RgbImage,
    (flagged, start): (bool, Instant),
) -> Result<Drawn, Problem> {
    let scale = u32::try_from(options.scale).unwrap_or(1).max(1);
    let size = (image.width() / scale, image.height() / scale);
    let image = match &request.area {
        Some(area) => area.put_back(&image),
        None => image,
    };
    let seed = options.seed.wrapping_add(index as u64);
    let hash = loaded.hash.wait();
    let recorded = options.clone().seed(seed);
    let words: Vec<String> =
        loaded.learned.iter().filter(|word| is_named(word, &recorded)).cloned().collect();
    let pipeline = &loaded.pipeline;
    let parameters = record(model, hash.as_deref(), pipeline, request, &recorded, &words, size)?.to_text();
    let file = match request.quality {
        Some(quality) => request.format.encode_in_quality(&image, Some(&parameters), quality),
        None => request.format.encode(&image, Some(&parameters)),
    };
    Ok(Drawn {
        image: index,
        file: file?,
        seed,
        width: image.width(),
        height: image.height(),
        parameters,
        flagged,
        seconds: start.elapsed().as_secs_f64(),
    })
}

impl Work for DrawingWork {
    type Job = DrawJob;

    fn run(&mut self, job: DrawJob, _: &Receiver<DrawJob>, stage: &Stage) {
        if job.events.is_closed() {
            self.metrics.add_cancelled();
            return;
        }
        let start = Instant::now();
        let running = Running {
            image: 0,
            images: job.request.images,
            step: 0,
            steps: 0,
            since: start,
            preview: None,
            interruption: job.interruption.clone(),
        };
        self.status.set_running(|now| *now = Some(running));
        let outcome = self.draw(&job, stage);
        self.status.set_running(|now| *now = None);
        if job.events.is_closed() {
            self.metrics.add_cancelled();
        } else {
            self.status.add_time(start.elapsed());
        }
        // The place in the queue and the room of its images are free before the client knows.
        let DrawJob { request, place, events, .. } = job;
        drop((request, place));
        if let Err(problem) = outcome {
            let _ = events.send(DrawEvent::Failed(problem));
        }
    }

    fn preload(&mut self, stage: &Stage) {
        if let Err(problem) = self.load(&[], Vec::new(), stage) {
            tracing::error!(model = self.model.name, "{}", problem.message);
        }
    }

    fn free(&mut self) {
        self.loaded = None;
        self.status.set_running(|running| *running = None);
    }
}
