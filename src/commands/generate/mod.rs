//! `altdiffusion generate`: a text to images.

mod adapters;
mod control;
mod draw;
mod files;
mod from_image;
mod image_prompt;
mod like;
mod record;
mod sampling;

use std::path::PathBuf;
use std::time::Instant;

use altdiffusion_pipeline::latents::{read_latents, write_latents};
use altdiffusion_pipeline::random::{BatchPosition, Seeds};
use altdiffusion_pipeline::vae::Tiling;
use altdiffusion_pipeline::{AltDiffusion, ContactSheet, DenoisingWindows, GenerateOptions, PromptReading};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use image::RgbImage;
use serde::Serialize;

use self::adapters::Adapters;
use self::control::ControlImages;
use self::files::Seconds;
use self::from_image::FromImage;
use self::image_prompt::ImagePrompts;
use self::like::ModelHash;
use self::record::{Run, Shown};
use self::sampling::Sampling;
use crate::animation::Animation;
use crate::image_args::{ImageArgs, ImageReader};
use crate::image_file::write_image;
use crate::interrupt::Interrupt;
use crate::model::ModelArgs;
use crate::option_values::MOST_IMAGES;
use crate::output::{print_json, print_line, printable};
use crate::output_files::write_timings;
use crate::progress::{Progress, warn};
use crate::{model_hash, option_values, preview, shipped};

