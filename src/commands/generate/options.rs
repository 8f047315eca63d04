//! Declares the options of `generate`, for the command line, for images' records and for files of prompts.

use std::ffi::OsString;
use std::path::PathBuf;

use altdiffusion_pipeline::random::Seeds;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::adapters::Adapters;
use super::control::ControlImages;
use super::from_image::FromImage;
use super::image_prompt::ImagePrompts;
use super::sampling::Sampling;
use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::option_values;

/// Draw images from prompts.
///
/// A prompt may be in any language that the model knows: the model inside this program knows 18, published models
/// 2, 9 or 18. The image is written to a file, and shown in terminals that can show images.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Generate {
    /// What to draw; - for one prompt from standard input.
    ///
    /// Each of several prompts gets --num-images images.
    #[arg(required_unless_present_any = ["prompt_option", "prompt_file", "like"])]
    pub(super) prompt: Vec<String>,

    /// The same, by the name that other programs use.
    #[arg(long = "prompt", short = 'p', value_name = "PROMPT", hide = true)]
    pub(super) prompt_option: Vec<String>,

    /// Draw each line of a file, a prompt or JSON; - for standard input.
    ///
    /// --output is then a directory, in which the images are called after their lines: 0001.png and so on. Blank lines
    /// and those that begin with # are skipped. The fields of an object such as {"prompt": "一只猫", "seed": 7, "steps": 30}
    /// are options by their long names, with `output` for a path inside the directory; and `parameters`, the record of an
    /// image as --json prints it. What a line does not say is as on the command line. Run the same command again to resume:
    /// what was drawn with the same settings is not drawn again. A line that fails is reported, and the others go on.
    #[arg(
        long = "prompts",
        value_name = "FILE",
        requires = "output",
        conflicts_with_all = ["prompt", "prompt_option", "like", "save_steps", "save_latents", "timings"]
    )]
    pub(super) prompt_file: Option<PathBuf>,

    /// Negative prompt: what to keep out of the image.
    ///
    /// Works only with a guidance scale above 1.
    #[arg(long, value_name = "TEXT")]
    pub(super) negative_prompt: Option<String>,

    /// Read weights in prompts: (word:1.3) or (word) for more, [word] for less.
    ///
    /// As stable-diffusion-webui reads them, also in the full-width signs （word：1.3） and ［word］. Brackets nest, \( is a
    /// bracket, and BREAK starts a new window. A text that is longer than the model takes at a time, which is otherwise
    /// cut, is read in as many windows as it needs.
    // Its brackets are for the command's help; they are not links.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long, hide_short_help = true)]
    pub(super) prompt_weights: bool,

    /// Use the output of the text encoder this many layers before the one the model was trained with.
    #[arg(long, value_name = "LAYERS", value_parser = option_values::layers, allow_negative_numbers = true, hide_short_help = true)]
    pub(super) clip_skip: Option<usize>,

    /// Output file: .png, .jpg or .webp; - for a pipe.
    ///
    /// Several images are numbered: out-1.png, out-2.png and so on. Existing files are replaced. With - one image goes to
    /// standard output, as PNG.
    #[arg(long, short, value_name = "FILE", default_value = "out.png")]
    pub(super) output: PathBuf,

    /// How many images to draw for each prompt.
    #[arg(long, short, aliases = ["batch-size", "num-images-per-prompt"], value_name = "N", value_parser = option_values::images, allow_negative_numbers = true)]
    pub(super) num_images: Option<usize>,

    /// Multiply the number of images, under the name that other programs use.
    #[arg(long, short = 'b', alias = "n-iter", value_name = "N", value_parser = option_values::images, hide = true)]
    pub(super) batch_count: Option<usize>,

    /// Seed of the noise: the same seed gives the same image.
    ///
    /// It does so here and in diffusers. By default random, and printed. Each of several images has its own: see --seeds.
    #[arg(long, short, value_name = "N", value_parser = option_values::seed, allow_negative_numbers = true)]
    pub(super) seed: Option<u64>,

    /// How the images of a batch use the seed: consecutive or stream.
    ///
    /// consecutive (the default) gives the first image the seed, the second the next number, and so on, as web
    /// interfaces do, so that each can be drawn again alone. stream draws the noise of all from one generator, as
    /// diffusers does; drawing one of them again then needs the same --num-images, and --only.
    #[arg(long, value_name = "NAME", value_parser = option_values::seed_modes(), hide_possible_values = true, hide_short_help = true)]
    pub(super) seeds: Option<Seeds>,

    /// Draw only this image of the batch, counted from 1.
    #[arg(long, value_name = "K", value_parser = option_values::count, conflicts_with = "grid", hide_short_help = true)]
    pub(super) only: Option<usize>,

    /// Denoising steps. More are better, and take longer.
    ///
    /// By default 50, and 6 for the model inside this program.
    #[arg(long, aliases = ["num-inference-steps", "sampling-steps"], value_name = "N", value_parser = option_values::count, allow_negative_numbers = true)]
    pub(super) steps: Option<usize>,

    /// How closely to follow the prompt; 1 or less means no guidance.
    ///
    /// Without guidance, an image takes half the time. By default 7.5, and 1.5 for the model inside this program. High
    /// values make harsh images.
    #[arg(long, aliases = ["cfg-scale", "cfg", "guidance"], value_name = "X", value_parser = option_values::finite, allow_negative_numbers = true)]
    pub(super) guidance_scale: Option<f64>,

    /// Width in pixels, a multiple of 8. By default the model's.
    #[arg(long, short_alias = 'W', value_name = "PIXELS", value_parser = option_values::side, allow_negative_numbers = true)]
    pub(super) width: Option<usize>,

    /// Height in pixels, a multiple of 8. By default the model's.
    #[arg(long, short_alias = 'H', value_name = "PIXELS", value_parser = option_values::side, allow_negative_numbers = true)]
    pub(super) height: Option<usize>,

    /// Enlarge the images along each side, up to 4 times.
    ///
    /// By the network that some models have for it, to 4 times; to other sizes from there. Without such a network, by
    /// interpolation, which adds no detail. By default 1, and 4 for the built-in model.
    #[arg(long, value_name = "N", value_parser = option_values::scale, allow_negative_numbers = true)]
    pub(super) scale: Option<usize>,

    /// Denoise in overlapping windows, for images larger than the model was trained on.
    ///
    /// Without this, large images tend to repeat the subject. Windows have the size that the model was trained on,
    /// or the given number of pixels, and overlap by half.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, require_equals = true, value_parser = option_values::side, hide_short_help = true)]
    pub(super) panorama: Option<Option<usize>>,

    /// Decode in overlapping tiles, which limits memory.
    ///
    /// Tiles have the size that the model was trained on, or the given number of pixels.
    #[arg(long, value_name = "PIXELS", num_args = 0..=1, require_equals = true, value_parser = option_values::side, hide_short_help = true)]
    pub(super) vae_tiling: Option<Option<usize>>,

    /// Keep each part of the model in memory only while it is in use.
    ///
    /// Takes a few seconds longer, and the memory of the largest part instead of all of them.
    #[arg(long, hide_short_help = true)]
    pub(super) low_memory: bool,

    /// Switch off the safety checker.
    ///
    /// Published models come with one, which makes flagged images black.
    #[arg(long, hide_short_help = true)]
    pub(super) no_safety_checker: bool,

    /// Write all images into one file, with a row and a caption for each of several prompts.
    #[arg(long, hide_short_help = true)]
    pub(super) grid: bool,

    /// Draw as this image was drawn, except for what else is given.
    ///
    /// Images of this program record everything; those of stable-diffusion-webui, Forge and stable-diffusion.cpp
    /// are followed as far as possible, and the rest is named. Reads the text chunk of a .png, the EXIF data of a
    /// .jpg or .webp, or a .txt. Files that the record names, such as a LoRA, are looked for here and beside the
    /// image. Defaults from the configuration file and ALTDIFFUSION_MODEL are ignored.
    #[arg(long, value_name = "FILE")]
    pub(super) like: Option<PathBuf>,

    /// What to ignore in the record of --like: names of options, such as lora,grid.
    #[arg(long, value_name = "OPTION,…", value_delimiter = ',', value_parser = option_name, requires = "like", hide_short_help = true)]
    pub(super) leave_out: Vec<String>,

    /// Write the steps from noise to image as an animated .gif.
    ///
    /// Steps are shown from their latents without the decoder, which costs nothing; the last as it is.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(super) save_steps: Option<PathBuf>,

    /// Do not record generation parameters in the image.
    ///
    /// The record holds the prompt, the seed and everything else that the pixels depend on, for --like and for web
    /// interfaces: in a text chunk `parameters` of a .png, in the EXIF data of a .jpg or .webp. Files are recorded
    /// by name and hash, without the directories above the current one.
    #[arg(long, hide_short_help = true)]
    pub(super) no_parameters: bool,

    /// Do not show the image in the terminal.
    #[arg(long, hide_short_help = true)]
    pub(super) no_preview: bool,

    /// Print a line of JSON per image: path, width, height, seed, number, seconds and parameters.
    #[arg(long, hide_short_help = true)]
    pub(super) json: bool,

    /// Start from the noise in this safetensors file instead of a seed.
    ///
    /// It holds one f32 tensor `latents` of standard normal numbers (images, channels, height, width), whose sides
    /// are those of the image divided by the autoencoder's factor: 8 for published models. It sets the number and
    /// the size of the images.
    #[arg(long, value_name = "FILE", help_heading = "Latents and timings", hide_short_help = true)]
    pub(super) initial_latents: Option<PathBuf>,

    /// Write the final latents, before decoding, in the same format.
    #[arg(long, value_name = "FILE", help_heading = "Latents and timings", hide_short_help = true)]
    pub(super) save_latents: Option<PathBuf>,

    /// Write timings to a JSON file, in seconds.
    ///
    /// `load_s` for the model, `text_s` for the prompts, `steps_s` for each step of each image, `decode_s` from
    /// latents to pixels, and `total_s` until the images are written.
    #[arg(long, value_name = "FILE", help_heading = "Latents and timings", hide_short_help = true)]
    pub(super) timings: Option<PathBuf>,

    #[command(flatten)]
    pub(super) from_image: FromImage,

    #[command(flatten)]
    pub(super) followed: ControlImages,

    #[command(flatten)]
    pub(super) image_prompts: ImagePrompts,

    #[command(flatten)]
    pub(super) reading: ImageArgs,

    #[command(flatten)]
    pub(super) sampling: Sampling,

    #[command(flatten)]
    pub(super) adapters: Adapters,

    #[command(flatten)]
    pub(super) model: ModelArgs,
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

  The subject of an image, in a garden:
      altdiffusion generate 在花园里 --ip-adapter h94/IP-Adapter --ip-image statue.jpg --ip-scale 0.6 \\
          --model BAAI/AltDiffusion-m9

  Every line of a file, in cats/0001.png and so on; and an image through a pipe:
      altdiffusion generate --prompts cats.txt --output cats
      echo 一只猫 | altdiffusion generate - --output - | convert - cat.gif

  A published model, downloaded on first use, on a GPU:
      altdiffusion generate 一只戴帽子的小狗 --model BAAI/AltDiffusion-m9 --negative-prompt 模糊 \\
          --width 512 --height 512 --device cuda --dtype f16";

/// The command with options only, ignoring environment variables.
pub fn option_command() -> Command {
    let options = Generate::augment_args(Command::new("generate"));
    options.no_binary_name(true).mut_args(|option| option.env(None::<&'static str>))
}

pub(super) fn matches(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    option_command().try_get_matches_from(arguments)
}

/// Parses arguments, or says in one line why they are invalid.
pub fn parse_options(arguments: &[OsString]) -> Result<Generate, String> {
    let parsed = matches(arguments).and_then(|matches| Generate::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let line = error.to_string();
        line.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// An option's name, without its dashes.
pub fn option_name(text: &str) -> Result<String, String> {
    let name = text.trim().trim_start_matches('-');
    let is_known = option_command().get_arguments().any(|argument| argument.get_long() == Some(name));
    if is_known {
        Ok(name.to_owned())
    } else {
        Err("expected names of options, such as lora,grid".to_owned())
    }
}
