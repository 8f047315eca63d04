//! Parses the options for ControlNets and the images they follow.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use altdiffusion_pipeline::controlnet::ControlNetModel;
use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::{AltDiffusion, Control, GenerateOptions};
use anyhow::{Context, Result, ensure};
use candle_core::DType;
use clap::Args;
use image::RgbImage;

use crate::image_args::ImageReader;
use crate::option_values;
use crate::progress::announce;
use crate::recorded::{add_file, recorded_source};

/// ControlNets by name: one may follow several images, in several drawings.
pub type LoadedNets = HashMap<String, Arc<ControlNetModel>>;

/// The options for images to follow.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ControlNet")]
pub struct ControlImages {
    /// A ControlNet: follow the --control-image. Repeat both options for several.
    ///
    /// A directory or a repository with config.json and weights, such as lllyasviel/control_v11p_sd15_canny; or one
    /// file, .safetensors or .pth, whose weights may be differences from the model's. It must belong to the model's
    /// family: those of Stable Diffusion 1 fit AltDiffusion and AltDiffusion-m9, those of Stable Diffusion 2 fit
    /// AltDiffusion-m18.
    #[arg(long, alias = "control-net", value_name = "DIR_OR_HUB_ID_OR_FILE", hide_short_help = true)]
    controlnet: Vec<String>,

    /// The image to follow, one per --controlnet: edges, depth, a pose.
    ///
    /// This is the finished map; the program does not compute edges or depth from a photo. It must have the size of
    /// the output, and sets that size where neither --width and --height nor --image do.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    control_image: Vec<PathBuf>,

    /// How closely to follow it: 1 as the ControlNet was trained, 0 not at all. One number for all, or one each.
    #[arg(
        long,
        aliases = ["control-strength", "controlnet-conditioning-scale"],
        value_name = "X",
        value_parser = option_values::finite,
        allow_negative_numbers = true, hide_short_help = true)]
    control_scale: Vec<f64>,

    /// Share of the steps after which to start following, from 0 to 1. One number for all, or one each.
    #[arg(
        long,
        alias = "control-guidance-start",
        value_name = "X",
        value_parser = option_values::part,
        allow_negative_numbers = true, hide_short_help = true)]
    control_start: Vec<f64>,

    /// Share of the steps after which to stop following, from 0 to 1. One number for all, or one each.
    #[arg(
        long,
        alias = "control-guidance-end",
        value_name = "X",
        value_parser = option_values::part,
        allow_negative_numbers = true, hide_short_help = true)]
    control_end: Vec<f64>,

    /// Follow the images more than the prompt, which may then be empty. Use a --guidance-scale of 3 to 5.
    #[arg(long, hide_short_help = true)]
    guess_mode: bool,
}

impl ControlImages {
    /// Reads the images.
    ///
    /// # Errors
    /// If the number of values does not match that of ControlNets, or a file is not an image.
    pub fn read(&self, reader: &ImageReader<'_>) -> Result<Vec<RgbImage>> {
        let (nets, images) = (self.controlnet.len(), self.control_image.len());
        let numbers = [
            ("--control-scale", self.control_scale.len()),
            ("--control-start", self.control_start.len()),
            ("--control-end", self.control_end.len()),
        ];
        let others = [("--control-image", images), ("--guess-mode", usize::from(self.guess_mode))];
        for (option, count) in numbers.into_iter().chain(others) {
            ensure!(nets > 0 || count == 0, "{option}: expected a --controlnet that it is for");
        }
        ensure!(
            images == nets,
            "--control-image: expected as many as there are --controlnet, {nets}, found {images}"
        );
        for (option, count) in numbers {
            ensure!(
                count <= 1 || count == nets,
                "{option}: expected one, or as many as there are --controlnet, {nets}, found {count}"
            );
        }
        let read = |path: &PathBuf| reader.read("--control-image", path);
        self.control_image.iter().map(read).collect()
    }

    /// Adds the ControlNets to `options`. Those not in `nets` yet are loaded for `pipeline`, to compute in `dtype`.
    ///
    /// # Errors
    /// If a ControlNet cannot be loaded, or does not fit the model.
    pub fn apply(
        &self,
        mut options: GenerateOptions,
        images: Vec<RgbImage>,
        pipeline: &AltDiffusion,
        dtype: DType,
        nets: &mut LoadedNets,
    ) -> Result<GenerateOptions> {
        for (place, (name, image)) in self.controlnet.iter().zip(images).enumerate() {
            let net = match nets.get(name) {
                Some(net) => net.clone(),
                None => {
                    announce(&format!("Loading {name}"));
                    let net = pipeline.load_controlnet(name, dtype);
                    let net = net.with_context(|| format!("--controlnet {name}"))?;
                    nets.entry(name.clone()).or_insert(Arc::new(net)).clone()
                }
            };
            let Strength { scale, start, end } = self.strength(place);
            options = options.control(Control::new(net, image).scale(scale).start(start).end(end));
        }
        Ok(options.guess_mode(self.guess_mode))
    }

    /// Records each ControlNet and its image, like web interfaces.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn record(&self) -> Result<Vec<ParameterFields>> {
        let Self {
            controlnet,
            control_image,
            // Recorded by `strength`.
            control_scale: _,
            control_start: _,
            control_end: _,
            guess_mode,
        } = self;
        let mode = if *guess_mode { "ControlNet is more important" } else { "Balanced" };
        let describe = |(place, (name, image)): (usize, (&String, &PathBuf))| -> Result<ParameterFields> {
            let Strength { scale, start, end } = self.strength(place);
            let mut fields = ParameterFields::default();
            fields.add("Module", "none");
            fields.add("Model", recorded_source(name));
            fields.add("Weight", scale);
            fields.add("Guidance Start", start);
            fields.add("Guidance End", end);
            fields.add("Control Mode", mode);
            add_file(&mut fields, "Image", image)?;
            Ok(fields)
        };
        controlnet.iter().zip(control_image).enumerate().map(describe).collect()
    }

    /// These options, with those of an image as the default.
    pub fn or(self, image: Self) -> Self {
        let is_own = !self.controlnet.is_empty();
        let or = |own: Vec<f64>, image: Vec<f64>| if own.is_empty() && !is_own { image } else { own };
        Self {
            controlnet: if is_own { self.controlnet } else { image.controlnet },
            control_image: match self.control_image.is_empty() {
                true => image.control_image,
                false => self.control_image,
            },
            control_scale: or(self.control_scale, image.control_scale),
            control_start: or(self.control_start, image.control_start),
            control_end: or(self.control_end, image.control_end),
            guess_mode: self.guess_mode || (image.guess_mode && !is_own),
        }
    }

    /// Whether an option with a file is given.
    pub fn has(&self, option: &str) -> bool {
        match option {
            "controlnet" => !self.controlnet.is_empty(),
            "control-image" => !self.control_image.is_empty(),
            _ => false,
        }
    }

    /// The strength of the image at a position: one number for all, or one for each.
    fn strength(&self, place: usize) -> Strength {
        let of_place = |values: &[f64]| values.get(place).or(values.first()).copied();
        Strength {
            scale: of_place(&self.control_scale).unwrap_or(1.0),
            start: of_place(&self.control_start).unwrap_or(0.0),
            end: of_place(&self.control_end).unwrap_or(1.0),
        }
    }
}

/// How closely an image is followed, and in which part of the steps.
struct Strength {
    scale: f64,
    start: f64,
    end: f64,
}
