//! Compares every kind of adapter with the libraries that write them, LyCORIS and PEFT, and rejects files that are
//! none.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use altdiffusion_pipeline::{AltDiffusion, LoadOptions, Lora, ModelParts};
use candle_core::{DType, Device, Tensor, safetensors};
use model_files::source::ModelSource;
use test_support::{
    MODULE_TOLERANCE, TestResult, error_message, golden, golden_tensors, normal, relative_error,
};

const MODEL: &str = "alt_diffusion";
/// A layer of the UNet in diffusers' and kohya's naming, with 8 inputs and outputs.
const LAYER: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const KOHYA_LAYER: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";

fn kind(name: &str) -> PathBuf {
    golden("adapter_kinds").join(name)
}

fn load_with(loras: Vec<(Lora, f64)>, beside: bool) -> altdiffusion_pipeline::Result<AltDiffusion> {
    let options = LoadOptions::new(DType::F32, &Device::Cpu).loras_beside_weights(beside);
    let options = loras.into_iter().fold(options, |options, (lora, strength)| options.lora(lora, strength));
    AltDiffusion::load(ModelParts::in_folders(&ModelSource::directory(golden(MODEL)))?, options)
}

fn load(lora: Lora, strength: f64) -> altdiffusion_pipeline::Result<AltDiffusion> {
    load_with(vec![(lora, strength)], false)
}

fn open(path: &Path) -> TestResult<Lora> {
    Ok(Lora::open(path.to_str().ok_or("a path that is no text")?)?)
}

/// The UNet's output for its golden input.
fn unet_output(pipeline: &AltDiffusion) -> TestResult<Tensor> {
    let golden = golden_tensors("unet.safetensors");
    let [sample, steps, states] = ["sample", "timesteps", "encoder_hidden_states"]
        .map(|name| golden.get(&format!("{MODEL}.square.{name}")).ok_or("no such value"));
    Ok(pipeline.unet()?.forward_with_hidden_states(sample?, steps?, states?)?)
}

/// The text encoder's output for its golden input.
fn text_output(pipeline: &AltDiffusion) -> TestResult<Tensor> {
    let golden = golden_tensors("text_encoder.safetensors");
    let [ids, mask] = ["input_ids", "attention_mask"].map(|name| golden.get(name).ok_or("no such value"));
    Ok(pipeline.text_encoder()?.forward(&ids?.to_dtype(DType::U32)?, &mask?.to_dtype(DType::U32)?)?)
}

fn output(part: &str, pipeline: &AltDiffusion) -> TestResult<Tensor> {
    if part.contains("text") { text_output(pipeline) } else { unet_output(pipeline) }
}

/// Writes a file of tensors and opens it.
fn lora_of(folder: &Path, tensors: &[(&str, Tensor)]) -> TestResult<Result<Lora, String>> {
    let tensors: HashMap<String, Tensor> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    let file = folder.join("adapter.safetensors");
    safetensors::save(&tensors, &file)?;
    Ok(Lora::open(file.to_str().ok_or("a path that is no text")?).map_err(|error| error.to_string()))
}

#[test]
fn every_kind_is_as_its_library_computes_it() -> TestResult {
    let golden = golden_tensors("adapter_kinds/golden.safetensors");
    let strengths: BTreeMap<String, f64> = serde_json::from_slice(&std::fs::read(kind("strengths.json"))?)?;
    let plain = load_with(Vec::new(), false)?;
    assert_eq!(golden.len(), 31);
    for (name, expected) in &golden {
        let file = match name.split_once('.') {
            Some((file, _)) => kind(&format!("{file}.safetensors")),
            None if name.starts_with("peft_") => kind(name),
            None => kind(&format!("{name}.safetensors")),
        };
        let pipeline = load(open(&file)?, strengths.get(name).copied().unwrap_or(1.0))?;
        let found = output(name, &pipeline)?;
        let error = relative_error(&found, expected);
        let changed = relative_error(&found, &output(name, &plain)?);
        println!("{name}: {error:.1e}, {changed:.2} from the model alone");
        assert!(error <= MODULE_TOLERANCE, "{name}: {error:.1e}");
        assert!(changed > 100.0 * MODULE_TOLERANCE, "{name} changes only {changed:.1e}");
    }
    Ok(())
}

