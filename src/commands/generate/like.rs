//! Reads from an image how it was drawn, as options.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use altdiffusion_pipeline::random::Rng;
use altdiffusion_pipeline::schedulers::SigmaSpacing;
use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Generate;
use crate::image_text;
use crate::infotext::{Fields, Infotext};
use crate::option_values;
use crate::output::printable;
use crate::progress::warn;
use crate::recorded::{digest, recorded_name};

/// Endings of files with weights, which no repository on the hub has.
const WEIGHTS: [&str; 7] = ["safetensors", "gguf", "ckpt", "pt", "pth", "bin", "json"];

/// Fields that have a meaning for the reader alone.
const SILENT: [&str; 6] = ["Version", "Device", "Model hash", "Lora hashes", "TI hashes", "User"];

/// Those with which other programs number images whose seeds they tell as well.
const BATCH: [&str; 2] = ["Batch size", "Batch pos"];

/// Fields that are not used and yet named.
const MOST_NAMED: usize = 12;

/// Our fields that are options with the same value.
const VALUES: [(&str, &str); 10] = [
    ("CFG scale", "guidance-scale"),
    ("Eta", "eta"),
    ("Guidance rescale", "guidance-rescale"),
    ("Timestep spacing", "timestep-spacing"),
    ("Timesteps", "timesteps"),
    ("Sigmas", "sigmas"),
    ("Background", "background"),
    ("Revision", "revision"),
    ("Variant", "variant"),
    ("Dtype", "dtype"),
];

/// Our fields that say that an option is given, with the value in which it is.
const FLAGS: [(&str, &str, &str); 4] = [
    ("Prompt weights", "True", "prompt-weights"),
    ("Grid", "True", "grid"),
    ("LoRA UNet only", "True", "lora-unet-only"),
    ("Safety checker", "False", "no-safety-checker"),
];

/// The options of the image at `--like`, where the command line has none.
///
/// # Errors
/// When the image does not say how it was drawn, or names a file that is not here.
pub fn with_those_of_an_image(options: Generate) -> Result<(Generate, Option<ModelHash>)> {
    let Some(path) = options.like.clone() else { return Ok((options, None)) };
    let info = Infotext::parse(&image_text::read(&path).context("--like")?);
    let model_hash = info.fields.get("Model hash").filter(|_| !options.has("model"));
    let model_hash = model_hash.map(|hash| ModelHash { hash: hash.to_owned(), image: path.clone() });
    let mut found = Found::new(&path, &options);
    found.read(info)?;
    let Found { arguments, unused, changed, .. } = found;
    let image = parse(arguments).context("--like")?;
    changed.iter().for_each(|warning| warn(warning));
    if !unused.is_empty() {
        let more = match unused.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            Some(more) => format!(" and {more} more"),
            None => String::new(),
        };
        let named: Vec<&str> = unused.iter().take(MOST_NAMED).map(String::as_str).collect();
        warn(&format!("--like {}: not used: {}{more}", path.display(), named.join(", ")));
    }
    Ok((options.or(image), model_hash))
}

/// The model that an image was drawn with, where it has to be that.
pub struct ModelHash {
    hash: String,
    image: PathBuf,
}

impl ModelHash {
    /// Warns if the model is another one.
    pub fn check(&self, found: &str) {
        let Self { hash, image } = self;
        if hash != found {
            warn(&format!(
                "--like {}: was drawn with another model, whose hash is {hash}; this one's is {found}, so that another \
                 image comes out",
                image.display()
            ));
        }
    }
}

