//! `altdiffusion generate`: a text to pictures.

mod adapters;
mod control;
mod from_picture;
mod image_prompt;
mod sampling;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use altclip_training::pictures::sheet_of_images;
use altdiffusion_pipeline::latents::{read_latents, write_latents};
use altdiffusion_pipeline::vae::Tiling;
use altdiffusion_pipeline::{
    AltDiffusion, DenoisingWindows, GenerateOptions, Generated, PromptReading, Timings,
};
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::Args;
use image::RgbImage;
use serde::Serialize;

use self::adapters::Adapters;
use self::control::FollowedPictures;
use self::from_picture::FromPicture;
use self::image_prompt::ImagePrompts;
use self::sampling::Sampling;
use crate::animation::Animation;
use crate::interrupt::Interrupt;
use crate::model::ModelArgs;
use crate::output::print_line;
use crate::output_files::{check_writable, numbered, write_timings};
use crate::parameters::Parameters;
use crate::picture_file::{PictureFormat, write_picture};
use crate::progress::{Progress, warn};
use crate::{option_values, preview, shipped};

/// Draw pictures of what a text says.
///
/// The text may be in any language that the model knows: the one inside this program knows 18, from Chinese and English to
/// Thai and Arabic, and the published ones 2, 9 or 18. The picture is written to a file, and shown in the terminal if that
/// can show it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Generate {
    /// What to draw. Several prompts are drawn one beside the other, each as often as --num-images says.
    #[arg(required = true)]
    prompt: Vec<String>,

    /// What the picture should keep away from.
    ///
    /// Has an effect only where the guidance scale is greater than 1.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    negative_prompt: String,

    /// Read weights in both texts: (word:1.3) or (word) for more of it, [word] for less.
    ///
    /// As stable-diffusion-webui reads them, also in the full-width signs （word：1.3） and ［word］. Brackets nest, \( is a
    /// bracket, and BREAK starts a new window. A text that is longer than the model takes at a time, which is otherwise
    /// cut, is read in as many windows as it needs.
    // Its brackets are for the command line's help, and no links.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long)]
    prompt_weights: bool,

    /// Take the texts' meaning from this many layers before the one that the model was trained with.
    #[arg(long, value_name = "LAYERS", value_parser = option_values::layers, default_value = "0", allow_negative_numbers = true, hide_default_value = true)]
    clip_skip: usize,

    /// Where to write the picture. The ending says how: .png, .jpg or .webp.
    ///
    /// Several pictures get numbers: out-1.png, out-2.png and so on. A file that is there is replaced.
    #[arg(long, short, value_name = "FILE", default_value = "out.png")]
    output: PathBuf,

    /// How many pictures to draw.
    #[arg(long, short, value_name = "N", value_parser = option_values::pictures, allow_negative_numbers = true)]
    num_images: Option<usize>,

    /// The number that the noise depends on. The same seed gives the same picture, here and in diffusers.
    ///
    /// By default every run takes another, and says which. The noise of several pictures is drawn in one go, so that the
    /// same number of them is needed to get one of them again.
    #[arg(long, short, value_name = "N", value_parser = option_values::seed, allow_negative_numbers = true)]
    seed: Option<u64>,

    /// The steps from noise to picture. More are better, and take longer.
    ///
    /// By default 50, and 20 for the model inside this program.
    #[arg(long, value_name = "N", value_parser = option_values::count, allow_negative_numbers = true)]
    steps: Option<usize>,

    /// How closely to keep to the text. Up to 1 means no guidance, in half the time.
    ///
    /// By default 7.5, and 2.25 for the model inside this program. High values make harsh pictures.
    #[arg(long, value_name = "X", value_parser = option_values::finite, allow_negative_numbers = true)]
    guidance_scale: Option<f64>,

    /// The width in pixels, a multiple of 8. By default, what the model was trained on.
    #[arg(long, value_name = "PIXELS", value_parser = option_values::side, allow_negative_numbers = true)]
    width: Option<usize>,

    /// The height in pixels, a multiple of 8. By default, what the model was trained on.
    #[arg(long, value_name = "PIXELS", value_parser = option_values::side, allow_negative_numbers = true)]
    height: Option<usize>,

    /// Draw a picture that is longer or wider than what the model was trained on in overlapping windows.
    ///
    /// Without this, such pictures tend to show the same thing many times. Windows are as large as the pictures that the
    /// model was trained on, or as many pixels wide and high as is given, and overlap by half.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, require_equals = true, value_parser = option_values::side)]
    panorama: Option<Option<usize>>,

    /// Decode the picture in overlapping tiles, which bounds the memory that a large one takes.
    ///
    /// Tiles are as large as the pictures that the model was trained on, or as many pixels wide and high as is given.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, require_equals = true, value_parser = option_values::side)]
    vae_tiling: Option<Option<usize>>,

    /// Hold each part of the model in memory only while it works.
    ///
    /// It takes a few seconds longer, and the memory of the largest part instead of that of all.
    #[arg(long)]
    low_memory: bool,

    /// Do not check whether pictures should rather not be shown.
    ///
    /// Published models bring a safety checker, which makes such pictures black.
    #[arg(long)]
    no_safety_checker: bool,

    /// Write several pictures side by side into one file.
    #[arg(long)]
    grid: bool,

    /// Write how the picture comes out of the noise, as an animated .gif.
    ///
    /// Each step is shown as its latents alone tell, which costs nothing, and the last as it is.
    #[arg(long, value_name = "FILE")]
    save_steps: Option<PathBuf>,

    /// Do not write into the picture how it was made.
    ///
    /// Otherwise a .png holds the prompt, the seed and the rest in a text chunk `parameters`, which the web interfaces of
    /// Stable Diffusion read.
    #[arg(long)]
    no_parameters: bool,

    /// Do not show the picture in the terminal.
    #[arg(long)]
    no_preview: bool,

    /// Start from the noise in this safetensors file instead of that of a seed.
    ///
    /// It holds one f32 tensor `latents` of standard normal numbers, of shape (pictures, channels, height, width), with
    /// the sides of the picture divided by the factor of the model's autoencoder: 8 for the published models. It decides
    /// the number and the size of the pictures.
    #[arg(long, value_name = "FILE", help_heading = "Files of numbers")]
    initial_latents: Option<PathBuf>,

    /// Write the latents of the finished pictures, before they are decoded, in the same form.
    #[arg(long, value_name = "FILE", help_heading = "Files of numbers")]
    save_latents: Option<PathBuf>,

    /// Write what took how long, as JSON, in seconds.
    ///
    /// `load_s` for the model, `text_s` for the texts, `steps_s` with a number for each step, `decode_s` from latents to
    /// pixels, and `total_s` for all of it until the pictures are written.
    #[arg(long, value_name = "FILE", help_heading = "Files of numbers")]
    timings: Option<PathBuf>,

    #[command(flatten)]
    from_picture: FromPicture,

    #[command(flatten)]
    followed: FollowedPictures,

    #[command(flatten)]
    image_prompts: ImagePrompts,

    #[command(flatten)]
    sampling: Sampling,

    #[command(flatten)]
    adapters: Adapters,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  A picture of a cat, in out.png:
      altdiffusion generate 一只猫

  Four apples, in apple-1.png to apple-4.png, the same ones every time:
      altdiffusion generate \"a red apple\" --num-images 4 --seed 7 --output apple.png

  A photo as a painting, and another hat on a dog:
      altdiffusion generate 一幅水彩画 --image photo.jpg --strength 0.6 --model BAAI/AltDiffusion-m9
      altdiffusion generate 一顶红帽子 --image dog.png --mask hat.png --model BAAI/AltDiffusion-m9

  A house that follows the edges in a picture:
      altdiffusion generate 一座红色的房子 --controlnet lllyasviel/control_v11p_sd15_canny \\
          --control-image edges.png --model BAAI/AltDiffusion-m9

  What is in a picture, in a garden:
      altdiffusion generate 在花园里 --ip-adapter h94/IP-Adapter --ip-image statue.jpg --ip-scale 0.6 \\
          --model BAAI/AltDiffusion-m9

  A published model, downloaded on first use, on a GPU:
      altdiffusion generate 一只戴帽子的小狗 --model BAAI/AltDiffusion-m9 --negative-prompt 模糊 \\
          --width 512 --height 512 --device cuda --dtype f16";

