//! Checks names and shapes of full-size models against diffusers.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use altclip_encoder::conditioner::ConditionerConfig;
use altclip_encoder::xlm_roberta::XlmRobertaConfig;
use candle_core::{DType, Device, Tensor};
use serde::de::DeserializeOwned;

use super::test_files::{Golden, checkpoint, golden_file, prefixed};
use super::*;
use crate::PerBlock;
use crate::unet::UNet2DConditionConfig;
use crate::vae::AutoencoderKlConfig;
use test_support::TestResult;

fn golden<C: DeserializeOwned>(name: &str) -> Result<Golden<C>> {
    golden_file(&format!("single_file/{name}.json"))
}

/// Each name must map to exactly one other, and back.
fn check_names<C>(
    golden: &Golden<C>,
    to_ldm: impl Fn(&str) -> Option<String>,
    to_diffusers: impl Fn(&str) -> Option<String>,
) {
    let mut seen = BTreeSet::new();
    for (diffusers, ldm, _) in &golden.names {
        assert_eq!(to_ldm(diffusers).as_deref(), Some(ldm.as_str()));
        assert_eq!(to_diffusers(ldm).as_deref(), Some(diffusers.as_str()));
        assert!(seen.insert(ldm), "{ldm} comes twice");
    }
}

#[test]
fn unet_names_are_those_of_diffusers() -> TestResult {
    for name in ["sd1", "sd2", "unet_three_levels"] {
        let golden: Golden<UNet2DConditionConfig> = golden(name)?;
        let names = UNetNames::new(&golden.config)?;
        check_names(&golden, |name| names.to_ldm(name), |name| names.to_diffusers(name));
    }
    Ok(())
}

#[test]
fn vae_names_and_shapes_are_those_of_diffusers() -> TestResult {
    for name in ["vae", "vae_three_levels"] {
        let golden: Golden<AutoencoderKlConfig> = golden(name)?;
        let names = VaeNames::new(&golden.config)?;
        check_names(&golden, |name| names.to_ldm(name), |name| names.to_diffusers(name));
        for (diffusers, _, shape) in &golden.names {
            let here = vae_names::shape_in_diffusers(diffusers, shape);
            assert_eq!(&vae_names::shape_in_ldm(diffusers, &here), shape, "{diffusers}");
        }
    }
    Ok(())
}

#[test]
fn other_names_lead_nowhere() -> TestResult {
    let unet = UNetNames::new(&golden::<UNet2DConditionConfig>("sd1")?.config)?;
    for name in [
        "",
        "conv_inner.weight",
        "down_blocks.4.resnets.0.norm1.weight",
        "down_blocks.3.downsamplers.0.conv.weight",
        "down_blocks.+0.resnets.0.norm1.weight",
        "down_blocks.0.resnets.2.norm1.weight",
        "up_blocks.0.attentions.0.norm.weight",
        "up_blocks.18446744073709551615.resnets.0.norm1.weight",
    ] {
        assert_eq!(unet.to_ldm(name), None, "{name}");
    }
    for name in [
        "input_blocks.12.0.in_layers.0.weight",
        "input_blocks.18446744073709551615.0.op.weight",
        "input_blocks.01.0.in_layers.0.weight",
        "output_blocks.2.2.conv.weight",
        "middle_block.3.norm.weight",
        "label_emb.0.0.weight",
    ] {
        assert_eq!(unet.to_diffusers(name), None, "{name}");
    }
    let vae = VaeNames { levels: 4 };
    for name in ["encoder.up_blocks.0.resnets.0.norm1.weight", "decoder.up_blocks.4.resnets.0.norm1.weight"] {
        assert_eq!(vae.to_ldm(name), None, "{name}");
    }
    assert_eq!(vae.to_diffusers("loss.logvar"), None);
    assert_eq!(vae_names::name_of_today("encoder.mid_block.attentions.0.query.bias"), {
        "encoder.mid_block.attentions.0.to_q.bias"
    });
    Ok(())
}