/// What is not a product of two matrices cannot be computed beside a weight, and is merged.
#[test]
fn every_kind_is_the_same_beside_weights() -> TestResult {
    for name in ["lora", "lora_tucker", "dora_output", "loha", "lokr", "ia3", "norm", "glora", "oft"] {
        let file = kind(&format!("{name}.safetensors"));
        let merged = unet_output(&load(open(&file)?, 0.6)?)?;
        let beside = unet_output(&load_with(vec![(open(&file)?, 0.6)], true)?)?;
        let error = relative_error(&beside, &merged);
        assert!(error <= MODULE_TOLERANCE, "{name}: {error:.1e}");
    }
    Ok(())
}

/// kohya's scripts have the same blocks under another beginning.
#[test]
fn the_rotations_of_kohya_are_those_of_lycoris() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("oft.safetensors");
    let tensors = safetensors::load(kind("oft_limited.safetensors"), &Device::Cpu)?;
    let renamed = tensors.into_iter().map(|(name, tensor)| (name.replace("lora_unet_", "oft_unet_"), tensor));
    safetensors::save(&renamed.collect::<HashMap<_, _>>(), &file)?;
    let found = unet_output(&load(open(&file)?, 1.0)?)?;
    let expected = &golden_tensors("adapter_kinds/golden.safetensors")["oft_limited"];
    let error = relative_error(&found, expected);
    assert!(error <= MODULE_TOLERANCE, "{error:.1e}");
    Ok(())
}

/// The configuration beside PEFT's OFT says how it turns inputs; here by hand, on the weight itself.
#[test]
fn rotations_of_peft_turn_inputs() -> TestResult {
    let weights =
        safetensors::load(golden(MODEL).join("unet/diffusion_pytorch_model.safetensors"), &Device::Cpu)?;
    let weight = weights.get(&format!("{LAYER}.weight")).ok_or("no such layer")?.to_vec2::<f32>()?;
    let above = [0.5f32, -0.25, 0.0, 2.0];
    let factors: Vec<f32> = (0..8u8).map(|row| 1.0 + f32::from(row) / 8.0).collect();
    // What the exact transform of every pair of inputs adds, and BOFT's factors of outputs.
    let added = |is_rescaled: bool| -> TestResult<Tensor> {
        let mut added = Vec::new();
        for (row, factor) in weight.iter().zip(&factors) {
            let factor = if is_rescaled { *factor } else { 1.0 };
            for (pair, q) in row.chunks_exact(2).zip(above) {
                let [first, second] = [pair[0], pair[1]];
                let (cosine, sine) = ((1.0 - q * q) / (1.0 + q * q), 2.0 * q / (1.0 + q * q));
                added.push(factor * (cosine * first - sine * second) - first);
                added.push(factor * (sine * first + cosine * second) - second);
            }
        }
        Ok(Tensor::from_vec(added, (8, 8), &Device::Cpu)?)
    };
    let peft = |config: &str, tensors: &[(&str, Tensor)]| -> TestResult<Tensor> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("adapter_config.json"), config)?;
        let named =
            |(role, tensor): &(&str, Tensor)| (format!("base_model.model.{LAYER}.{role}"), tensor.clone());
        let tensors: HashMap<String, Tensor> = tensors.iter().map(named).collect();
        safetensors::save(&tensors, folder.path().join("adapter_model.safetensors"))?;
        unet_output(&load(open(folder.path())?, 1.0)?)
    };
    let expected = |is_rescaled| -> TestResult<Tensor> {
        let folder = tempfile::tempdir()?;
        let difference = format!("{KOHYA_LAYER}.diff");
        unet_output(&load(lora_of(folder.path(), &[(&difference, added(is_rescaled)?)])??, 1.0)?)
    };
    let config = r#"{"peft_type": "OFT", "r": 4, "oft_block_size": 0, "use_cayley_neumann": false}"#;
    let triangles = Tensor::from_slice(&above, (4, 1), &Device::Cpu)?;
    let found = peft(config, &[("oft_R.weight", triangles)])?;
    assert!(relative_error(&found, &expected(false)?) <= MODULE_TOLERANCE);

    // BOFT halves what it subtracts.
    let blocks: Vec<f32> = above.iter().flat_map(|q| [7.0, 2.0 * q, 0.0, -3.0]).collect();
    let blocks = Tensor::from_vec(blocks, (1, 4, 2, 2), &Device::Cpu)?;
    let rescale = Tensor::from_slice(&factors, (8, 1), &Device::Cpu)?;
    let config = r#"{"peft_type": "BOFT", "boft_block_size": 2, "boft_n_butterfly_factor": 1}"#;
    let found = peft(config, &[("boft_R", blocks), ("boft_s", rescale)])?;
    assert!(relative_error(&found, &expected(true)?) <= MODULE_TOLERANCE);

    // Without a rotation, the model is unchanged.
    let plain = unet_output(&load_with(Vec::new(), false)?)?;
    let config = r#"{"peft_type": "OFT", "r": 4, "use_cayley_neumann": true, "peft_version": "0.21.2"}"#;
    let zeros = Tensor::zeros((4, 1), DType::F32, &Device::Cpu)?;
    assert_eq!(relative_error(&peft(config, &[("oft_R.weight", zeros)])?, &plain), 0.0);
    Ok(())
}