/// What took how long, in seconds.
#[derive(Serialize)]
struct Seconds {
    load_s: f64,
    text_s: f64,
    steps_s: Vec<f64>,
    decode_s: f64,
    total_s: f64,
}

impl Generate {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        // What can be wrong with the files comes out before the work begins.
        let initial_latents = match &self.initial_latents {
            Some(path) => Some(read_latents(path).context("--initial-latents")?),
            None => None,
        };
        let given_pictures = self.from_picture.read()?;
        let followed_pictures = self.followed.read()?;
        let prompt_pictures = self.image_prompts.read()?;
        let files = self.outputs(initial_latents.as_ref())?;

        let pipeline = self.model.pipeline(|options| {
            let options = self.adapters.apply(options)?;
            Ok(options.low_memory(self.low_memory).safety_checker(!self.no_safety_checker))
        })?;
        if self.no_safety_checker && !self.model.is_shipped() {
            warn("pictures are not checked: take care before you show them to others");
        }
        let loaded = start.elapsed();
        tracing::info!("loaded in {loaded:.1?}");

        let seed = self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let mut options = self.options(seed, initial_latents.clone());
        // In latents, and of the pictures that the model was trained on if not given.
        let latents = |pixels: Option<usize>| -> Result<usize> {
            let side = pixels.map_or_else(|| pipeline.default_size().map(|(width, _)| width), Ok)?;
            Ok(side / pipeline.vae_config().downscale())
        };
        if let Some(side) = self.panorama {
            options = options.windows(DenoisingWindows::of_side(latents(side)?));
        }
        if let Some(side) = self.vae_tiling {
            options = options.tiling(Tiling::of_side(latents(side)?));
        }
        options = self.from_picture.apply(options, given_pictures);
        options = self.followed.apply(options, followed_pictures, &pipeline, self.model.dtype())?;
        options = self.image_prompts.apply(options, prompt_pictures, &pipeline, self.model.dtype())?;
        let mut animation = self.save_steps.is_some().then(Animation::default);
        let generated = generate(&pipeline, &options, animation.as_mut())?;

