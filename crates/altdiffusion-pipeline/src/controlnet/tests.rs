//! Checks names and shapes of full-size ControlNets against diffusers.

use super::ControlNetConfig;
use super::single_file::{ControlNetNames, controlnet_in_single_file};
use crate::model_parts::test_files::{Golden, checkpoint, golden_file, prefixed};
use test_support::TestResult;

/// The names of a ControlNet, and its configuration from its shapes, in both namings.
#[test]
fn controlnets_are_those_of_diffusers() -> TestResult {
    for name in ["sd1", "sd2"] {
        let golden: Golden<ControlNetConfig> = golden_file(&format!("controlnet/names_{name}.json"))?;
        let names = ControlNetNames::new(&golden.config);
        for (diffusers, ldm, _) in &golden.names {
            assert_eq!(names.to_ldm(diffusers).as_deref(), Some(ldm.as_str()));
        }
        for other in ["", "controlnet_down_blocks.+1.weight", "down_blocks.4.resnets.0.norm1.weight"] {
            assert_eq!(names.to_ldm(other), None, "{other}");
        }
        let expected = ControlNetConfig { other: Default::default(), ..golden.config };
        let in_diffusers: Vec<_> =
            golden.names.iter().map(|(name, _, shape)| (name.clone(), shape.clone())).collect();
        for (prefix, tensors) in [
            ("control_model.", prefixed("control_model.", &golden.names)),
            ("", prefixed("", &golden.names)),
            ("", in_diffusers),
        ] {
            let (config, weights) = controlnet_in_single_file(&checkpoint(&tensors)?)?;
            assert_eq!(config, expected, "{name} {prefix}");
            for (diffusers, _, shape) in &golden.names {
                assert_eq!(weights.shape(diffusers), Some(shape.as_slice()), "{diffusers}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_shapes_cannot_tell_is_an_error() -> TestResult {
    // Sizes that overflow when multiplied, and counts that do not match.
    let far = usize::MAX;
    for names in [
        [
            format!("control_model.input_blocks.{far}.0.op.weight"),
            format!("control_model.input_hint_block.{}.weight", far - 3),
            "control_model.input_hint_block.0.weight".to_owned(),
        ],
        [
            format!("down_blocks.{far}.resnets.{far}.conv2.weight"),
            format!("controlnet_cond_embedding.blocks.{far}.weight"),
            "controlnet_cond_embedding.conv_in.weight".to_owned(),
        ],
    ] {
        let tensors: Vec<_> = names.into_iter().map(|name| (name, vec![1, 1, 1, 1])).collect();
        let error = controlnet_in_single_file(&checkpoint(&tensors)?).err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains("expected") || error.contains("no tensor"), "{error}");
    }
    Ok(())
}