/// As with a model distilled for few steps, whose guidance scale is an input.
#[test]
fn tensors_of_another_unet_are_found() -> TestResult {
    let golden: Golden<UNet2DConditionConfig> = golden("sd1")?;
    let names = UNetNames::new(&golden.config)?;
    let mut tensors = prefixed(unet_names::PREFIX, &golden.names);
    tensors.push(("model_ema.decay".to_owned(), vec![1]));
    assert!(unknown_to_unet(&checkpoint(&tensors)?, &names).is_empty());
    let other = "model.diffusion_model.time_embed.cond_proj.weight";
    tensors.push((other.to_owned(), vec![320, 256]));
    assert_eq!(unknown_to_unet(&checkpoint(&tensors)?, &names), [other]);
    Ok(())
}

#[test]
fn configurations_are_told_from_shapes() -> TestResult {
    for name in ["sd1", "sd2"] {
        let golden: Golden<UNet2DConditionConfig> = golden(name)?;
        let found =
            inferred::unet(&checkpoint(&prefixed(unet_names::PREFIX, &golden.names))?, Origin::PyTorch)?;
        // Shapes do not reveal the size of the images.
        let sample_size = Some(PerBlock::Same(64));
        let expected = UNet2DConditionConfig { other: Default::default(), sample_size, ..golden.config };
        assert_eq!(found, expected, "{name}");
    }
    // stable-diffusion.cpp makes convolutions of the linear projections.
    let golden_second: Golden<UNet2DConditionConfig> = golden("sd2")?;
    let mut tensors = prefixed(unet_names::PREFIX, &golden_second.names);
    for (name, shape) in &mut tensors {
        if name.ends_with(".proj_in.weight") || name.ends_with(".proj_out.weight") {
            shape.resize(4, 1);
        }
    }
    let found = inferred::unet(&checkpoint(&tensors)?, Origin::PyTorch)?;
    assert_eq!(found.attention_head_dim, golden_second.config.attention_head_dim);
    assert!(!found.use_linear_projection);
    let golden: Golden<AutoencoderKlConfig> = golden("vae")?;
    let found = inferred::vae(&checkpoint(&prefixed(vae_names::PREFIX, &golden.names))?)?;
    assert_eq!(found, AutoencoderKlConfig { other: Default::default(), ..golden.config });
    Ok(())
}

#[test]
fn both_forms_of_the_text_encoder_are_told_from_shapes() -> TestResult {
    let xlm_r = XlmRobertaConfig::large();
    for projection in ["transformation", "transformation_pre"] {
        let mut tensors = vec![
            ("roberta.embeddings.word_embeddings.weight".to_owned(), vec![250_002, 1024]),
            ("roberta.embeddings.position_embeddings.weight".to_owned(), vec![514, 1024]),
            ("roberta.embeddings.token_type_embeddings.weight".to_owned(), vec![1, 1024]),
            // diffusers writes it in both forms.
            ("transformation.weight".to_owned(), vec![768, 1024]),
        ];
        if projection == "transformation_pre" {
            tensors.push((format!("{projection}.weight"), vec![1024, 1024]));
        }
        for layer in 0..24 {
            tensors
                .push((format!("roberta.encoder.layer.{layer}.intermediate.dense.weight"), vec![4096, 1024]));
        }
        let tensors: Vec<_> = tensors
            .into_iter()
            .map(|(name, shape)| (format!("{}{name}", text_encoder_names::PREFIX), shape))
            .collect();
        let found = inferred::alt_diffusion(&checkpoint(&tensors)?)?;
        assert_eq!(found.encoder, xlm_r);
        assert_eq!(found.has_pre_transformation, projection == "transformation_pre");
        assert_eq!(found.project_dim, if found.has_pre_transformation { 1024 } else { 768 });
    }
    Ok(())
}