        warn_of_black_pictures(generated.flagged.as_deref().unwrap_or_default());
        let pictures = self.pictures(generated.images)?;
        let seed = initial_latents.is_none().then_some(seed);
        for (index, (path, picture)) in files.paths.iter().zip(&pictures).enumerate() {
            // Several prompts in one picture are told one after the other.
            let prompts = match self.grid {
                true => &self.prompt[..],
                false => {
                    self.prompt.chunks(1).nth(index * self.prompt.len() / pictures.len()).unwrap_or_default()
                }
            };
            let parameters = self.parameters(&pipeline, &prompts.join("\n"), picture, seed)?;
            write_picture(path, files.format, picture, parameters.as_deref())?;
        }
        if let (Some(mut animation), Some(path)) = (animation, &self.save_steps) {
            animation.push(side_by_side(pictures.clone())?);
            animation.write("--save-steps", path)?;
        }
        if let Some(path) = &self.save_latents {
            write_latents(path, &generated.latents).context("--save-latents")?;
        }
        if let Some(path) = &self.timings {
            write_timings(path, &Seconds::new(loaded, &generated.timings, start.elapsed()))?;
        }

        self.report(&files.paths, &pictures, seed)
    }

    /// The files to be written, each of which can be.
    fn outputs(&self, initial_latents: Option<&Tensor>) -> Result<Pictures> {
        let format = PictureFormat::of("--output", &self.output)?;
        let given = initial_latents.and_then(|latents| latents.dims().first().copied());
        let all = self.num_images.map(|each| each * self.prompt.len()).or(given).unwrap_or(self.prompt.len());
        let count = if self.grid { 1 } else { all };
        let paths = numbered(&self.output, count);
        if let Some(path) = &self.save_steps {
            Animation::check_name("--save-steps", path)?;
        }
        let others = [
            ("--save-steps", &self.save_steps),
            ("--save-latents", &self.save_latents),
            ("--timings", &self.timings),
        ];
        let others = others.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        let mut seen: Vec<(&str, &Path)> = Vec::new();
        for (option, path) in paths.iter().map(|path| ("--output", path.as_path())).chain(others) {
            check_writable(option, path)?;
            let same = seen.iter().find(|(_, other)| *other == path);
            ensure!(
                same.is_none(),
                "{option} {}: expected another file than {}",
                path.display(),
                same.map_or("", |(option, _)| option)
            );
            seen.push((option, path));
        }
        Ok(Pictures { format, paths })
    }

    fn options(&self, seed: u64, initial_latents: Option<Tensor>) -> GenerateOptions {
        let mut options =
            GenerateOptions::new("").prompts(&self.prompt).negative_prompt(&self.negative_prompt).seed(seed);
        options = options.steps(self.step_count()).guidance_scale(self.scale());
        options = self.sampling.apply(options);
        options = options.clip_skip(self.clip_skip);
        if self.prompt_weights {
            options = options.prompt_reading(PromptReading::Weighted);
        }
        if let Some(width) = self.width {
            options = options.width(width);
        }
        if let Some(height) = self.height {
            options = options.height(height);
        }
        if let Some(pictures) = self.num_images {
            options = options.pictures(pictures);
        }
        if let Some(latents) = initial_latents {
            options = options.initial_latents(latents);
        }
        options
    }

    /// The pictures as they are written: each for itself, or all in one.
    fn pictures(&self, pictures: Vec<RgbImage>) -> Result<Vec<RgbImage>> {
        if self.grid { Ok(vec![side_by_side(pictures)?]) } else { Ok(pictures) }
    }

    fn step_count(&self) -> usize {
        let default = if self.model.is_shipped() { shipped::STEPS } else { GenerateOptions::STEPS };
        self.steps.or(self.sampling.listed_steps()).unwrap_or(default)
    }

    fn scale(&self) -> f64 {
        let default =
            if self.model.is_shipped() { shipped::GUIDANCE_SCALE } else { GenerateOptions::GUIDANCE_SCALE };
        self.guidance_scale.unwrap_or(default)
    }

    /// How a picture was made, if it is to be told.
    fn parameters(
        &self,
        pipeline: &AltDiffusion,
        prompt: &str,
        picture: &RgbImage,
        seed: Option<u64>,
    ) -> Result<Option<String>> {
        if self.no_parameters {
            return Ok(None);
        }
        let parameters = Parameters {
            prompt,
            negative_prompt: &self.negative_prompt,
            steps: self.step_count(),
            scheduler: self.sampling.scheduler.map_or_else(|| pipeline.scheduler().kind(), Ok)?,
            sigma_spacing: self.sampling.spacing(),
            guidance_scale: self.scale(),
            seed,
            size: picture.dimensions(),
            model: self.model.name(),
            strength: self.from_picture.strength(),
            clip_skip: self.clip_skip,
            loras: &self.adapters.lora_names(),
            controls: self.followed.parameters().into_iter().chain(self.image_prompts.parameters()).collect(),
        };
        Ok(Some(parameters.text()))
    }

    /// Shows the pictures, and says where they are and how to get them again.
    fn report(&self, paths: &[PathBuf], pictures: &[RgbImage], seed: Option<u64>) -> Result<()> {
        if !self.no_preview {
            preview::show(pictures)?;
        }
        for (index, (path, picture)) in paths.iter().zip(pictures).enumerate() {
            let (width, height) = picture.dimensions();
            let mut line = format!("{}: {width} × {height} pixels", path.display());
            if let Some(seed) = seed {
                line += &format!(", seed {seed}");
                if paths.len() > 1 {
                    line += &format!(", picture {} of {}", index + 1, paths.len());
                }
            }
            print_line(line)?;
        }
        Ok(())
    }
}

