//! Parses the options for image prompts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::ip_adapter::{ImageEncoder, ImagePrompt, IpAdapter};
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use anyhow::{Context, Result, bail, ensure};
use candle_core::DType;
use clap::Args;
use image::RgbImage;
use model_files::source::ModelSource;

use crate::image_args::ImageReader;
use crate::option_values;
use crate::progress::announce;
use crate::recorded::{add_file, recorded_source};

/// The default adapter of a repository, with the encoder beside it, as in h94/IP-Adapter.
const ADAPTER: &str = "models/ip-adapter_sd15.safetensors";
const ENCODER: &str = "models/image_encoder";

/// The folder of the encoder beside a single adapter file.
const ENCODER_BESIDE: &str = "image_encoder";

/// A loaded adapter with its encoder, if there is one.
pub type LoadedAdapter = Option<(Arc<IpAdapter>, Arc<ImageEncoder>)>;

/// The options for image prompts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "IP-Adapter")]
pub struct ImagePrompts {
    /// An IP-Adapter: use --ip-image as a prompt, together with the text.
    ///
    /// A file, .safetensors or .bin; or a repository such as h94/IP-Adapter, followed by the file's path if it is
    /// not models/ip-adapter_sd15.safetensors. Adapters for Stable Diffusion 1 fit AltDiffusion and
    /// AltDiffusion-m9.
    #[arg(long, value_name = "FILE_OR_HUB_ID", hide_short_help = true)]
    ip_adapter: Option<String>,

    /// An image to use as a prompt. Repeat the option for several.
    #[arg(long, alias = "ip-adapter-image", value_name = "FILE", hide_short_help = true)]
    ip_image: Vec<PathBuf>,

    /// Weight of the images relative to the text. By default 1; about 0.5 leaves room for the text.
    #[arg(long, alias = "ip-adapter-scale", value_name = "X", value_parser = option_values::finite, allow_negative_numbers = true, hide_short_help = true)]
    ip_scale: Option<f64>,

    /// The image encoder that the adapter was trained with: a directory, or a repository followed by the folder.
    ///
    /// By default the folder image_encoder beside the adapter.
    #[arg(long, value_name = "DIR_OR_HUB_ID", hide_short_help = true)]
    ip_encoder: Option<String>,
}

impl ImagePrompts {
    /// Reads the images.
    ///
    /// # Errors
    /// If there is an adapter without an image or an option without an adapter, or a file is not an image.
    pub fn read(&self, reader: &ImageReader<'_>) -> Result<Vec<RgbImage>> {
        for (option, is_given) in [
            ("--ip-image", !self.ip_image.is_empty()),
            ("--ip-scale", self.ip_scale.is_some()),
            ("--ip-encoder", self.ip_encoder.is_some()),
        ] {
            ensure!(
                self.ip_adapter.is_some() || !is_given,
                "{option}: expected an --ip-adapter that it is for"
            );
        }
        ensure!(
            self.ip_adapter.is_none() || !self.ip_image.is_empty(),
            "--ip-adapter: expected an --ip-image that says what to draw"
        );
        let read = |path: &PathBuf| reader.read("--ip-image", path);
        self.ip_image.iter().map(read).collect()
    }

    /// Adds the image prompt to `options`. Adapter and encoder are loaded if necessary, for `pipeline`, to compute in
    /// `dtype`.
    ///
    /// # Errors
    /// If one of them cannot be loaded, or does not fit the model or the other.
    pub fn apply(
        &self,
        options: GenerateOptions,
        images: Vec<RgbImage>,
        pipeline: &AltDiffusion,
        dtype: DType,
        loaded: &mut LoadedAdapter,
    ) -> Result<GenerateOptions> {
        let Some(name) = &self.ip_adapter else { return Ok(options) };
        let (adapter, encoder) = match loaded {
            Some(loaded) => loaded.clone(),
            None => loaded.insert(self.load(name, pipeline, dtype)?).clone(),
        };
        let prompt = ImagePrompt::new(adapter, encoder, images);
        Ok(options.image_prompt(prompt.scale(self.scale())))
    }