/// The towers of Stable Diffusion 1 and 2, and Taiyi's BERT.
#[test]
fn text_encoders_are_told_from_names_and_shapes() -> TestResult {
    let clip = "transformer.text_model";
    let bert = "transformer.embeddings";
    let of_layers = |before: &str, layers: usize, after: &str, shape: &[usize]| {
        (0..layers).map(|layer| (format!("{before}.{layer}.{after}"), shape.to_vec())).collect::<Vec<_>>()
    };
    let first = vec![
        (format!("{clip}.embeddings.token_embedding.weight"), vec![49_408, 768]),
        (format!("{clip}.embeddings.position_embedding.weight"), vec![77, 768]),
    ];
    let first =
        [first, of_layers(&format!("{clip}.encoder.layers"), 12, "mlp.fc1.weight", &[3072, 768])].concat();
    let second = vec![
        ("model.token_embedding.weight".to_owned(), vec![49_408, 1024]),
        ("model.positional_embedding".to_owned(), vec![77, 1024]),
    ];
    let with_layers = |layers: usize| {
        [second.clone(), of_layers("model.transformer.resblocks", layers, "mlp.c_fc.weight", &[4096, 1024])]
            .concat()
    };
    // The second as stable-diffusion.cpp names it.
    let renamed = vec![
        (format!("{clip}.embeddings.token_embedding.weight"), vec![49_408, 1024]),
        (format!("{clip}.embeddings.position_embedding.weight"), vec![77, 1024]),
    ];
    let renamed =
        [renamed, of_layers(&format!("{clip}.encoder.layers"), 24, "mlp.fc1.weight", &[4096, 1024])].concat();
    let taiyi = vec![
        (format!("{bert}.word_embeddings.weight"), vec![21_128, 768]),
        (format!("{bert}.position_embeddings.weight"), vec![512, 768]),
        (format!("{bert}.token_type_embeddings.weight"), vec![2, 768]),
    ];
    let layers = of_layers("transformer.encoder.layer", 12, "intermediate.dense.weight", &[3072, 768]);
    for (tensors, class, activation, [width, heads, layers, positions]) in [
        (first, "CLIPTextModel", "quick_gelu", [768, 12, 12, 77]),
        // Of the 24 layers, the last is not used.
        (with_layers(24), "CLIPTextModel", "gelu", [1024, 16, 23, 77]),
        // Without it, as diffusers' script writes them.
        (with_layers(23), "CLIPTextModel", "gelu", [1024, 16, 23, 77]),
        (renamed, "CLIPTextModel", "gelu", [1024, 16, 23, 77]),
        ([taiyi, layers].concat(), "BertModel", "gelu", [768, 12, 12, 512]),
    ] {
        let tensors: Vec<_> = tensors
            .into_iter()
            .map(|(name, shape)| (format!("{}{name}", text_encoder_names::PREFIX), shape))
            .collect();
        let file = checkpoint(&tensors)?;
        let names = TextEncoderNames::of(&file, Origin::PyTorch).ok_or("no text encoder")?;
        let found = inferred::text_encoder(&file, names, Origin::PyTorch)?;
        assert_eq!(found["architectures"], serde_json::json!([class]));
        let config =
            ConditionerConfig::read(&FileData::owned("config.json", found.to_string().into_bytes()))?;
        assert_eq!((config.spec().width, config.spec().max_tokens), (width, positions), "{found}");
        assert_eq!(found["num_hidden_layers"], layers, "{found}");
        assert_eq!(found["num_attention_heads"], heads, "{found}");
        assert_eq!(found.get("hidden_act").unwrap_or(&"gelu".into()), activation, "{found}");
        let prediction = if width == 1024 { "v_prediction" } else { "epsilon" };
        assert_eq!(inferred::scheduler(&file, Origin::PyTorch)?["prediction_type"], prediction);
    }
    Ok(())
}

#[test]
fn what_shapes_cannot_tell_is_an_error() -> TestResult {
    let halves = |blocks: &[usize]| -> std::result::Result<String, Box<dyn std::error::Error>> {
        let names: Vec<_> = (0..=10)
            .map(|block| {
                let layer = if blocks.contains(&block) { "op" } else { "in_layers.0" };
                (format!("model.diffusion_model.input_blocks.{block}.0.{layer}.weight"), vec![1])
            })
            .collect();
        Ok(inferred::unet(&checkpoint(&names)?, Origin::PyTorch)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default())
    };
    for blocks in [&[3, 7][..], &[1], &[0], &[]] {
        let error = halves(blocks)?;
        assert!(error.contains("expected") || error.contains("no tensor"), "{blocks:?}: {error}");
    }
    let error = inferred::alt_diffusion(&checkpoint(&[(
        "cond_stage_model.roberta.embeddings.word_embeddings.weight".to_owned(),
        vec![10, 16],
    )])?);
    let error = error.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("no tensor") || error.contains("its width 16"), "{error}");
    Ok(())
}

