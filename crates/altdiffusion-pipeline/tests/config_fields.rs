//! Checks that every field diffusers writes into a configuration of a UNet, VAE or ControlNet is known, and that
//! unsupported ones are refused by name.

use std::collections::BTreeMap;

use altdiffusion_pipeline::controlnet::ControlNetConfig;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use altdiffusion_pipeline::vae::AutoencoderKlConfig;
use model_files::config::{ConfigFile, parse_config, read_json};
use model_files::source::FileData;
use serde_json::{Map, Value, json};
use test_support::golden;

#[test]
fn every_field_that_diffusers_writes_is_known() {
    let classes: BTreeMap<String, Vec<String>> = read_json(golden("config_fields.json")).unwrap();
    for (table, class) in [
        (UNet2DConditionConfig::FIELDS, "UNet2DConditionModel"),
        (AutoencoderKlConfig::FIELDS, "AutoencoderKL"),
        (ControlNetConfig::FIELDS, "ControlNetModel"),
    ] {
        for field in &classes[class] {
            assert!(table.knows(field), "{class}: {field}");
        }
    }
}

#[test]
fn no_field_of_the_golden_models_is_unknown() {
    for (table, path) in [
        (UNet2DConditionConfig::FIELDS, "alt_diffusion/unet/config.json"),
        (UNet2DConditionConfig::FIELDS, "alt_diffusion_m18/unet/config.json"),
        (AutoencoderKlConfig::FIELDS, "alt_diffusion/vae/config.json"),
        (ControlNetConfig::FIELDS, "controlnet/sd1/config.json"),
        (ControlNetConfig::FIELDS, "controlnet/sd2/config.json"),
    ] {
        let fields: Map<String, Value> = read_json(golden(path)).unwrap();
        assert_eq!(table.unknown(&fields), Vec::<&str>::new(), "{path}");
    }
}

/// The golden configuration of a UNet with changed fields.
fn unet(fields: Value) -> Result<UNet2DConditionConfig, String> {
    let mut config: Map<String, Value> = read_json(golden("alt_diffusion/unet/config.json")).unwrap();
    config.extend(serde_json::from_value::<Map<String, Value>>(fields).unwrap());
    let file = FileData::owned("unet/config.json", serde_json::to_vec(&config).unwrap());
    parse_config(&file).map_err(|error| error.to_string())
}

#[test]
fn values_that_would_make_another_unet_are_refused_by_name() {
    for (fields, problem) in [
        (json!({"class_embed_type": "timestep"}), "class_embed_type is \"timestep\""),
        (json!({"addition_embed_type": "text_time"}), "addition_embed_type is \"text_time\""),
        (json!({"only_cross_attention": [false, true]}), "only_cross_attention is [false,true]"),
        (json!({"act_fn": "gelu"}), "expected \"silu\" or \"swish\""),
        (json!({"resnet_out_scale_factor": 2.0}), "resnet_out_scale_factor is 2.0"),
        (json!({"time_cond_proj_dim": 256}), "time_cond_proj_dim is 256"),
    ] {
        let error = unet(fields).unwrap_err();
        assert!(error.starts_with("unet/config.json: ") && error.contains(problem), "{error}");
    }
    for fields in [
        json!({"class_embed_type": null, "num_class_embeds": null, "dropout": 0.1}),
        json!({"only_cross_attention": [false, false], "upcast_attention": true, "act_fn": "swish"}),
        json!({"nobody_knows": {"a": 1}, "_use_default_values": []}),
    ] {
        unet(fields).unwrap();
    }
}
