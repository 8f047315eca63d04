//! Compares the diffusion text encoder with the reference implementation, and with itself.

mod common;

use altclip_encoder::conditioner::{Conditioner, TextEncoder, TextEncoderConfig};
use altclip_encoder::xlm_roberta::XlmRobertaModel;
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::prompts;
use fused_ops::{Linear, attention};
use test_support::{MODULE_TOLERANCE, assert_close, golden_json, golden_tensors, normal};

const VOCAB_SIZE: u32 = 3002;
/// Rows of a padded diffusion prompt.
const LENGTH: u32 = 77;

/// Folders and weights of models without and with `has_pre_transformation`.
const MODELS: [(&str, &str); 2] = [
    ("alt_diffusion", "alt_diffusion/text_encoder/model.safetensors"),
    ("alt_diffusion_m18", "alt_diffusion_m18/text_encoder/pytorch_model.bin"),
];

fn model_config(model: &str) -> TextEncoderConfig {
    golden_json(&format!("{model}/text_encoder/config.json"))
}

fn encoder(model: usize, use_attention_mask: bool, dtype: DType) -> TextEncoder {
    let (folder, weights) = MODELS[model];
    let config = TextEncoderConfig { use_attention_mask, ..model_config(folder) };
    TextEncoder::new(&config, common::weights(weights, dtype)).unwrap()
}

/// A trainable encoder with the golden ones' shape and new weights.
fn trainable(config: &TextEncoderConfig) -> (TextEncoder, VarMap) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    (TextEncoder::new(config, vb).unwrap(), variables)
}

#[test]
fn hidden_states_are_those_of_the_reference() {
    let golden = golden_tensors("text_encoder.safetensors");
    let input_ids = golden["input_ids"].to_dtype(DType::U32).unwrap();
    let attention_mask = golden["attention_mask"].to_dtype(DType::U32).unwrap();
    for (model, (name, _)) in MODELS.iter().enumerate() {
        for (use_mask, suffix) in [(true, "mask"), (false, "no_mask")] {
            let hidden = encoder(model, use_mask, DType::F32).forward(&input_ids, &attention_mask).unwrap();
            assert_close("hidden", &hidden, &golden[&format!("{name}.{suffix}")], MODULE_TOLERANCE);
        }
    }
}

#[test]
fn half_precision_is_close_to_single() {
    let (input_ids, mask) = prompts(&[2, 9, 30], LENGTH, VOCAB_SIZE);
    for model in 0..MODELS.len() {
        let expected = encoder(model, true, DType::F32).forward(&input_ids, &mask).unwrap();
        for (dtype, tolerance) in [(DType::F16, 2e-3), (DType::BF16, 1.6e-2)] {
            let hidden = encoder(model, true, dtype).forward(&input_ids, &mask).unwrap();
            assert_eq!(hidden.dtype(), DType::F32); // on the CPU only the weights are in half precision
            assert_close("hidden", &hidden, &expected, tolerance);
        }
    }
}

#[test]
fn the_shortcut_gives_what_all_rows_give() {
    // No padding, a pad typed into the prompt, only padding, and a mask that shows some padding.
    let (mut ids, mut masks) = (Vec::new(), Vec::new());
    for tokens in [12, 5, 2, 11] {
        let (id, mask) = common::prompt(tokens, 12, VOCAB_SIZE);
        ids.push(id);
        masks.push(mask);
    }
    ids[1][2] = 1;
    ids.push(vec![1; 12]);
    masks.push(vec![1; 12]);
    ids.push(ids[2].clone());
    masks.push([1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0].to_vec());
    let input_ids = Tensor::new(ids, &Device::Cpu).unwrap();
    let mask = Tensor::new(masks, &Device::Cpu).unwrap();

    let (folder, weights) = MODELS[0];
    let vb = common::weights(weights, DType::F32);
    let config = model_config(folder);
    let roberta = XlmRobertaModel::new(&config.encoder, vb.pp("roberta")).unwrap();
    let transformation =
        Linear::new(config.encoder.hidden_size, config.project_dim, true, vb.pp("transformation")).unwrap();
    for use_mask in [true, false] {
        let bias = mask.to_dtype(DType::F32).unwrap().log().unwrap();
        let all = roberta.forward(&input_ids, use_mask.then_some(&bias)).unwrap();
        let expected = transformation.forward(&all).unwrap();
        let hidden = encoder(0, use_mask, DType::F32).forward(&input_ids, &mask).unwrap();
        assert_close("hidden", &hidden, &expected, 1e-6);
    }
}