/// The options alone, without what variables say of them.
fn command() -> Command {
    let options = Generate::augment_args(Command::new("generate"));
    options.no_binary_name(true).mut_args(|option| option.env(None::<&'static str>))
}

fn matches(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command().try_get_matches_from(arguments)
}

fn parse(arguments: Vec<OsString>) -> Result<Generate> {
    let parsed = matches(&arguments).and_then(|matches| Generate::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let line = error.to_string();
        let line = line.lines().next().unwrap_or_default();
        anyhow::anyhow!("what the image says cannot be: {}", line.trim_start_matches("error: "))
    })
}

/// An option's name, without its dashes.
pub fn option_name(text: &str) -> Result<String, String> {
    let name = text.trim().trim_start_matches('-');
    let is_known = command().get_arguments().any(|argument| argument.get_long() == Some(name));
    if is_known {
        Ok(name.to_owned())
    } else {
        Err("expected names of options, such as lora,grid".to_owned())
    }
}

/// What was found in an image.
struct Found<'a> {
    path: &'a Path,
    options: &'a Generate,
    arguments: Vec<OsString>,
    unused: Vec<String>,
    /// Warnings of files that are not what they were.
    changed: Vec<String>,
}

impl<'a> Found<'a> {
    fn new(path: &'a Path, options: &'a Generate) -> Self {
        Self { path, options, arguments: Vec::new(), unused: Vec::new(), changed: Vec::new() }
    }

    fn is_wanted(&self, option: &str) -> bool {
        !self.options.leave_out.iter().any(|left_out| left_out == option)
    }

    /// An option with a value, which it may be that the option cannot have.
    fn value(&mut self, field: &str, option: &str, value: &str) {
        let argument = OsString::from(format!("--{option}={value}"));
        // Instead of a prompt, which is required.
        if let Err(error) = matches(&["--like=-".into(), argument.clone()])
            && matches!(
                error.kind(),
                clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue
            )
        {
            return self.not_used(field, value);
        }
        if self.is_wanted(option) {
            self.arguments.push(argument);
        }
    }

    fn flag(&mut self, option: &str) {
        if self.is_wanted(option) {
            self.arguments.push(format!("--{option}").into());
        }
    }

    fn not_used(&mut self, field: &str, value: &str) {
        const LONGEST: usize = 60;
        let mut value: String = value.to_owned();
        if value.chars().count() > LONGEST {
            value = value.chars().take(LONGEST).chain(['…']).collect();
        }
        self.unused.push(printable(&format!("{field}: {value}")));
    }

    fn read(&mut self, info: Infotext) -> Result<()> {
        let Infotext { mut prompt, negative_prompt, mut fields } = info;
        let is_ours = fields.get("Version").is_some_and(|version| version.starts_with("altdiffusion"));
        let mut prompts = vec![];
        if is_ours {
            if let Some(list) = fields.take("Prompts") {
                prompts = serde_json::from_str(&list).context("its field Prompts")?;
            }
            self.read_ours(&mut fields, prompts.len().max(1))?;
        } else {
            prompt = self.read_networks(&prompt);
            self.read_theirs(&mut fields);
        }
        self.read_common(&mut fields, is_ours);
        for (name, value) in fields.iter() {
            if !SILENT.contains(&name) && (is_ours || !BATCH.contains(&name)) {
                self.not_used(name, value);
            }
        }
        if !negative_prompt.is_empty() {
            self.value("Negative prompt", "negative-prompt", &negative_prompt);
        }
        if prompts.is_empty() {
            prompts.push(prompt);
        }
        self.arguments.push("--".into());
        self.arguments.extend(prompts.into_iter().map(OsString::from));
        Ok(())
    }

    /// What our images and those of others say in the same words.
    fn read_common(&mut self, fields: &mut Fields, is_ours: bool) {
        let has_list = fields.get("Timesteps").or(fields.get("Sigmas")).is_some();
        if let Some(steps) = fields.take("Steps")
            && !has_list
        {
            self.value("Steps", "steps", &steps);
        }
        if let Some(seed) = fields.take("Seed") {
            self.value("Seed", "seed", &seed);
        }
        if let Some(size) = fields.take("Size") {
            match size.split_once('x') {
                Some((width, height)) => {
                    self.value("Size", "width", width);
                    self.value("Size", "height", height);
                }
                None => self.not_used("Size", &size),
            }
        }
        if let Some(skip) = fields.take("Clip skip") {
            match skip.parse::<usize>().ok().and_then(|skip| skip.checked_sub(1)) {
                Some(skip) => self.value("Clip skip", "clip-skip", &skip.to_string()),
                None => self.not_used("Clip skip", &skip),
            }
        }
        if let Some(strength) = fields.take("Denoising strength") {
            // Others say it without the image that it is of.
            match is_ours || self.options.from_image.has_image() {
                true => self.value("Denoising strength", "strength", &strength),
                false => self.not_used("Denoising strength", &strength),
            }
        }
        if let Some(rng) = fields.take("RNG") {
            self.value("RNG", "rng", &rng);
        }
        for (field, option) in VALUES {
            if let Some(value) = fields.take(field) {
                self.value(field, option, &value);
            }
        }
    }

