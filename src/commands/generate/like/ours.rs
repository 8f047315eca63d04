//! Reads the records in this program's own images.

use std::path::Path;

use altdiffusion_pipeline::image_metadata::ParameterFields;
use anyhow::Result;

use super::found::ImageOptions;

/// Fields that stand for an option without a value, with the field's value.
const FLAGS: [(&str, &str, &str); 4] = [
    ("Prompt weights", "True", "prompt-weights"),
    ("Grid", "True", "grid"),
    ("LoRA UNet only", "True", "lora-unet-only"),
    ("Safety checker", "False", "no-safety-checker"),
];

impl ImageOptions<'_> {
    pub(super) fn read_ours(&mut self, fields: &mut ParameterFields, prompts: usize) -> Result<()> {
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
        // Only files have a hash.
        let is_file = fields.iter().any(|(name, _)| name == "VAE hash");
        let vae = match is_file {
            true => self.file(fields, "VAE", "vae")?,
            false => fields.take("VAE").map(|name| self.source("vae", &name)).transpose()?,
        };
        if let Some(path) = vae {
            self.push_path("vae", &path);
        }
        self.read_adapters(fields)?;
        let units: Vec<String> = fields.iter().map(|(name, _)| name.to_owned()).collect();
        for unit in units.iter().filter(|name| name.starts_with("ControlNet ")) {
            let Some(value) = fields.take(unit) else { continue };
            self.read_unit(unit, ParameterFields::parse(&value))?;
        }
        Ok(())
    }

    fn read_adapters(&mut self, fields: &mut ParameterFields) -> Result<()> {
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
            let mut adapter = ParameterFields::parse(&value);
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

    /// Reads a followed image or image prompt, in the ControlNet extension's format.
    fn read_unit(&mut self, unit: &str, mut fields: ParameterFields) -> Result<()> {
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
}