#[test]
fn compact_rows_are_attended_to_as_all_rows_are() {
    let (input_ids, mask) = prompts(&[2, 77, 9, 76, 30], LENGTH, VOCAB_SIZE);
    for (model, use_mask) in [(0, true), (0, false), (1, true), (1, false)] {
        let encoder = encoder(model, use_mask, DType::F32);
        for batch in [0..5, 2..3, 0..1] {
            let input_ids = input_ids.narrow(0, batch.start, batch.len()).unwrap();
            let mask = mask.narrow(0, batch.start, batch.len()).unwrap();
            let compact = encoder.encode_compact(&input_ids, &mask).unwrap();
            let all = compact.expand().unwrap();
            let query = normal(2, &[batch.len(), 6, 20]);
            let expected = attention(&query, &all, &all, 4, None).unwrap();
            let rows = &compact.rows;
            let result = attention(&query, rows, rows, 4, Some(&compact.key_bias)).unwrap();
            assert_close("result", &result, &expected, 1e-6);
        }
        // A prompt of k tokens takes k + 1 rows.
        let one = |tokens| {
            let (input_ids, mask) = prompts(&[tokens], LENGTH, VOCAB_SIZE);
            encoder.encode_compact(&input_ids, &mask).unwrap().rows.dims().to_vec()
        };
        assert_eq!(one(2), [1, 3, 20]);
        assert_eq!(one(76), [1, 77, 20]);
        assert_eq!(one(77), [1, 77, 20]);
    }
}

#[test]
fn padding_does_not_change_a_prompt() {
    for model in 0..MODELS.len() {
        let encoder = encoder(model, true, DType::F32);
        let tokens = 9;
        let unpadded = {
            let (input_ids, mask) = prompts(&[tokens], tokens, VOCAB_SIZE);
            encoder.forward(&input_ids, &mask).unwrap()
        };
        for length in [tokens + 1, 20, LENGTH] {
            let (input_ids, mask) = prompts(&[tokens], length, VOCAB_SIZE);
            let padded = encoder.forward(&input_ids, &mask).unwrap();
            assert_close("padded", &padded.narrow(1, 0, tokens as usize).unwrap(), &unpadded, 1e-6);
        }
    }
}

#[test]
fn a_batch_does_not_change_its_members() {
    let lengths = [2, 77, 9, 30];
    let (input_ids, mask) = prompts(&lengths, LENGTH, VOCAB_SIZE);
    for (model, use_mask) in [(0, true), (0, false), (1, true), (1, false)] {
        let encoder = encoder(model, use_mask, DType::F32);
        let batch = encoder.forward(&input_ids, &mask).unwrap();
        for (index, &tokens) in lengths.iter().enumerate() {
            let (input_ids, mask) = prompts(&[tokens], LENGTH, VOCAB_SIZE);
            let alone = encoder.forward(&input_ids, &mask).unwrap();
            assert_close("batch", &batch.narrow(0, index, 1).unwrap(), &alone, 1e-6);
        }
    }
}

