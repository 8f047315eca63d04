//! Checks that every field transformers and diffusers write into a configuration is known, and that unsupported ones
//! are refused by name.

use std::collections::BTreeMap;

use altclip_encoder::altclip::AltClipConfig;
use altclip_encoder::bert::BertConfig;
use altclip_encoder::conditioner::TextEncoderConfig;
use altclip_encoder::dual_encoder::{ChineseClipConfig, ClipConfig};
use altclip_encoder::image_processor::{CropTo, ImageProcessorConfig, Resampling, ResizeTo};
use altclip_encoder::vision::VisionConfig;
use model_files::config::{ConfigFile, FieldTable, parse_config};
use model_files::source::FileData;
use serde_json::{Value, json};
use test_support::{golden, golden_json};

/// The table of a field that holds a configuration.
fn nested(table: &FieldTable, field: &str) -> &'static FieldTable {
    table.nested.iter().find(|(name, _)| *name == field).unwrap().1
}

#[test]
fn every_field_that_the_references_write_is_known() {
    let classes: BTreeMap<String, Vec<String>> = golden_json("config_fields.json");
    let (clip, chinese, alt) = (ClipConfig::FIELDS, ChineseClipConfig::FIELDS, AltClipConfig::FIELDS);
    for (table, names) in [
        (&TextEncoderConfig::FIELDS, &["PretrainedConfig", "XLMRobertaConfig", "RobertaSeriesConfig"][..]),
        (&BertConfig::FIELDS, &["PretrainedConfig", "BertConfig"]),
        (&VisionConfig::FIELDS, &["PretrainedConfig", "CLIPVisionConfig"]),
        (&clip, &["PretrainedConfig", "CLIPConfig"]),
        (nested(&clip, "text_config"), &["PretrainedConfig", "CLIPTextConfig"]),
        (nested(&clip, "vision_config"), &["PretrainedConfig", "CLIPVisionConfig"]),
        (&chinese, &["PretrainedConfig", "ChineseCLIPConfig"]),
        (nested(&chinese, "text_config"), &["PretrainedConfig", "ChineseCLIPTextConfig"]),
        (nested(&chinese, "vision_config"), &["PretrainedConfig", "ChineseCLIPVisionConfig"]),
        (&alt, &["PretrainedConfig", "AltCLIPConfig"]),
        (nested(&alt, "text_config"), &["PretrainedConfig", "AltCLIPTextConfig"]),
        (nested(&alt, "vision_config"), &["PretrainedConfig", "AltCLIPVisionConfig"]),
        (&ImageProcessorConfig::FIELDS, &["CLIPImageProcessor", "ChineseCLIPImageProcessor"]),
    ] {
        for name in names {
            for field in classes[*name].iter().filter(|field| !field.starts_with('_')) {
                assert!(table.knows(field), "{name}: {field}");
            }
        }
    }
}

fn parse<T: ConfigFile>(fields: &Value) -> model_files::Result<T> {
    parse_config(&FileData::owned("config.json", fields.to_string().into_bytes()))
}

#[test]
fn values_that_would_make_another_model_are_refused_by_name() {
    let error = |result: model_files::Result<()>| result.unwrap_err().to_string();
    for (message, part) in [
        (error(parse::<BertConfig>(&json!({"is_decoder": true})).map(drop)), "is_decoder is true"),
        (error(parse::<BertConfig>(&json!({"pruned_heads": {"1": [0]}})).map(drop)), "pruned_heads is"),
        (
            error(parse::<TextEncoderConfig>(&json!({"add_cross_attention": true})).map(drop)),
            "add_cross_attention is true",
        ),
        (
            error(parse::<ClipConfig>(&json!({"text_config": {"is_decoder": true}})).map(drop)),
            "text_config.is_decoder is true",
        ),
        (
            error(parse::<BertConfig>(&json!({"position_embedding_type": "relative_key"})).map(drop)),
            "position_embedding_type: unknown variant `relative_key`",
        ),
        (
            error(
                parse::<ImageProcessorConfig>(&json!({"image_processor_type": "BlipImageProcessor"}))
                    .map(drop),
            ),
            "image_processor_type is \"BlipImageProcessor\"",
        ),
        (error(parse::<ImageProcessorConfig>(&json!({"do_pad": true})).map(drop)), "do_pad is true"),
    ] {
        assert!(message.starts_with("config.json: ") && message.contains(part), "{message}");
    }
}