#[test]
fn velocities_are_marked_by_a_tensor() -> TestResult {
    let predicts = |names: &[&str]| -> std::result::Result<serde_json::Value, Box<dyn std::error::Error>> {
        let tensors: Vec<_> = names.iter().map(|name| ((*name).to_owned(), vec![])).collect();
        Ok(inferred::scheduler(&checkpoint(&tensors)?, Origin::PyTorch)?["prediction_type"].clone())
    };
    assert_eq!(predicts(&["betas"])?, "epsilon");
    assert_eq!(predicts(&["v_pred"])?, "v_prediction");
    Ok(())
}

/// Stable Diffusion 2 was published for velocity at 768 × 768, and for noise at 512 × 512 and for inpainting. The
/// tensors' names and shapes are alike, but for the channels of an inpainting model.
#[test]
fn models_of_stable_diffusion_2_are_told_apart() -> TestResult {
    let place = tempfile::tempdir()?;
    let path = place.path().join("model.safetensors");
    for (spread, inputs, said, expected) in [
        (0.12f32, 4, None, "v_prediction"),
        (0.06, 4, None, "epsilon"),
        (0.12, 9, None, "epsilon"),
        // What the file says counts more.
        (0.06, 4, Some("v"), "v_prediction"),
        (0.12, 4, Some("epsilon"), "epsilon"),
        (0.12, 4, Some("unheard of"), "v_prediction"),
    ] {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let bias = Tensor::new(&[1. + spread, 1. - spread], &Device::Cpu)?;
        let tensors = [
            ("cond_stage_model.model.transformer.resblocks.0.ln_1.bias", zeros(&[2])?),
            ("model.diffusion_model.input_blocks.0.0.weight", zeros(&[2, inputs, 1, 1])?),
            ("model.diffusion_model.out.2.weight", zeros(&[4, 2, 1, 1])?),
            ("model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias", bias),
        ];
        let metadata =
            said.map(|said| HashMap::from([("modelspec.prediction_type".to_owned(), said.to_owned())]));
        std::fs::write(&path, safetensors::serialize(tensors, metadata)?)?;
        let file = Checkpoint::from_file(&path)?;
        let found = inferred::scheduler(&file, Origin::PyTorch)?;
        assert_eq!(found["prediction_type"], expected, "{spread} {inputs} {said:?}");
    }
    // The size of the images goes with it.
    let golden: Golden<UNet2DConditionConfig> = golden("sd2")?;
    let mut tensors = prefixed(unet_names::PREFIX, &golden.names);
    tensors.push(("cond_stage_model.model.transformer.resblocks.0.ln_1.bias".to_owned(), vec![2]));
    let sample_size =
        |tensors: &[(String, Vec<usize>)]| -> std::result::Result<_, Box<dyn std::error::Error>> {
            Ok(inferred::unet(&checkpoint(tensors)?, Origin::PyTorch)?.sample_size)
        };
    assert_eq!(sample_size(&tensors)?, Some(PerBlock::Same(64)));
    tensors.push(("v_pred".to_owned(), vec![1]));
    assert_eq!(sample_size(&tensors)?, Some(PerBlock::Same(96)));
    Ok(())
}

#[test]
fn an_autoencoder_without_levels_is_refused() -> TestResult {
    let parts = || ModelParts::in_folders(&ModelSource::directory(test_support::golden("alt_diffusion")));
    let place = tempfile::tempdir()?;
    let path = place.path().join("one.safetensors");
    let mut damaged = parts()?;
    damaged.vae.config = FileData::owned("config.json", br#"{"block_out_channels": []}"#.to_vec());
    let written = damaged.write_single_file(&path, None, &mut |_, _| ControlFlow::Continue(()));
    let expected = "AutoencoderKL config: `block_out_channels` is []; expected one number per level";
    let error = written.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.starts_with(expected), "{error}");
    Ok(())
}

#[test]
fn a_cancelled_conversion_leaves_nothing() -> TestResult {
    let parts = ModelParts::in_folders(&ModelSource::directory(test_support::golden("alt_diffusion")))?;
    let place = tempfile::tempdir()?;
    // In the first part, and in a later one.
    for last in [3, 400] {
        let mut on_tensor =
            |done, _| if done == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        for error in [
            parts.write_single_file(&place.path().join("one.safetensors"), None, &mut on_tensor).err(),
            parts.write_folders(&place.path().join("folders"), None, &mut on_tensor).err(),
        ] {
            assert!(
                matches!(error, Some(Error::Cancelled { completed, .. }) if completed == last),
                "{error:?}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(place.path())?.count(), 0);
    Ok(())
}
