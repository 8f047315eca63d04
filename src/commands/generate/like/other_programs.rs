//! Reads what images say that stable-diffusion-webui, Forge or stable-diffusion.cpp drew.

use std::path::Path;

use altdiffusion_pipeline::random::Rng;
use altdiffusion_pipeline::schedulers::SigmaSpacing;

use super::found::ImageOptions;
use crate::option_values;
use altdiffusion_pipeline::image_metadata::ParameterFields;

impl ImageOptions<'_> {
    /// What stable-diffusion-webui, Forge and stable-diffusion.cpp say in their own words.
    pub(super) fn read_theirs(&mut self, fields: &mut ParameterFields) {
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