    fn read_ours(&mut self, fields: &mut Fields, prompts: usize) -> Result<()> {
        let sampler = fields.take("Sampler");
        let is_models = fields.take("Scheduler").is_some_and(|from| from == "of the model");
        if let Some(sampler) = sampler.filter(|_| !is_models) {
            self.value("Sampler", "scheduler", &sampler);
        }
        if let Some(spacing) = fields.take("Schedule type") {
            self.value("Schedule type", "sigma-spacing", &spacing.to_lowercase());
        }
        for (field, on, option) in FLAGS {
            if let Some(value) = fields.take(field) {
                match value == on {
                    true => self.flag(option),
                    false => self.not_used(field, &value),
                }
            }
        }
        if let Some(seeds) = fields.take("Seeds") {
            self.value("Seeds", "seeds", &seeds);
        }
        let position = fields.take("Batch pos").map(|position| position.parse::<usize>());
        if let Some(size) = fields.take("Batch size") {
            let each = size.parse::<usize>().map_or(size.clone(), |size| (size / prompts).to_string());
            self.value("Batch size", "num-images", &each);
            if let Some(Ok(position)) = position {
                self.value("Batch pos", "only", &position.saturating_add(1).to_string());
            }
        }
        for (field, option) in [("Panorama", "panorama"), ("VAE tiling", "vae-tiling")] {
            match fields.take(field) {
                Some(value) if value == "True" => self.flag(option),
                Some(value) => self.value(field, option, &value),
                None => {}
            }
        }
        for (field, option) in [("Image", "image"), ("Mask", "mask"), ("Initial latents", "initial-latents")]
        {
            if let Some(path) = self.file(fields, field, option)? {
                self.push_path(option, &path);
            }
        }
        if let Some(name) = fields.take("Model")
            && name != crate::shipped::NAME
        {
            let path = self.source("model", &name)?;
            self.push_path("model", &path);
        }
        if let Some(name) = fields.take("Config") {
            let path = self.source("config", &name)?;
            self.push_path("config", &path);
        }
        self.read_adapters(fields)?;
        let units: Vec<String> = fields.iter().map(|(name, _)| name.to_owned()).collect();
        for unit in units.iter().filter(|name| name.starts_with("ControlNet ")) {
            let Some(value) = fields.take(unit) else { continue };
            self.read_unit(unit, Fields::parse(&value))?;
        }
        Ok(())
    }

    fn push_path(&mut self, option: &str, path: &Path) {
        if self.is_wanted(option) {
            let mut argument = OsString::from(format!("--{option}="));
            argument.push(path);
            self.arguments.push(argument);
        }
    }

