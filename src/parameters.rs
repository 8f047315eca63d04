//! How a picture was made, in the lines that Stable Diffusion's web interfaces write into their pictures and read again.

use altdiffusion_pipeline::schedulers::{SchedulerKind, SigmaSpacing};

/// What those lines tell.
pub struct Parameters<'a> {
    pub prompt: &'a str,
    pub negative_prompt: &'a str,
    pub steps: usize,
    pub scheduler: SchedulerKind,
    pub sigma_spacing: Option<SigmaSpacing>,
    pub guidance_scale: f64,
    /// Nothing, where the noise was given.
    pub seed: Option<u64>,
    pub size: (u32, u32),
    pub model: &'a str,
    pub strength: Option<f64>,
    /// Layers of the text encoder that were left out.
    pub clip_skip: usize,
    /// As they were asked for.
    pub loras: &'a [String],
    /// What is told about each picture that was followed, or was a prompt.
    pub controls: Vec<String>,
}

impl Parameters<'_> {
    /// The prompt, the negative prompt if there is one, and a line of `Name: value`.
    pub fn text(&self) -> String {
        let mut fields =
            vec![format!("Steps: {}", self.steps), format!("Sampler: {}", sampler(self.scheduler))];
        if let Some(spacing) = self.sigma_spacing {
            fields.push(format!("Schedule type: {}", capitalized(spacing.name())));
        }
        fields.push(format!("CFG scale: {}", self.guidance_scale));
        if let Some(seed) = self.seed {
            fields.push(format!("Seed: {seed}"));
        }
        fields.push(format!("Size: {}x{}", self.size.0, self.size.1));
        fields.push(format!("Model: {}", quoted(self.model)));
        if let Some(strength) = self.strength {
            fields.push(format!("Denoising strength: {strength}"));
        }
        if self.clip_skip > 0 {
            // The web interfaces count from the last layer, which is 1.
            fields.push(format!("Clip skip: {}", self.clip_skip + 1));
        }
        if !self.loras.is_empty() {
            fields.push(format!("LoRA: {}", quoted(&self.loras.join(", "))));
        }
        for (number, control) in self.controls.iter().enumerate() {
            fields.push(format!("ControlNet {number}: {}", quoted(control)));
        }
        fields.push(format!("Version: altdiffusion {}", env!("CARGO_PKG_VERSION")));
        let mut text = format!("{}\n", self.prompt);
        if !self.negative_prompt.is_empty() {
            text += &format!("Negative prompt: {}\n", self.negative_prompt);
        }
        text + &fields.join(", ")
    }
}

/// What the web interfaces call a scheduler.
fn sampler(kind: SchedulerKind) -> &'static str {
    match kind {
        SchedulerKind::Ddim => "DDIM",
        SchedulerKind::Pndm => "PLMS",
        SchedulerKind::LmsDiscrete => "LMS",
        SchedulerKind::HeunDiscrete => "Heun",
        SchedulerKind::EulerDiscrete => "Euler",
        SchedulerKind::EulerAncestralDiscrete => "Euler a",
        SchedulerKind::DpmSolverMultistep => "DPM++ 2M",
        SchedulerKind::DpmSolverMultistepSde => "DPM++ 2M SDE",
        SchedulerKind::UniPcMultistep => "UniPC",
        SchedulerKind::Lcm => "LCM",
        other => other.name(),
    }
}

fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A value that holds what parts the fields is put between quotation marks, as JSON has them.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_read_as_web_interfaces_write_them() {
        let parameters = Parameters {
            prompt: "一只猫",
            negative_prompt: "模糊",
            steps: 20,
            scheduler: SchedulerKind::DpmSolverMultistep,
            sigma_spacing: Some(SigmaSpacing::Karras),
            guidance_scale: 7.5,
            seed: Some(5),
            size: (512, 768),
            model: "C:\\models",
            strength: None,
            clip_skip: 1,
            loras: &["ink:0.7".to_owned()],
            controls: vec!["Module: none, Weight: 1".to_owned()],
        };
        let expected = "一只猫\nNegative prompt: 模糊\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, \
                        CFG scale: 7.5, Seed: 5, Size: 512x768, Model: \"C:\\\\models\", Clip skip: 2, \
                        LoRA: \"ink:0.7\", ControlNet 0: \"Module: none, Weight: 1\", Version: altdiffusion ";
        assert_eq!(parameters.text(), format!("{expected}{}", env!("CARGO_PKG_VERSION")));
    }
}