/// The files that the pictures go to.
struct Pictures {
    format: PictureFormat,
    paths: Vec<PathBuf>,
}

/// Draws, shows how far it is, and keeps what each step looks like.
fn generate(
    pipeline: &AltDiffusion,
    options: &GenerateOptions,
    mut animation: Option<&mut Animation>,
) -> Result<Generated> {
    let interrupt = Interrupt::watch()?;
    let preview = animation.is_some().then(|| pipeline.latent_preview()).transpose()?;
    let progress = Progress::start("Reading the text");
    tracing::debug!("{options:?}");
    let mut failure = None;
    let generated = pipeline.generate_with(options, |step| {
        let done = step.index + 1;
        progress.steps("Drawing", done, step.total);
        if done == step.total {
            progress.then("Decoding");
        }
        if let (Some(preview), Some(animation)) = (&preview, &mut animation) {
            match preview.pictures(step.latents).map_err(anyhow::Error::from).and_then(side_by_side) {
                Ok(frame) => animation.push(frame),
                Err(error) => failure = Some(error),
            }
        }
        if interrupt.is_pressed() || failure.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    match failure {
        Some(error) => Err(error.context("--save-steps")),
        None => Ok(generated?),
    }
}

/// Says why pictures are black.
fn warn_of_black_pictures(flagged: &[bool]) {
    let numbers: Vec<String> = flagged
        .iter()
        .zip(1..)
        .filter(|(flagged, _)| **flagged)
        .map(|(_, number): (_, usize)| number.to_string())
        .collect();
    if !numbers.is_empty() {
        warn(&format!(
            "picture {} of {} may not be safe to show, and is black: try another prompt or seed",
            numbers.join(", "),
            flagged.len()
        ));
    }
}

/// Several pictures in one, in about as many rows as columns.
fn side_by_side(mut pictures: Vec<RgbImage>) -> Result<RgbImage> {
    if pictures.len() == 1 {
        return Ok(pictures.remove(0));
    }
    let columns = (pictures.len() as f64).sqrt().ceil() as usize;
    Ok(sheet_of_images(&pictures, columns)?)
}

impl Seconds {
    fn new(load: Duration, timings: &Timings, total: Duration) -> Self {
        Self {
            load_s: load.as_secs_f64(),
            text_s: timings.text.as_secs_f64(),
            steps_s: timings.steps.iter().map(Duration::as_secs_f64).collect(),
            decode_s: timings.decode.as_secs_f64(),
            total_s: total.as_secs_f64(),
        }
    }
}
