//! Compares ten random combinations of features with diffusers.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use altdiffusion_pipeline::controlnet::ControlNetModel;
use altdiffusion_pipeline::schedulers::{SchedulerKind, SigmaSpacing, TimestepSpacing};
use altdiffusion_pipeline::{
    AltDiffusion, Control, GenerateOptions, LoadOptions, Lora, ModelParts, PromptReading, TextualInversion,
};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use common::{golden_image, golden_mask};
use model_files::source::ModelSource;
use serde::Deserialize;
use test_support::{TestResult, golden, golden_json, golden_tensors, relative_error};

/// The largest relative error of latents. The reference's own distance from f64 is up to 1.7e-5.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Case {
    name: String,
    repository: String,
    kind: Kind,
    prompt: String,
    negative_prompt: String,
    weighted: bool,
    clip_skip: usize,
    words: Vec<String>,
    loras: BTreeMap<String, f64>,
    controls: Vec<CaseControl>,
    guidance_scale: f64,
    #[serde(default)]
    guidance_rescale: f64,
    num_inference_steps: usize,
    num_images_per_prompt: usize,
    seed: u64,
    scheduler: Option<String>,
    #[serde(default)]
    scheduler_config: SchedulerOptions,
    strength: Option<f64>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Text,
    Image,
    Part,
}

#[derive(Deserialize)]
struct CaseControl {
    scale: f64,
    start: f64,
    end: f64,
}

#[derive(Deserialize, Default)]
struct SchedulerOptions {
    #[serde(default)]
    use_karras_sigmas: bool,
    timestep_spacing: Option<String>,
}

fn file(name: &str) -> String {
    golden("adapters").join(name).display().to_string()
}

fn controlnet(repository: &str) -> TestResult<Arc<ControlNetModel>> {
    let folder = golden("controlnet").join(if repository.ends_with("m18") { "sd2" } else { "sd1" });
    let config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let weights = safetensors::load(folder.join("diffusion_pytorch_model.fp16.safetensors"), &Device::Cpu)?;
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    Ok(Arc::new(ControlNetModel::new(&config, weights)?))
}

impl Case {
    fn load(&self) -> TestResult<AltDiffusion> {
        let mut options = LoadOptions::new(DType::F32, &Device::Cpu);
        for (name, strength) in &self.loras {
            let lora = file(&format!("{}.{name}.safetensors", self.repository));
            options = options.lora(Lora::open(&lora)?, *strength);
        }
        for word in &self.words {
            options = options.word(TextualInversion::open(&file(&format!("{word}.safetensors")))?);
        }
        let source = ModelSource::directory(golden(&self.repository));
        Ok(AltDiffusion::load(ModelParts::in_folders(&source)?, options)?)
    }

    fn options(&self, given: &HashMap<String, Tensor>) -> TestResult<GenerateOptions> {
        let mut options = GenerateOptions::new(&self.prompt)
            .negative_prompt(&self.negative_prompt)
            .clip_skip(self.clip_skip)
            .guidance_scale(self.guidance_scale)
            .guidance_rescale(self.guidance_rescale)
            .steps(self.num_inference_steps)
            .images(self.num_images_per_prompt)
            .seed(self.seed)
            .width(56)
            .height(40);
        if self.weighted {
            options = options.prompt_reading(PromptReading::Weighted);
        }
        if let Some(class) = &self.scheduler {
            options = options.scheduler(SchedulerKind::from_class_name(class).ok_or("an unknown scheduler")?);
        }
        if self.scheduler_config.use_karras_sigmas {
            options = options.sigma_spacing(SigmaSpacing::Karras);
        }
        if let Some(spacing) = &self.scheduler_config.timestep_spacing {
            options = options.timestep_spacing(spacing.parse::<TimestepSpacing>().map_err(|_| "a spacing")?);
        }
        if let Some(strength) = self.strength {
            options = options.image(golden_image(given, "given")?).strength(strength);
        }
        if self.kind == Kind::Part {
            options = options.mask(golden_mask(given)?);
        }
        for control in &self.controls {
            let net = Control::new(controlnet(&self.repository)?, golden_image(given, "control.0")?);
            options = options.control(net.scale(control.scale).start(control.start).end(control.end));
        }
        Ok(options)
    }
}

#[test]
fn latents_are_the_references() -> TestResult {
    let cases: Vec<Case> = golden_json("combined.json");
    assert_eq!(cases.len(), 10);
    let (expected, given) =
        (golden_tensors("combined.safetensors"), golden_tensors("controlnet/pipeline.safetensors"));
    for case in &cases {
        let latents = case.load()?.generate(&case.options(&given)?)?.latents;
        let error = relative_error(&latents, &expected[&format!("{}.latents", case.name)]);
        println!("{}: {error:.1e}", case.name);
        assert!(error <= TOLERANCE, "{}: {error:.1e}", case.name);
    }
    Ok(())
}