/// Draw images of what a text says.
///
/// The text may be in any language that the model knows: the one inside this program knows 18, from Chinese and English to
/// Thai and Arabic, and the published ones 2, 9 or 18. The image is written to a file, and shown in the terminal if that
/// can show it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Generate {
    /// What to draw. Several prompts are drawn one beside the other, each as often as --num-images says.
    #[arg(required_unless_present_any = ["prompt_option", "like"])]
    prompt: Vec<String>,

    /// The same, as other programs have it.
    #[arg(long = "prompt", short = 'p', value_name = "PROMPT", hide = true)]
    prompt_option: Vec<String>,

    /// What the image should keep away from.
    ///
    /// Has an effect only where the guidance scale is greater than 1.
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,

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
    #[arg(long, value_name = "LAYERS", value_parser = option_values::layers, allow_negative_numbers = true)]
    clip_skip: Option<usize>,

    /// Where to write the image. The ending says how: .png, .jpg or .webp.
    ///
    /// Several images get numbers: out-1.png, out-2.png and so on. A file that is there is replaced.
    #[arg(long, short, value_name = "FILE", default_value = "out.png")]
    output: PathBuf,

    /// How many images to draw.
    #[arg(long, short, aliases = ["batch-size", "num-images-per-prompt"], value_name = "N", value_parser = option_values::images, allow_negative_numbers = true)]
    num_images: Option<usize>,

    /// How many times as many, as other programs have it.
    #[arg(long, short = 'b', alias = "n-iter", value_name = "N", value_parser = option_values::images, hide = true)]
    batch_count: Option<usize>,

    /// The number that the noise depends on. The same seed gives the same image, here and in diffusers.
    ///
    /// By default every run takes another, and says which. Of several images each has its own: see --seeds.
    #[arg(long, short, value_name = "N", value_parser = option_values::seed, allow_negative_numbers = true)]
    seed: Option<u64>,

    /// How the noise of several images comes from the seed: consecutive, or stream.
    ///
    /// By default consecutive: the first image has the seed, the second the next one, and so on, as in web interfaces, so
    /// that each can be drawn again alone by its own. With `stream` the noise of all is drawn in one go, as diffusers does it
    /// with one generator; one of them alone then needs the same --num-images, and --only.
    #[arg(long, value_name = "NAME", value_parser = option_values::seeds)]
    seeds: Option<Seeds>,

    /// Of the images that --num-images and the prompts ask for, draw this one alone, from 1 on, as it is among them.
    #[arg(long, value_name = "K", value_parser = option_values::count, conflicts_with = "grid")]
    only: Option<usize>,

    /// The steps from noise to image. More are better, and take longer.
    ///
    /// By default 50, and 20 for the model inside this program.
    #[arg(long, aliases = ["num-inference-steps", "sampling-steps"], value_name = "N", value_parser = option_values::count, allow_negative_numbers = true)]
    steps: Option<usize>,

    /// How closely to keep to the text. Up to 1 means no guidance, in half the time.
    ///
    /// By default 7.5, and 2.25 for the model inside this program. High values make harsh images.
    #[arg(long, aliases = ["cfg-scale", "cfg", "guidance"], value_name = "X", value_parser = option_values::finite, allow_negative_numbers = true)]
    guidance_scale: Option<f64>,

    /// The width in pixels, a multiple of 8. By default, what the model was trained on.
    #[arg(long, short_alias = 'W', value_name = "PIXELS", value_parser = option_values::side, allow_negative_numbers = true)]
    width: Option<usize>,

    /// The height in pixels, a multiple of 8. By default, what the model was trained on.
    #[arg(long, short_alias = 'H', value_name = "PIXELS", value_parser = option_values::side, allow_negative_numbers = true)]
    height: Option<usize>,

    /// Draw an image that is longer or wider than what the model was trained on in overlapping windows.
    ///
    /// Without this, such images tend to show the same thing many times. Windows are as large as the images that the
    /// model was trained on, or as many pixels wide and high as is given, and overlap by half.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, require_equals = true, value_parser = option_values::side)]
    panorama: Option<Option<usize>>,

    /// Decode the image in overlapping tiles, which bounds the memory that a large one takes.
    ///
    /// Tiles are as large as the images that the model was trained on, or as many pixels wide and high as is given.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, require_equals = true, value_parser = option_values::side)]
    vae_tiling: Option<Option<usize>>,

    /// Hold each part of the model in memory only while it works.
    ///
    /// It takes a few seconds longer, and the memory of the largest part instead of that of all.
    #[arg(long)]
    low_memory: bool,

    /// Do not check whether images should rather not be shown.
    ///
    /// Published models bring a safety checker, which makes such images black.
    #[arg(long)]
    no_safety_checker: bool,

    /// Write several images into one file: in about as many rows as columns, or in a row for each of several prompts, under its text.
    #[arg(long)]
    grid: bool,

    /// Draw as this image says that it was drawn, but for what else is given here.
    ///
    /// Images of this program say it all, those of stable-diffusion-webui, Forge and stable-diffusion.cpp as far as it has a
    /// meaning here; what has none is named. A .png has it in a text chunk, a .jpg or .webp in its EXIF data, and a .txt is
    /// it. Files that the image names, such as a LoRA, are looked for here and beside the image. Defaults of the configuration
    /// file and of ALTDIFFUSION_MODEL do not count.
    #[arg(long, value_name = "FILE")]
    like: Option<PathBuf>,

    /// What not to take over from the image of --like: names of options, such as lora,grid.
    #[arg(long, value_name = "OPTION,…", value_delimiter = ',', value_parser = like::option_name, requires = "like")]
    leave_out: Vec<String>,

    /// Write how the image comes out of the noise, as an animated .gif.
    ///
    /// Each step is shown as its latents alone tell, which costs nothing, and the last as it is.
    #[arg(long, value_name = "FILE")]
    save_steps: Option<PathBuf>,

    /// Do not write into the image how it was drawn.
    ///
    /// Otherwise it holds the prompt, the seed and all that its pixels depend on, for --like and for the web interfaces of
    /// Stable Diffusion: a .png in a text chunk `parameters`, a .jpg or .webp in its EXIF data. Of files it tells the names,
    /// without the directories outside of the current one, and hashes.
    #[arg(long)]
    no_parameters: bool,

    /// Do not show the image in the terminal.
    #[arg(long)]
    no_preview: bool,

    /// Print JSON in place of a line for each image, with how it was drawn.
    #[arg(long)]
    json: bool,

    /// Start from the noise in this safetensors file instead of that of a seed.
    ///
    /// It holds one f32 tensor `latents` of standard normal numbers, of shape (images, channels, height, width), with
    /// the sides of the image divided by the factor of the model's autoencoder: 8 for the published models. It decides
    /// the number and the size of the images.
    #[arg(long, value_name = "FILE", help_heading = "Files of numbers")]
    initial_latents: Option<PathBuf>,

    /// Write the latents of the finished images, before they are decoded, in the same form.
    #[arg(long, value_name = "FILE", help_heading = "Files of numbers")]
    save_latents: Option<PathBuf>,

    /// Write what took how long, as JSON, in seconds.
    ///
    /// `load_s` for the model, `text_s` for the texts, `steps_s` with a number for each step of each image, `decode_s` from latents to
    /// pixels, and `total_s` for all of it until the images are written.
    #[arg(long, value_name = "FILE", help_heading = "Files of numbers")]
    timings: Option<PathBuf>,

    #[command(flatten)]
    from_image: FromImage,

    #[command(flatten)]
    followed: ControlImages,

    #[command(flatten)]
    image_prompts: ImagePrompts,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    sampling: Sampling,

    #[command(flatten)]
    adapters: Adapters,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  An image of a cat, in out.png:
      altdiffusion generate 一只猫

  Four apples, in apple-1.png to apple-4.png, the same ones every time:
      altdiffusion generate \"a red apple\" --num-images 4 --seed 7 --output apple.png

  A photo as a painting, and another hat on a dog:
      altdiffusion generate 一幅水彩画 --image photo.jpg --strength 0.6 --model BAAI/AltDiffusion-m9
      altdiffusion generate 一顶红帽子 --image dog.png --mask hat.png --model BAAI/AltDiffusion-m9

  The same image again, and with another text:
      altdiffusion generate --like apple-3.png --output again.png
      altdiffusion generate --like apple-3.png \"a green apple\"

  A house that follows the edges in an image:
      altdiffusion generate 一座红色的房子 --controlnet lllyasviel/control_v11p_sd15_canny \\
          --control-image edges.png --model BAAI/AltDiffusion-m9

  What is in an image, in a garden:
      altdiffusion generate 在花园里 --ip-adapter h94/IP-Adapter --ip-image statue.jpg --ip-scale 0.6 \\
          --model BAAI/AltDiffusion-m9

  A published model, downloaded on first use, on a GPU:
      altdiffusion generate 一只戴帽子的小狗 --model BAAI/AltDiffusion-m9 --negative-prompt 模糊 \\
          --width 512 --height 512 --device cuda --dtype f16";