#[test]
fn the_order_of_loras_does_not_matter() -> TestResult {
    let all = ["dora_output", "lora", "ia3", "full"].map(|name| kind(&format!("{name}.safetensors")));
    let loras = all.iter().map(|file| Ok((open(file)?, 0.5))).collect::<TestResult<Vec<_>>>()?;
    let forwards = unet_output(&load_with(loras.clone(), false)?)?;
    let backwards = unet_output(&load_with(loras.into_iter().rev().collect(), false)?)?;
    let error = relative_error(&forwards, &backwards);
    assert!(error <= MODULE_TOLERANCE, "{error:.1e}");
    Ok(())
}

#[test]
fn at_strength_0_nothing_changes() -> TestResult {
    let plain = unet_output(&load_with(Vec::new(), false)?)?;
    for name in ["lora.safetensors", "dora_output.safetensors", "peft_dora", "peft_saved", "ia3.safetensors"]
    {
        let pipeline = load(open(&kind(name))?, 0.0)?;
        assert_eq!(relative_error(&unet_output(&pipeline)?, &plain), 0.0, "{name}");
    }
    Ok(())
}

/// diffusers stores in the metadata what PEFT stores in a file.
#[test]
fn metadata_of_adapters_counts() -> TestResult {
    let folder = tempfile::tempdir()?;
    let lora = |metadata: Option<&str>, strength: f64| -> TestResult<Result<Tensor, String>> {
        let down = normal(1, &[2, 8]);
        let up = normal(2, &[8, 2]);
        let names = [format!("unet.{LAYER}.lora_A.weight"), format!("unet.{LAYER}.lora_B.weight")];
        let file = folder.path().join("named.safetensors");
        let metadata = metadata
            .map(|metadata| HashMap::from([("lora_adapter_metadata".to_owned(), metadata.to_owned())]));
        let [down_name, up_name] = &names;
        ::safetensors::serialize_to_file([(down_name, &down), (up_name, &up)], metadata, &file)?;
        match Lora::open(file.to_str().ok_or("a path that is no text")?) {
            Ok(lora) => Ok(Ok(unet_output(&load(lora, strength)?)?)),
            Err(error) => Ok(Err(error.to_string())),
        }
    };
    for (metadata, scale) in [
        (r#"{"unet.r": 2, "unet.lora_alpha": 4, "unet.target_modules": ["to_q"]}"#, 2.0),
        (r#"{"unet.r": 2, "unet.lora_alpha": 4, "unet.use_rslora": true}"#, 2f64.sqrt() * 2.0),
        (r#"{"unet.r": 4, "unet.lora_alpha": 4, "unet.rank_pattern": {"attn1.to_q": 2}}"#, 2.0),
        (r#"{"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"attn\\d\\.to_q": 1}}"#, 0.5),
        (r#"{"text_encoder.r": 2, "text_encoder.lora_alpha": 4}"#, 1.0),
        (r#"{"unet.r": 2, "unet.lora_alpha": 1, "unet.unheard_of": [1]}"#, 0.5),
    ] {
        let error = relative_error(&lora(Some(metadata), 1.0)??, &lora(None, scale)??);
        assert!(error <= MODULE_TOLERANCE, "{metadata}: {error:.1e}");
    }
    for (metadata, problem) in [
        ("{", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        (r#"{"unet.r": 8, "unet.lora_alpha": 8}"#, "has rank 8, but its matrices have rank 2"),
        (r#"{"unet.lora_alpha": null, "unet.alpha_pattern": {"a": null}}"#, "expected a number"),
        (r#"{"unet.rank_pattern": {"(": 1}}"#, "unclosed group"),
        (r#"{"unet.use_dora": true}"#, "expected DoRA's magnitudes"),
        (r#"{"unet.init_lora_weights": "olora"}"#, "changes the base model too"),
    ] {
        let error = lora(Some(metadata), 1.0)?.err().unwrap_or_default();
        assert!(error.contains("named.safetensors") && error.contains(problem), "{metadata}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
    Ok(())
}

/// Trainers name the model in the metadata, which explains a misfit.
#[test]
fn metadata_of_trainers_is_shown_where_a_lora_does_not_fit() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lora.safetensors");
    let (down, up) = (normal(1, &[2, 1280]), normal(2, &[320, 2]));
    let names = ["lora_down", "lora_up"].map(|role| format!("{KOHYA_LAYER}.{role}.weight"));
    let [down_name, up_name] = &names;
    for (metadata, shown) in [
        (vec![("ss_base_model_version", "sd_v1"), ("ss_network_dim", "2")], " (its file says sd_v1):"),
        (
            vec![("modelspec.architecture", "stable-diffusion-v1/lora")],
            " (its file says stable-diffusion-v1/lora):",
        ),
        (vec![("ss_base_model_version", "two\nlines")], "another architecture: it changes"),
        (vec![("ss_network_alpha", "NaN")], "another architecture: it changes"),
    ] {
        let metadata: HashMap<String, String> =
            metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        ::safetensors::serialize_to_file([(down_name, &down), (up_name, &up)], Some(metadata), &file)?;
        let error = error_message(load(open(&file)?, 1.0));
        assert!(error.contains(shown) && error.contains("320 × 1280 values"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    Ok(())
}

/// LyCORIS without kohya's scripts, early LyCORIS, and names of latent diffusion.
#[test]
fn other_names_of_lycoris_are_the_same() -> TestResult {
    let folder = tempfile::tempdir()?;
    let renamed = |kind_name: &str, rename: &dyn Fn(&str) -> String| -> TestResult<Tensor> {
        let original = safetensors::load(kind(&format!("{kind_name}.safetensors")), &Device::Cpu)?;
        let tensors: HashMap<String, Tensor> =
            original.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        let file = folder.path().join("renamed.safetensors");
        safetensors::save(&tensors, &file)?;
        unet_output(&load(open(&file)?, 1.0)?)
    };
    let same = |kind_name: &str, rename: &dyn Fn(&str) -> String| -> TestResult {
        let expected = renamed(kind_name, &str::to_owned)?;
        assert_eq!(relative_error(&renamed(kind_name, rename)?, &expected), 0.0, "{kind_name}");
        Ok(())
    };
    same("lokr", &|name| name.replace("lora_unet_", "lycoris_"))?;
    same("loha", &|name| name.replace("down_blocks_0_attentions_0", "input_blocks_1_1"))?;
    same("glora", &|name| {
        let (layer, role) = name.split_once('.').unwrap_or((name, ""));
        let role = match role.split_once('.') {
            Some((matrix @ ("a1" | "a2" | "b1" | "b2"), rest)) => {
                let (letter, number) = matrix.split_at(1);
                format!("{letter}{}.{rest}", if number == "1" { 2 } else { 1 })
            }
            _ => role.to_owned(),
        };
        format!("{layer}.{role}")
    })
}

#[test]
fn adapters_that_do_not_fit_are_errors() -> TestResult {
    let folder = tempfile::tempdir()?;
    let number = |value: f32| Tensor::new(value, &Device::Cpu);
    let name = |role: &str| format!("{KOHYA_LAYER}.{role}");
    let [down, up, alpha] = ["lora_down.weight", "lora_up.weight", "alpha"].map(name);
    let (good_down, good_up) = (normal(1, &[2, 8]), normal(2, &[8, 2]));
    let empty = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let unread: Vec<(Vec<(&str, Tensor)>, &str)> = vec![
        (
            vec![(&down, empty(&[0, 8])?), (&up, empty(&[8, 0])?)],
            "expected matrices (rank, in) and (out, rank)",
        ),
        (
            vec![(&down, good_down.clone()), (&up, normal(2, &[8, 3]))],
            "expected matrices (rank, in) and (out, rank)",
        ),
        (vec![(&down, good_down.clone()), (&up, normal(2, &[8, 2, 3, 3]))], "expected matrices (rank, in)"),
        (vec![(&down, good_down.clone())], "expected a LoRA's up matrix, found none"),
        (
            vec![(&down, good_down.clone()), (&up, good_up.clone()), (&alpha, number(f32::NAN)?)],
            "NaN or infinity",
        ),
        (vec![(&down, good_down.clone()), (&up, (&good_up * f64::INFINITY)?)], "NaN or infinity"),
        (
            vec![(&down, good_down.clone()), (&up, good_up.clone()), (&alpha, normal(1, &[2]))],
            "expected one number",
        ),
        (
            vec![(&down, empty(&[20_000, 1])?), (&up, empty(&[1, 20_000])?)],
            "expected a rank of at most 16384",
        ),
    ];
    for (tensors, problem) in unread {
        let error = lora_of(folder.path(), &tensors)?.err().unwrap_or_default();
        assert!(error.contains("adapter.safetensors") && error.contains(problem), "{error}");
    }
    let [w1, w2, w1_a, w1_b, w2_a, w2_b] =
        ["lokr_w1", "lokr_w2", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"].map(name);
    let [dora, core, difference, bias] = ["dora_scale", "lora_mid.weight", "diff", "diff_b"].map(name);
    let one = "lora_unet_down_blocks_9_conv.diff";
    let unfit: Vec<(Vec<(&str, Tensor)>, &str)> = vec![
        // Multiplied out, it would be far larger than memory.
        (
            vec![(&down, normal(1, &[1, 1_000_000])), (&up, normal(2, &[1_000_000, 1]))],
            "1000000 × 1000000 values",
        ),
        (vec![(&w1, normal(1, &[3000, 3000])), (&w2, normal(2, &[3000, 3000]))], "9000000 × 9000000 values"),
        (
            vec![
                (&w1_a, normal(1, &[8, 2])),
                (&w1_b, normal(2, &[2, 8])),
                (&w2_a, normal(3, &[4, 2])),
                (&w2_b, normal(4, &[2, 16])),
            ],
            "for another architecture",
        ),
        (
            vec![(&down, good_down.clone()), (&up, good_up.clone()), (&dora, normal(1, &[4, 1]))],
            "4 magnitudes of outputs",
        ),
        (
            vec![(&down, good_down.clone()), (&up, good_up.clone()), (&dora, normal(1, &[1, 4]))],
            "4 magnitudes of inputs",
        ),
        (
            vec![(&down, normal(1, &[2, 8])), (&core, normal(2, &[2, 2, 3, 3])), (&up, good_up.clone())],
            "8 × 72 values",
        ),
        (vec![(&difference, normal(1, &[4, 16]))], "[4, 16] values"),
        (vec![(&bias, normal(1, &[8]))], "has no bias in the layer"),
        (vec![(one, normal(1, &[8]))], "has no layer down_blocks_9_conv, one of 1 that are not there"),
    ];
    for (tensors, problem) in unfit {
        let lora = lora_of(folder.path(), &tensors)??;
        for beside in [false, true] {
            let error = error_message(load_with(vec![(lora.clone(), 1.0)], beside));
            assert!(error.contains("for another architecture"), "{error}");
            // Beside a weight, the layer itself words the error.
            assert!(beside || error.contains(problem), "{error}");
        }
    }
    Ok(())
}

/// The names that adapters of other models have, as their trainers write them.
#[test]
fn adapters_for_other_models_are_named() -> TestResult {
    let folder = tempfile::tempdir()?;
    let matrix = normal(1, &[4, 4]);
    for (tensor, problem) in [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "for Stable Diffusion XL or 3"),
        ("text_encoders.clip_g.transformer.text_model.x.lora_up.weight", "for Stable Diffusion XL or 3"),
        ("unet.add_embedding.linear_1.lora_A.weight", "for Stable Diffusion XL"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "for FLUX"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", "for FLUX"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight", "for Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight", "for Stable Diffusion 3 or FLUX"),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "for a video model"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "for a language model"),
        ("lora_unet_conv_in.oft_diag", "found a diag-OFT under its first name"),
        ("lora_unet_conv_in.oft_blocks", "expected OFT's blocks (count, size, size)"),
        (
            "base_model.model.conv_in.oft_R.weight",
            "found an OFT of PEFT: expected adapter_config.json beside it",
        ),
        ("base_model.model.conv_in.oft_r", "found a OFT of an early PEFT"),
        ("base_model.model.conv_in.boft_R.default", "expected BOFT's factors of outputs, boft_s"),
        ("base_model.model.conv_in.vera_lambda_b", "found a VeRA"),
        ("unet.conv_in.something_else", "found the tensor unet.conv_in.something_else"),
        ("model.diffusion_model.input_blocks.0.0.weight", "found the tensor model.diffusion_model"),
    ] {
        let error = lora_of(folder.path(), &[(tensor, matrix.clone())])?.err().unwrap_or_default();
        assert!(error.contains(problem), "{tensor}: {error}");
    }
    // What can be left out is reported when it is reached.
    let [down, up] = ["lora_down", "lora_up"]
        .map(|role| format!("lora_te_text_model_encoder_layers_0_mlp_fc1.{role}.weight"));
    let clip = lora_of(folder.path(), &[(&down, matrix.clone()), (&up, matrix)])??;
    let error = error_message(load(clip.clone(), 1.0));
    assert!(error.contains("the layer is one of CLIP's text encoder"), "{error}");
    assert_eq!(clip.without_text_encoder().layers(), 0);
    Ok(())
}

#[test]
fn words_in_a_lora_are_learned() -> TestResult {
    let folder = tempfile::tempdir()?;
    let [down, up] = ["lora_down.weight", "lora_up.weight"].map(|role| format!("{KOHYA_LAYER}.{role}"));
    let with = |tensor: &str, vectors: &Tensor| {
        let matrices = [(down.as_str(), normal(1, &[2, 8])), (up.as_str(), normal(2, &[8, 2]))];
        lora_of(folder.path(), &[matrices.as_slice(), &[(tensor, vectors.clone())]].concat())
    };
    let vectors = normal(3, &[2, 16]);
    for tensor in
        ["bundle_emb.ink-cat.emb_params", "bundle_emb.ink-cat.string_to_param.*", "bundle_emb.ink-cat.clip_l"]
    {
        let lora = with(tensor, &vectors)??;
        assert_eq!(lora.layers(), 1);
        let [word] = lora.words() else { return Err(format!("{tensor}: {:?}", lora.words()).into()) };
        assert_eq!(word.word(), "ink-cat");
        assert_eq!(relative_error(word.vectors(), &vectors), 0.0);
        let pipeline = load(lora.clone(), 1.0)?;
        // Two learned tokens between begin and end.
        assert_eq!(pipeline.tokenizer()?.encode("ink-cat")?.len(), 4, "{tensor}");
        assert!(lora.without_text_encoder().words().is_empty());
    }
    let wide = error_message(load(with("bundle_emb.a.emb_params", &normal(3, &[1, 768]))??, 1.0));
    assert!(wide.contains("768 values, where those of this model's text encoder have 16"), "{wide}");
    for (tensor, shape, problem) in [
        ("bundle_emb.a.clip_g", [1, 1280], "for the two text encoders of Stable Diffusion XL"),
        ("bundle_emb.a.emb_params", [100, 16], "found shape [100, 16]"),
    ] {
        let error = with(tensor, &normal(3, &shape))?.err().unwrap_or_default();
        assert!(
            error.contains("bundle_emb.a") && error.contains(problem) || error.contains("[100, 16]"),
            "{error}"
        );
    }
    Ok(())
}
