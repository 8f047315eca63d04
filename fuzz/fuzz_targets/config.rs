//! Reads arbitrary bytes as every kind of configuration: within the limits, or an error of one line.
#![no_main]

use altclip_encoder::conditioner::TextEncoderConfig;
use altclip_encoder::dual_encoder::{ChineseClipConfig, ClipConfig};
use altclip_encoder::image_processor::ImageProcessorConfig;
use altdiffusion_pipeline::SchedulerConfig;
use altdiffusion_pipeline::controlnet::ControlNetConfig;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use altdiffusion_pipeline::vae::AutoencoderKlConfig;
use libfuzzer_sys::fuzz_target;
use model_files::FileData;
use model_files::config::{ConfigFile, parse_config};

fn parse<T: ConfigFile>(bytes: &[u8]) {
    if let Err(error) = parse_config::<T>(&FileData::owned("config.json", bytes.to_vec())) {
        assert!(error.to_string().lines().count() == 1, "{error}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    parse::<TextEncoderConfig>(bytes);
    parse::<ClipConfig>(bytes);
    parse::<ChineseClipConfig>(bytes);
    parse::<ImageProcessorConfig>(bytes);
    parse::<UNet2DConditionConfig>(bytes);
    parse::<AutoencoderKlConfig>(bytes);
    parse::<ControlNetConfig>(bytes);
    if let Ok(config) = SchedulerConfig::from_json(bytes, "scheduler_config.json") {
        for steps in [1, 2, 7] {
            let _ = config.build(steps);
        }
    }
});
