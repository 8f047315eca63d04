//! `altdiffusion generate`: turns a text into images.

mod adapters;
mod batch;
mod control;
mod draw;
mod files;
mod from_image;
mod image_prompt;
mod like;
mod merge;
mod record;
mod run;
mod sampling;

use std::path::PathBuf;
use std::time::Instant;

use altdiffusion_pipeline::random::Seeds;
use anyhow::Result;
use clap::Args;

use self::adapters::Adapters;
use self::control::ControlImages;
use self::from_image::FromImage;
use self::image_prompt::ImagePrompts;
use self::sampling::Sampling;
use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::option_values;

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
        let (options, model_hash) = like::with_image_options(self)?;
        options.draw(start, model_hash)
    }
}