#[test]
fn every_weight_that_counts_gets_a_gradient() {
    for (folder, _) in MODELS {
        let config = model_config(folder);
        let (encoder, variables) = trainable(&config);
        let (input_ids, mask) = prompts(&[3, 9], LENGTH, VOCAB_SIZE);
        let hidden = encoder.forward(&input_ids, &mask).unwrap();
        let gradients = (&hidden * normal(2, hidden.dims())).unwrap().sum_all().unwrap().backward().unwrap();
        let last_layer = format!("roberta.encoder.layer.{}.", config.encoder.num_hidden_layers - 1);
        for (name, variable) in variables.data().lock().unwrap().iter() {
            let unused = config.has_pre_transformation && name.starts_with(&last_layer);
            let gradient = gradients.get(variable);
            assert_eq!(gradient.is_none(), unused, "{name}");
            if let Some(gradient) = gradient {
                assert!(
                    gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.,
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn input_that_cannot_be_encoded_is_named() {
    let encoder = encoder(0, true, DType::F32);
    let error = |ids: Vec<u32>, mask: Vec<u32>| {
        let tensor = |row: Vec<u32>| Tensor::new(vec![row], &Device::Cpu).unwrap();
        encoder.forward(&tensor(ids), &tensor(mask)).unwrap_err().to_string()
    };
    let message = error(vec![0, VOCAB_SIZE, 2], vec![1; 3]);
    assert!(message.contains("token id 3002 is outside the vocabulary of 3002 tokens"), "{message}");
    let message = error(vec![5; 513], vec![1; 513]);
    assert!(message.contains("513 tokens") && message.contains("positions for 512"), "{message}");
    let message = error(vec![0, 2], vec![1; 3]);
    assert!(message.contains("[1, 3], expected that of the ids, [1, 2]"), "{message}");
    let message = error(vec![0, 2], vec![0; 2]);
    assert!(message.contains("hides every token of prompt 0"), "{message}");
}

#[test]
fn weights_that_do_not_fit_are_named_and_extra_ones_are_not() {
    let (folder, path) = MODELS[0];
    let config = model_config(folder);
    let build = |change: &dyn Fn(&mut std::collections::HashMap<String, Tensor>)| {
        let mut weights = golden_tensors(path);
        change(&mut weights);
        TextEncoder::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))
    };
    let names: Vec<String> = golden_tensors(path).into_keys().collect();
    for name in
        names.iter().filter(|name| name.starts_with("roberta.e") || name.starts_with("transformation."))
    {
        let error = build(&|weights| drop(weights.remove(name))).unwrap_err().to_string();
        assert!(error.contains(name.as_str()), "{name}: {error}");
        let error =
            build(&|weights| drop(weights.insert(name.clone(), normal(3, &[3, 5])))).unwrap_err().to_string();
        assert!(error.contains(name.as_str()), "{name}: {error}");
    }
    let extra = ["roberta.pooler.dense.weight", "logit_scale", "roberta.embeddings.position_ids"];
    build(&|weights| weights.extend(extra.map(|name| (name.into(), normal(4, &[2, 2]))))).unwrap();
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let config = model_config(MODELS[0].0);
    let error = |change: &dyn Fn(&mut TextEncoderConfig)| {
        let mut config = config.clone();
        change(&mut config);
        config.encoder.check().unwrap_err()
    };
    assert!(error(&|c| c.encoder.num_attention_heads = 3).contains("num_attention_heads 3"));
    assert!(error(&|c| c.encoder.num_attention_heads = 0).contains("num_attention_heads 0"));
    assert!(error(&|c| c.encoder.num_hidden_layers = 0).contains("num_hidden_layers is 0"));
    assert!(error(&|c| c.encoder.type_vocab_size = 0).contains("type_vocab_size is 0"));
    assert!(error(&|c| c.encoder.max_position_embeddings = 2).contains("max_position_embeddings 2"));
    assert!(error(&|c| c.encoder.pad_token_id = VOCAB_SIZE).contains("pad_token_id 3002"));
    assert!(error(&|c| c.encoder.layer_norm_eps = f64::NAN).contains("layer_norm_eps"));

    let parse = |json: &str| serde_json::from_str::<TextEncoderConfig>(json).unwrap_err().to_string();
    let message = parse(r#"{"hidden_act": "relu"}"#);
    assert!(message.contains("`relu`, expected one of `gelu`"), "{message}");
    let message = parse(r#"{"hidden_size": 15}"#);
    assert!(message.contains("hidden_size 15 is not a multiple"), "{message}");
    let message = parse(r#"{"position_embedding_type": "relative_key"}"#);
    assert!(message.contains("`relative_key`, expected `absolute`"), "{message}");
}

#[test]
fn a_field_left_out_has_its_value_in_transformers() {
    let config: TextEncoderConfig = serde_json::from_str("{}").unwrap();
    assert!(config.use_attention_mask && !config.has_pre_transformation);
    assert_eq!(
        (config.project_dim, config.encoder.hidden_size, config.encoder.vocab_size),
        (512, 768, 30522)
    );
    assert_eq!(config.encoder.layer_norm_eps, 1e-12);
}