#[test]
fn image_processors_are_read_in_old_and_new_forms() {
    let config = |fields: Value| parse::<ImageProcessorConfig>(&fields).unwrap();
    let default = ImageProcessorConfig::default();
    for fields in [
        json!({}),
        json!({"size": null, "crop_size": null, "resample": null, "do_resize": null}),
        json!({"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3}),
        json!({"resample": "bicubic", "image_processor_type": "CLIPImageProcessorFast", "data_format": "channels_first"}),
        json!({"resample": "PILImageResampling.BICUBIC", "feature_extractor_type": "CLIPFeatureExtractor"}),
        json!({"processor_class": "CLIPProcessor", "_valid_processor_keys": ["images"], "nobody_knows": [1]}),
        json!({"device": null, "default_to_square": false, "do_pad": null, "pad_size": null, "input_data_format": null}),
    ] {
        assert_eq!(config(fields.clone()), default, "{fields}");
    }
    assert_eq!(config(json!({"size": 224})).size, ResizeTo::Number(224));
    assert_eq!(config(json!({"size": [7, 9]})).size, ResizeTo::Pair([7, 9]));
    let size = json!({"size": {"height": 7, "width": 9}});
    assert_eq!(config(size).size, ResizeTo::Exactly { height: 7, width: 9 });
    let size = json!({"size": {"shortest_edge": 7, "longest_edge": 9}});
    assert_eq!(config(size).size, ResizeTo::ShortestEdge { shortest_edge: 7 });
    assert_eq!(config(json!({"crop_size": 7})).crop_size, CropTo::Number(7));
    for (name, filter) in [
        (json!(0), Resampling::Nearest),
        (json!(5), Resampling::Hamming),
        (json!("LANCZOS"), Resampling::Lanczos),
        (json!("bilinear"), Resampling::Bilinear),
    ] {
        assert_eq!(config(json!({"resample": name})).resample, filter);
    }
    for (fields, part) in [
        (json!({"resample": 6}), "resample: resample is 6"),
        (json!({"resample": "sinc"}), "resample: resample is \"sinc\""),
        (json!({"resample": [3]}), "resample: expected a filter's number"),
        (json!({"size": {"longest_edge": 9}}), "size: "),
        (json!({"crop_size": {"height": 9}}), "crop_size: "),
        (json!({"image_mean": [0.5]}), "image_mean"),
        (json!({"size": 0}), "size is 0"),
    ] {
        let error = parse::<ImageProcessorConfig>(&fields).unwrap_err().to_string();
        assert!(error.starts_with("config.json: ") && error.contains(part), "{fields}: {error}");
    }
}

/// Every field of the golden models' published configurations is known.
#[test]
fn no_field_of_the_golden_models_is_unknown() {
    let fields = |path: &str| golden_json::<serde_json::Map<String, Value>>(path);
    for (table, path) in [
        (TextEncoderConfig::FIELDS, "alt_diffusion/text_encoder/config.json"),
        (TextEncoderConfig::FIELDS, "alt_diffusion_m18/text_encoder/config.json"),
        (AltClipConfig::FIELDS, "dual_encoders/altclip/config.json"),
        (ClipConfig::FIELDS, "dual_encoders/clip/config.json"),
        (ChineseClipConfig::FIELDS, "dual_encoders/chinese_clip/config.json"),
        (ImageProcessorConfig::FIELDS, "dual_encoders/chinese_clip/preprocessor_config.json"),
    ] {
        assert!(golden(path).is_file());
        assert_eq!(table.unknown(&fields(path)), Vec::<&str>::new(), "{path}");
    }
}