    fn load(
        &self,
        name: &str,
        pipeline: &AltDiffusion,
        dtype: DType,
    ) -> Result<(Arc<IpAdapter>, Arc<ImageEncoder>)> {
        let (unet, device) = (&*pipeline.unet()?, pipeline.device());
        let file = Path::new(name);
        announce(&format!("Loading {name}"));
        let (adapter, beside) = match file.is_file() {
            true => {
                let folder = file.parent().unwrap_or(Path::new("")).join(ENCODER_BESIDE);
                let beside = folder.is_dir().then(|| (ModelSource::directory(folder), String::new()));
                (IpAdapter::from_file(file, unet, dtype, device), beside)
            }
            false => {
                let (source, relative) = source_and_path(name).context("--ip-adapter")?;
                let relative = if relative.is_empty() { ADAPTER } else { &relative };
                let adapter = IpAdapter::from_source(&source, relative, unet, dtype, device);
                (adapter, Some((source, ENCODER.to_owned())))
            }
        };
        let adapter = adapter.with_context(|| format!("--ip-adapter {name}"))?;

        let named = self.ip_encoder.as_deref().map(source_and_path).transpose().context("--ip-encoder")?;
        let Some((source, folder)) = named.or(beside) else {
            bail!(
                "--ip-adapter {name}: there is no folder {ENCODER_BESIDE} beside it, name the image encoder with --ip-encoder \
                 DIR_OR_HUB_ID, such as --ip-encoder h94/IP-Adapter/{ENCODER}"
            );
        };
        let encoder = ImageEncoder::from_source(&source, &folder, dtype, device).context("--ip-encoder")?;
        adapter.check_encoder(&encoder).context("--ip-encoder")?;
        Ok((Arc::new(adapter), Arc::new(encoder)))
    }

    /// Records the image prompt like web interfaces, which treat an IP-Adapter as a ControlNet.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn record(&self) -> Result<Option<ParameterFields>> {
        let Self { ip_adapter, ip_image, ip_scale: _, ip_encoder } = self;
        let Some(name) = ip_adapter else { return Ok(None) };
        let mut fields = ParameterFields::default();
        fields.add("Module", "ip-adapter-auto");
        fields.add("Model", recorded_source(name));
        fields.add("Weight", self.scale());
        fields.add_some("Encoder", ip_encoder.as_deref().map(recorded_source));
        for (number, image) in ip_image.iter().enumerate() {
            add_file(&mut fields, &format!("Image {number}"), image)?;
        }
        Ok(Some(fields))
    }

    /// These options, with those of an image as the default.
    pub fn or(self, image: Self) -> Self {
        let is_own = self.ip_adapter.is_some();
        Self {
            ip_adapter: self.ip_adapter.or(image.ip_adapter),
            ip_image: if self.ip_image.is_empty() { image.ip_image } else { self.ip_image },
            ip_scale: self.ip_scale.or(image.ip_scale),
            ip_encoder: self.ip_encoder.or(image.ip_encoder.filter(|_| !is_own)),
        }
    }

    /// Whether an option with a file is given.
    pub fn has(&self, option: &str) -> bool {
        match option {
            "ip-adapter" => self.ip_adapter.is_some(),
            "ip-image" => !self.ip_image.is_empty(),
            "ip-encoder" => self.ip_encoder.is_some() || self.ip_adapter.is_some(),
            _ => false,
        }
    }

    fn scale(&self) -> f64 {
        self.ip_scale.unwrap_or(1.0)
    }
}

/// Splits `org/name/path` into a directory or repository and a path in it.
fn source_and_path(name: &str) -> Result<(ModelSource, String)> {
    if Path::new(name).is_dir() {
        return Ok((ModelSource::directory(name), String::new()));
    }
    let mut parts = name.splitn(3, '/');
    let (organisation, repository) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let source = ModelSource::open(&format!("{organisation}/{repository}"))?;
    Ok((source, parts.next().unwrap_or("").to_owned()))
}
