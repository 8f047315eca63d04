//! Reads the records of stable-diffusion-webui, Forge and stable-diffusion.cpp.

use std::path::Path;

use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::random::Rng;
use altdiffusion_pipeline::schedulers::SigmaSpacing;

use super::found::ImageOptions;
use crate::option_values;

impl ImageOptions<'_> {
    /// Reads the fields specific to stable-diffusion-webui, Forge and stable-diffusion.cpp.
    pub(super) fn read_theirs(&mut self, fields: &mut ParameterFields) {
        // They always parse weights.
        self.flag("prompt-weights");
        // Web interfaces record the noise source unless it is the GPU.
        let is_web_interface = fields.get("Version").is_none_or(|version| !version.contains("cpp"));
        if is_web_interface && fields.get("RNG").is_none() {
            self.flag(&format!("rng={}", Rng::Cuda));
        }
        let schedule = fields.take("Schedule type");
        if let Some(sampler) = fields.take("Sampler") {
            let spacing = match schedule.as_deref() {
                None | Some("Uniform" | "Normal") => String::new(),
                // The spacing that the sampler was published with.
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
        // Their eta applies to all samplers, ours to one.
        if let Some(eta) = fields.take("Eta").filter(|eta| eta.parse::<f64>().is_ok_and(|eta| eta != 0.0)) {
            self.not_used("Eta", &eta);
        }
        if let Some(cfg) = fields.take("CFG scale") {
            self.value("CFG scale", "guidance-scale", &cfg);
        }
    }

    /// Removes the tags of extra networks, `<lora:name:0.7>`, from a prompt. LoRAs that exist here become options.
    pub(super) fn read_networks(&mut self, prompt: &str) -> String {
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
