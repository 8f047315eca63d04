//! Checks that configurations with huge numbers are errors and use no memory.

use std::fs;

use altclip_encoder::dual_encoder;
use altdiffusion_pipeline::AltDiffusion;
use candle_core::{DType, Device};
use model_files::checkpoint::Survey;
use model_files::source::ModelSource;
use serde_json::Value;
use tempfile::TempDir;
use test_support::{copy_directory, golden};

/// Sizes that overflow sums, products or 32 bits, and some that would only take long.
const SIZES: [u64; 3] = [100_000, 1 << 31, u64::MAX];
/// The limit for this program's peak memory, in KB. The model itself needs a few hundred.
const MOST_MEMORY: u64 = 600_000;

/// Finds every positive integer in a configuration.
fn integers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| integers(value, &format!("{path}/{key}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| integers(value, &format!("{path}/{i}"), found));
        }
        Value::Number(number) if number.as_u64().is_some_and(|number| number > 0) => {
            found.push(path.to_owned())
        }
        _ => {}
    }
}

/// Loads a model like a caller, and drops it.
type Load = fn(&ModelSource) -> Result<(), String>;

/// Loads the model without weights, with each number of `config` made huge; what still loads is loaded with weights
/// too.
fn check(load: Load, model: &str, config: &str) {
    let folder = TempDir::new().unwrap();
    copy_directory(&golden(model), folder.path()).unwrap();
    let file = folder.path().join(config);
    let whole: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut places = Vec::new();
    integers(&whole, "", &mut places);
    assert!(!places.is_empty(), "{model} {config}");
    for place in places {
        for size in SIZES {
            let mut config = whole.clone();
            *config.pointer_mut(&place).unwrap() = size.into();
            fs::write(&file, config.to_string()).unwrap();
            let source = ModelSource::directory(folder.path());
            let survey = Survey::default();
            let surveyed = load(&source.surveyed(&survey));
            let missing: usize = survey.reports().iter().map(|report| report.missing.len()).sum();
            assert!(missing < 20_000, "{place} {size}: {missing}");
            match surveyed {
                Ok(()) => drop(load(&source)),
                Err(error) => assert!(!error.contains('\n'), "{error}"),
            }
        }
    }
    assert_memory();
}

#[cfg(target_os = "linux")]
fn assert_memory() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MOST_MEMORY, "{peak} KB");
}

#[cfg(not(target_os = "linux"))]
fn assert_memory() {}

fn load_pipeline(source: &ModelSource) -> Result<(), String> {
    let loaded = AltDiffusion::from_source(source, DType::F32, &Device::Cpu);
    loaded.map(|_| ()).map_err(|error| error.to_string())
}

fn load_dual_encoder(source: &ModelSource) -> Result<(), String> {
    let loaded = dual_encoder::load(source, DType::F32, &Device::Cpu);
    loaded.map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn numbers_in_configurations_take_no_memory() {
    for config in
        ["text_encoder/config.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
    {
        check(load_pipeline, "alt_diffusion", config);
    }
    check(load_pipeline, "alt_diffusion_m18", "unet/config.json");
    for model in ["altclip", "altclip_m18", "clip", "chinese_clip"] {
        check(load_dual_encoder, &format!("dual_encoders/{model}"), "config.json");
    }
    for config in ["text_encoder/config.json", "image_encoder/config.json"] {
        check(load_dual_encoder, "dual_encoders/taiyi", config);
    }
}