    fn read_adapters(&mut self, fields: &mut Fields) -> Result<()> {
        let names: Vec<String> = fields.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let (option, after) = if name.starts_with("LoRA ") && name != "LoRA UNet only" {
                ("lora", "Weight")
            } else if name.starts_with("Embedding ") {
                ("embedding", "Word")
            } else {
                continue;
            };
            let Some(value) = fields.take(&name) else { continue };
            let mut adapter = Fields::parse(&value);
            let Some(file) = adapter.take("Model") else {
                self.not_used(&name, &value);
                continue;
            };
            let Some(path) = self.named(&mut adapter, &file, option)? else { continue };
            let mut given = path.into_os_string();
            if let Some(after) = adapter.take(after) {
                given.push(format!(":{after}"));
            }
            self.push_path(option, Path::new(&given));
        }
        Ok(())
    }

    /// One of the images that were followed or were prompts, in the words of the ControlNet extension.
    fn read_unit(&mut self, unit: &str, mut fields: Fields) -> Result<()> {
        let (Some(module), Some(model)) = (fields.take("Module"), fields.take("Model")) else {
            self.not_used(unit, &fields.to_text());
            return Ok(());
        };
        let weight = fields.take("Weight");
        if module == "ip-adapter-auto" {
            let path = self.source("ip-adapter", &model)?;
            self.push_path("ip-adapter", &path);
            if let Some(weight) = weight {
                self.value(unit, "ip-scale", &weight);
            }
            if let Some(encoder) = fields.take("Encoder") {
                let path = self.source("ip-encoder", &encoder)?;
                self.push_path("ip-encoder", &path);
            }
            for number in 0.. {
                let Some(path) = self.file(&mut fields, &format!("Image {number}"), "ip-image")? else {
                    break;
                };
                self.push_path("ip-image", &path);
            }
            return Ok(());
        }
        let path = self.source("controlnet", &model)?;
        self.push_path("controlnet", &path);
        if let Some(path) = self.file(&mut fields, "Image", "control-image")? {
            self.push_path("control-image", &path);
        }
        for (field, option, value) in [
            ("Weight", "control-scale", weight),
            ("Guidance Start", "control-start", fields.take("Guidance Start")),
            ("Guidance End", "control-end", fields.take("Guidance End")),
        ] {
            if let Some(value) = value {
                self.value(&format!("{unit}: {field}"), option, &value);
            }
        }
        let guesses = fields.take("Control Mode").is_some_and(|mode| mode == "ControlNet is more important");
        if guesses && !self.arguments.iter().any(|argument| argument == "--guess-mode") {
            self.flag("guess-mode");
        }
        Ok(())
    }

    /// The file that a field names, if it does, with the hash beside it. It is looked for only where it is used.
    fn file(&mut self, fields: &mut Fields, field: &str, option: &str) -> Result<Option<PathBuf>> {
        let (name, hash) = (fields.take(field), fields.take(&format!("{field} hash")));
        let Some(name) = name.filter(|_| self.is_wanted(option) && !self.options.has(option)) else {
            return Ok(None);
        };
        let candidates = self.places(&name);
        let is_same = |path: &&PathBuf| hash.is_none() || digest(path).ok() == hash;
        if let Some(same) = candidates.iter().find(is_same) {
            return Ok(Some(same.clone()));
        }
        let Some(other) = candidates.into_iter().next() else { bail!(self.missing(option, &name)) };
        self.warn_changed(option, &other);
        Ok(Some(other))
    }

    /// An adapter: a file with a short hash, a directory, or a repository.
    fn named(&mut self, fields: &mut Fields, name: &str, option: &str) -> Result<Option<PathBuf>> {
        let hash = fields.take("Hash");
        if !self.is_wanted(option) || self.options.has(option) {
            return Ok(None);
        }
        let candidates = self.places(name);
        let is_same = |path: &&PathBuf| hash.is_none() || super::adapters::short_hash(path).ok() == hash;
        if let Some(same) = candidates.iter().find(is_same) {
            return Ok(Some(same.clone()));
        }
        match candidates.into_iter().next() {
            Some(other) => {
                self.warn_changed(option, &other);
                Ok(Some(other))
            }
            None => self.source(option, name).map(Some),
        }
    }

    /// Something that is a file, a directory, or a repository on the hub.
    fn source(&self, option: &str, name: &str) -> Result<PathBuf> {
        if !self.is_wanted(option) || self.options.has(option) {
            return Ok(PathBuf::from(name));
        }
        if let Some(path) = self.places(name).into_iter().next() {
            return Ok(path);
        }
        let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let is_weights = ending.is_some_and(|ending| WEIGHTS.contains(&&*ending));
        let is_repository = name.contains('/') && !Path::new(name).is_absolute() && !name.contains("..");
        if is_repository && (!is_weights || name.matches('/').count() > 1) {
            return Ok(PathBuf::from(name));
        }
        bail!(self.missing(option, name))
    }

    /// Where something of this name is: as it was given then, or beside the image. What strangers wrote leads nowhere else.
    fn places(&self, name: &str) -> Vec<PathBuf> {
        let beside = self.path.parent().unwrap_or(Path::new(""));
        let is_below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let alone = recorded_name(Path::new(Path::new(name).file_name().unwrap_or_default()));
        let names = [Some(name.to_owned()).filter(|_| is_below), Some(alone)];
        let mut places = Vec::new();
        for name in names.into_iter().flatten().filter(|name| !name.is_empty()) {
            places
                .extend([PathBuf::from(&name), beside.join(&name)].into_iter().filter(|path| path.exists()));
        }
        places
    }

    fn missing(&self, option: &str, name: &str) -> String {
        format!(
            "--like {}: drawn with --{option} {name}, which is neither here nor beside it; say where it is with --{option}, \
             or leave it out with --leave-out {option}",
            self.path.display()
        )
    }

    fn warn_changed(&mut self, option: &str, found: &Path) {
        self.changed.push(format!(
            "--{option} {}: is not the file that {} was drawn with, so that another image comes out",
            found.display(),
            self.path.display()
        ));
    }

    /// What stable-diffusion-webui, Forge and stable-diffusion.cpp say in their own words.
    fn read_theirs(&mut self, fields: &mut Fields) {
        // They read weights where nobody asks for it.
        self.flag("prompt-weights");
        // Web interfaces say whose noise it is where it is not a card's own.
        let is_web_interface = fields.get("Version").is_none_or(|version| !version.contains("cpp"));
        if is_web_interface && fields.get("RNG").is_none() {
            self.flag(&format!("rng={}", Rng::Cuda));
        }
        let schedule = fields.take("Schedule type");
        if let Some(sampler) = fields.take("Sampler") {
            let spacing = match schedule.as_deref() {
                None | Some("Uniform" | "Normal") => String::new(),
                // What the sampler was published with.
                Some("Automatic") => match sampler.as_str() {
                    "DPM++ 2M" => format!(" {}", SigmaSpacing::Karras),
                    "DPM++ 2M SDE" => format!(" {}", SigmaSpacing::Exponential),
                    _ => String::new(),
                },
                Some(schedule) => format!(" {schedule}"),
            };
            match option_values::sampler(&format!("{sampler}{spacing}")) {
                Ok(_) => self.value("Sampler", "scheduler", &format!("{sampler}{spacing}")),
                Err(_) => {
                    self.value("Sampler", "scheduler", &sampler);
                    self.not_used("Schedule type", schedule.as_deref().unwrap_or_default());
                }
            }
        }
        if let Some(model) = fields.take("Model") {
            self.not_used("Model", &model);
        }
        // Theirs is of all samplers, ours of one.
        if let Some(eta) = fields.take("Eta").filter(|eta| eta.parse::<f64>().is_ok_and(|eta| eta != 0.0)) {
            self.not_used("Eta", &eta);
        }
        if let Some(cfg) = fields.take("CFG scale") {
            self.value("CFG scale", "guidance-scale", &cfg);
        }
    }

    /// The prompt without the tags of extra networks, `<lora:name:0.7>`, of which LoRAs that are here become options.
    fn read_networks(&mut self, prompt: &str) -> String {
        let mut text = String::with_capacity(prompt.len());
        let mut rest = prompt;
        while let Some(start) = rest.find("<lora:") {
            let (before, tag) = rest.split_at(start);
            let Some(end) = tag.find('>') else { break };
            let mut parts = tag[..end].trim_start_matches("<lora:").split(':');
            let name = parts.next().unwrap_or_default();
            let weight = parts.next().and_then(|weight| weight.parse::<f64>().ok()).unwrap_or(1.0);
            let found = ["safetensors", "pt", "ckpt"]
                .iter()
                .find_map(|ending| self.places(&format!("{name}.{ending}")).into_iter().next());
            match found {
                Some(path) => {
                    let mut given = path.into_os_string();
                    given.push(format!(":{weight}"));
                    self.push_path("lora", Path::new(&given));
                }
                None => self.not_used("LoRA", name),
            }
            text.push_str(before);
            rest = &tag[end + 1..];
        }
        text.push_str(rest);
        text
    }
}