impl Generate {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let (this, model_hash) = like::with_those_of_an_image(self)?;
        this.draw(start, model_hash)
    }

    fn draw(self, start: Instant, expected_hash: Option<ModelHash>) -> Result<()> {
        // What can be wrong with the files comes out before the work begins.
        let initial_latents = match &self.initial_latents {
            Some(path) => Some(read_latents(path).context("--initial-latents")?),
            None => None,
        };
        let reader = ImageReader::new(&self.reading, &self.model);
        let given_images = self.from_image.read(&reader)?;
        let followed_images = self.followed.read(&reader)?;
        let prompt_images = self.image_prompts.read(&reader)?;
        let images = self.images_in_batch(initial_latents.as_ref())?;
        let files = self.outputs(if self.only.is_some() { 1 } else { images })?;
        let interrupt = Interrupt::watch()?;

        let parts = self.model.parts()?;
        let mut hash = (!self.no_parameters || expected_hash.is_some()).then(|| model_hash::start(&parts));
        let options = self.adapters.apply(self.model.load_options()?)?;
        let options = options.low_memory(self.low_memory).safety_checker(!self.no_safety_checker);
        let loading = Progress::start("Loading the model");
        let pipeline = AltDiffusion::load(parts, options)?;
        drop(loading);
        if self.no_safety_checker && !self.model.is_shipped() {
            warn("images are not checked: take care before you show them to others");
        }
        let mut model_hash = None;
        if let Some(expected) = expected_hash
            && let Some(hash) = hash.take()
        {
            // Before the work, which may be long.
            let found = model_hash::finish(hash)?;
            expected.check(&found);
            model_hash = Some(found);
        }
        let loaded = start.elapsed();
        tracing::info!("loaded in {loaded:.1?}");

        let seed = self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let mut options = self.options(seed, images, initial_latents.as_ref());
        // In latents, and of the images that the model was trained on if not given.
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
        options = self.from_image.apply(options, given_images);
        options = self.followed.apply(options, followed_images, &pipeline, self.model.dtype())?;
        options = self.image_prompts.apply(options, prompt_images, &pipeline, self.model.dtype())?;
        let (count, width, height) = pipeline.drawn_size(&options)?;
        ensure!(count == images, "expected {images} images, found {count}");
        let runs = self.runs(options, pipeline.device(), images, initial_latents.as_ref())?;
        let count = if self.only.is_some() { 1 } else { images };
        let captions: Vec<String> = self.prompts().iter().map(|prompt| printable(prompt)).collect();
        let sheet = ContactSheet::with_prompts((width, height), count, &captions);
        self.check_sizes(&files, &sheet)?;
        let run = Run {
            images,
            seed,
            size: (width, height),
            scheduler: self.sampling.scheduler().map_or_else(|| pipeline.scheduler().kind(), Ok)?,
            device: format!("{:?}", pipeline.device().location()).to_lowercase(),
        };
        // Before the work, since it reads files.
        let mut record = if self.no_parameters { None } else { Some(self.record(&run)?) };
        let mut animation = self.save_steps.is_some().then(Animation::default);
        let generated = draw::draw(&pipeline, &runs, &sheet, animation.as_mut(), &interrupt)?;

        draw::warn_of_black_images(generated.flagged.as_deref().unwrap_or_default());
        if let Some(hash) = hash.take() {
            match model_hash::finish(hash) {
                Ok(found) => model_hash = Some(found),
                // What was drawn is worth more.
                Err(error) => warn(&format!("{error:#}")),
            }
        }
        if let (Some(fields), Some(hash)) = (&mut record, model_hash) {
            fields.insert_before("Model", "Model hash", hash);
        }
        let _whole = interrupt.put_off();
        let writing = Progress::start("Writing");
        let shown = if self.grid { vec![sheet.draw(&generated.images)?] } else { generated.images.clone() };
        let mut drawn = Vec::with_capacity(shown.len());
        for (place, (path, image)) in files.paths.iter().zip(&shown).enumerate() {
            let index = self.only.map_or(place, |only| only - 1);
            let shown = if self.grid { Shown::All } else { Shown::One(index) };
            let text = record.as_ref().map(|fields| self.record_image(fields, &run, shown).to_text());
            write_image(path, files.format, image, text.as_deref())?;
            drawn.push(Drawn {
                file: path.display().to_string(),
                width: image.width(),
                height: image.height(),
                seed: (self.initial_latents.is_none()).then(|| self.seed_of(index, &run)),
                number: self.needs_batch(images).then_some(index + 1),
                parameters: text,
            });
        }
        if let (Some(mut animation), Some(path)) = (animation, &self.save_steps) {
            animation.push(sheet.draw(&generated.images)?);
            animation.write("--save-steps", path)?;
        }
        if let Some(path) = &self.save_latents {
            write_latents(path, &generated.latents).context("--save-latents")?;
        }
        if let Some(path) = &self.timings {
            write_timings(path, &Seconds::new(loaded, &generated.timings, start.elapsed()))?;
        }
        drop(writing);
        reader.warn_of_transparency();
        self.report(&drawn, &shown, images)
    }

    /// The prompts, wherever they were given.
    fn prompts(&self) -> Vec<String> {
        [&self.prompt[..], &self.prompt_option].concat()
    }

    /// The prompt of the image at `index` of a batch of `images`.
    fn prompt_of(&self, index: usize, images: usize) -> Vec<String> {
        let prompts = self.prompts();
        let place = index * prompts.len() / images.max(1);
        prompts.into_iter().nth(place).into_iter().collect()
    }

    fn seeds(&self) -> Seeds {
        self.seeds.unwrap_or(Seeds::Consecutive)
    }

    /// How many images the batch has, of all prompts.
    fn images_in_batch(&self, initial_latents: Option<&Tensor>) -> Result<usize> {
        let prompts = self.prompts().len();
        let each = match (self.num_images, self.batch_count) {
            (None, None) => None,
            (images, batches) => Some(images.unwrap_or(1).saturating_mul(batches.unwrap_or(1))),
        };
        let given = initial_latents.and_then(|latents| latents.dims().first().copied());
        let images = each.map(|each| each.saturating_mul(prompts)).or(given).unwrap_or(prompts);
        ensure!(
            images <= MOST_IMAGES,
            "--num-images: {images} images of all prompts, expected at most {MOST_IMAGES}"
        );
        if let Some(only) = self.only {
            ensure!(
                only <= images,
                "--only {only}: expected the number of one of the images, of which there are {images}"
            );
        }
        Ok(images)
    }

    /// What draws the whole batch.
    fn options(&self, seed: u64, images: usize, initial_latents: Option<&Tensor>) -> GenerateOptions {
        let negative_prompt = self.negative_prompt.as_deref().unwrap_or_default();
        let mut options = GenerateOptions::new("").negative_prompt(negative_prompt).seed(seed);
        options = options.seeds(self.seeds()).steps(self.step_count()).guidance_scale(self.scale());
        options = self.sampling.apply(options);
        options = options.clip_skip(self.clip_skip.unwrap_or_default());
        if self.prompt_weights {
            options = options.prompt_reading(PromptReading::Weighted);
        }
        if let Some(width) = self.width {
            options = options.width(width);
        }
        if let Some(height) = self.height {
            options = options.height(height);
        }
        options = options.prompts(self.prompts());
        if self.num_images.or(self.batch_count).is_some() {
            options = options.images(images / self.prompts().len().max(1));
        }
        match initial_latents {
            Some(latents) => options.initial_latents(latents.clone()),
            None => options,
        }
    }

    /// What draws the batch of `options`, or the one image of it that is wanted.
    ///
    /// On the processor each image is drawn for itself: it takes as long, needs the memory of one, and the pixels are to the
    /// last bit those of the image alone, where a batch rounds otherwise.
    fn runs(
        &self,
        options: GenerateOptions,
        device: &Device,
        images: usize,
        initial_latents: Option<&Tensor>,
    ) -> Result<Vec<GenerateOptions>> {
        let alone = |index: usize| -> Result<GenerateOptions> {
            let position = BatchPosition { index, images };
            let options = options.clone().prompts(self.prompt_of(index, images)).images(1);
            let options = options.batch_position(position);
            Ok(match initial_latents {
                Some(latents) => options.initial_latents(latents.narrow(0, index, 1)?),
                None => options,
            })
        };
        match self.only {
            Some(only) => Ok(vec![alone(only - 1)?]),
            None if images > 1 && device.is_cpu() => (0..images).map(alone).collect(),
            None => Ok(vec![options]),
        }
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

    /// Whether an option with a file is given.
    fn has(&self, option: &str) -> bool {
        (option == "initial-latents" && self.initial_latents.is_some())
            || self.from_image.has(option)
            || self.followed.has(option)
            || self.image_prompts.has(option)
            || self.adapters.has(option)
            || self.model.has(option)
    }

    /// These options, and where there are none those of an image.
    fn or(self, image: Self) -> Self {
        let is_own_batch = self.num_images.or(self.batch_count).is_some();
        // Another seed is another image, for which the batch of this one does not matter.
        let image_batch = !is_own_batch && (self.seed.is_none() || image.only.is_none());
        let is_sized = self.initial_latents.is_some();
        let has_list = self.sampling.listed_steps().is_some();
        let has_prompt = !self.prompts().is_empty();
        Self {
            prompt: if has_prompt { self.prompt } else { image.prompt },
            prompt_option: if has_prompt { self.prompt_option } else { image.prompt_option },
            negative_prompt: self.negative_prompt.or(image.negative_prompt),
            prompt_weights: self.prompt_weights || image.prompt_weights,
            clip_skip: self.clip_skip.or(image.clip_skip),
            output: self.output,
            num_images: self.num_images.or(image.num_images.filter(|_| image_batch)),
            batch_count: self.batch_count.or(image.batch_count.filter(|_| image_batch)),
            only: self.only.or(image.only.filter(|_| image_batch)),
            seed: self.seed.or(image.seed),
            seeds: self.seeds.or(image.seeds),
            sampling: self.sampling.or(image.sampling, self.steps.is_some()),
            steps: self.steps.or(image.steps.filter(|_| !has_list)),
            guidance_scale: self.guidance_scale.or(image.guidance_scale),
            width: self.width.or(image.width.filter(|_| !is_sized)),
            height: self.height.or(image.height.filter(|_| !is_sized)),
            panorama: self.panorama.or(image.panorama),
            vae_tiling: self.vae_tiling.or(image.vae_tiling),
            low_memory: self.low_memory,
            no_safety_checker: self.no_safety_checker || image.no_safety_checker,
            grid: self.grid || (image.grid && self.only.is_none()),
            like: self.like,
            leave_out: self.leave_out,
            save_steps: self.save_steps,
            no_parameters: self.no_parameters,
            no_preview: self.no_preview,
            json: self.json,
            initial_latents: self.initial_latents.or(image.initial_latents),
            save_latents: self.save_latents,
            timings: self.timings,
            from_image: self.from_image.or(image.from_image),
            followed: self.followed.or(image.followed),
            image_prompts: self.image_prompts.or(image.image_prompts),
            reading: self.reading.or(image.reading),
            adapters: self.adapters.or(image.adapters),
            model: self.model.or(image.model),
        }
    }

    /// Shows the images, and says where they are and how to get them again.
    fn report(&self, drawn: &[Drawn], shown: &[RgbImage], images: usize) -> Result<()> {
        if self.json {
            return print_json(drawn);
        }
        if !self.no_preview {
            preview::show(shown)?;
        }
        for Drawn { file, width, height, seed, number, .. } in drawn {
            let mut line = format!("{file}: {width} × {height} pixels");
            if let Some(seed) = seed {
                line += &format!(", seed {seed}");
            }
            if let Some(number) = number.filter(|_| !self.grid && seed.is_some()) {
                line += &format!(", image {number} of {images}");
            }
            print_line(line)?;
        }
        Ok(())
    }
}

/// An image that was written.
#[derive(Serialize)]
struct Drawn {
    file: String,
    width: u32,
    height: u32,
    /// Nothing, where the noise was given.
    seed: Option<u64>,
    /// Its number in the batch, where it cannot be had without it.
    number: Option<usize>,
    /// How it was drawn, as the image tells it.
    parameters: Option<String>,
}
