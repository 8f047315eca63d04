//! Tests `altdiffusion inspect` and `altdiffusion machine`.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{ModelCopy, golden_model, run, succeeded};
use serde_json::Value;
use test_support::TestResult;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn inspect(model: &str) -> TestResult<(Option<i32>, Value, String)> {
    let directory = tempfile::tempdir()?;
    let output = run(directory.path(), &["inspect", model, "--json"])?;
    let report = serde_json::from_slice(&output.stdout)?;
    Ok((output.status.code(), report, String::from_utf8(output.stderr)?))
}

/// The report on a folder.
fn part<'a>(report: &'a Value, folder: &str) -> TestResult<&'a Value> {
    let parts = report["parts"].as_array().ok_or("parts")?;
    parts.iter().find(|part| part["folder"] == folder).ok_or_else(|| format!("{report}: no {folder}").into())
}

#[test]
fn a_whole_model_lacks_nothing() -> TestResult {
    for (model, folders) in [
        ("alt_diffusion", &["text_encoder", "unet", "vae"][..]),
        ("alt_diffusion_m18", &["text_encoder", "unet", "vae"]),
        ("dual_encoders/altclip", &[""]),
        ("dual_encoders/clip", &[""]),
        ("dual_encoders/chinese_clip", &[""]),
    ] {
        let (code, report, errors) = inspect(&golden_model(model)?)?;
        // The golden AltCLIPs have no tokenizer, which loading does not need.
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{model}: {report}");
        for folder in folders {
            let part = part(&report, folder)?;
            assert_eq!(part["missing"], serde_json::json!([]), "{model}");
            assert_eq!(part["misshapen"], serde_json::json!([]), "{model}");
            assert!(part["parameters"].as_u64() > Some(0), "{model}");
        }
    }
    Ok(())
}

#[test]
fn the_model_inside_the_program_is_a_pipeline_and_a_dual_encoder() -> TestResult {
    let directory = tempfile::tempdir()?;
    let printed = succeeded(&run(directory.path(), &["inspect"])?);
    let first = printed.lines().next().unwrap_or_default();
    assert_eq!(
        first, "the built-in model: AltDiffusion pipeline; dual encoder of the family AltDiffusion",
        "{printed}"
    );
    assert!(printed.contains("image_encoder") && printed.contains("F16 × "), "{printed}");
    Ok(())
}

#[test]
fn a_pipeline_is_called_by_its_text_encoder() -> TestResult {
    let directory = tempfile::tempdir()?;
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/conditioners");
    for (model, expected) in
        [("sd2", "Stable Diffusion pipeline with CLIP"), ("taiyi", "Stable Diffusion pipeline with BERT")]
    {
        let output = run(directory.path(), &["inspect", &format!("{golden}/{model}")])?;
        let printed = String::from_utf8(output.stdout)?;
        assert!(printed.lines().next().is_some_and(|line| line.contains(expected)), "{model}: {printed}");
    }
    Ok(())
}

#[test]
fn what_is_missing_misshapen_or_unexpected_is_named() -> TestResult {
    let model = ModelCopy::of("alt_diffusion")?;
    model.change_tensors(UNET, |tensors| {
        tensors.remove("conv_in.weight");
        tensors.insert("conv_out.bias".to_owned(), Tensor::zeros(7, DType::F32, &Device::Cpu)?);
        tensors.insert("ema.decay".to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
        Ok(())
    })?;
    let (code, report, errors) = inspect(&model.argument())?;
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("error: ") && errors.contains("2 tensors") && errors.lines().count() == 1);
    let unet = part(&report, "unet")?;
    assert_eq!(unet["missing"][0]["name"], "conv_in.weight");
    assert_eq!(unet["missing"].as_array().map(Vec::len), Some(1));
    assert_eq!(unet["misshapen"][0]["name"], "conv_out.bias");
    assert_eq!(
        (&unet["misshapen"][0]["found"], unet["misshapen"].as_array().map(Vec::len)),
        (&serde_json::json!([7]), Some(1))
    );
    assert_eq!(unet["unexpected"], serde_json::json!(["ema.decay"]));
    Ok(())
}

#[test]
fn weights_of_other_types_are_told_and_those_that_cannot_be_read_are_problems() -> TestResult {
    let model = ModelCopy::of("alt_diffusion")?;
    model.change_tensors(UNET, |tensors| {
        let weight = tensors.get_mut("conv_in.weight").ok_or_else(|| candle_core::Error::msg("conv_in"))?;
        *weight = weight.to_dtype(DType::F8E4M3)?;
        Ok(())
    })?;
    let (code, report, errors) = inspect(&model.argument())?;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(part(&report, "unet")?["dtypes"]["F8_E4M3"], 1);

    let (known, unknown) =
        (&b"\"conv_out.bias\":{\"dtype\":\"F32\""[..], b"\"conv_out.bias\":{\"dtype\":\"X32\"");
    model.change(UNET, |bytes| {
        let at = bytes.windows(known.len()).position(|window| window == known).unwrap_or_default();
        bytes[at..at + unknown.len()].copy_from_slice(unknown);
    })?;
    let (code, report, errors) = inspect(&model.argument())?;
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("1 tensors") && errors.contains("cannot be read") && errors.lines().count() == 1,
        "{errors}"
    );
    let unreadable = &part(&report, "unet")?["unreadable"];
    assert_eq!(unreadable[0]["name"], "conv_out.bias");
    assert_eq!(unreadable[0]["problem"], "its elements are of type X32, which is not known");
    Ok(())
}

#[test]
fn a_configuration_cannot_ask_for_layers_without_number() -> TestResult {
    for layers in ["2147483648", "18446744073709551615", "1000000"] {
        let model = ModelCopy::of("dual_encoders/altclip")?;
        model.replace(
            "config.json",
            "\"num_hidden_layers\": 2",
            &format!("\"num_hidden_layers\": {layers}"),
        )?;
        let output = run(model.path("").as_path(), &["inspect", "."])?;
        let error = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.contains("num_hidden_layers is") && error.contains("expected at most 1024"), "{error}");
    }
    Ok(())
}

#[test]
fn a_tokenizer_that_does_not_fit_is_a_problem() -> TestResult {
    let model = ModelCopy::of("dual_encoders/clip")?;
    let rows = 634;
    std::fs::write(
        model.path("added_tokens.json"),
        format!(r#"{{"<cat-toy>": {rows}, "<dog>": {}}}"#, rows + 1),
    )?;
    let (code, _, errors) = inspect(&model.argument())?;
    assert_eq!(code, Some(1));
    assert!(errors.contains("2 added tokens have no embedding") && errors.contains("<cat-toy>"), "{errors}");

    std::fs::remove_file(model.path("added_tokens.json"))?;
    std::fs::write(model.path("vocab.json"), b"{\"a\": 1")?;
    let (code, _, errors) = inspect(&model.argument())?;
    assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("vocab.json: expected an object of tokens"), "{errors}");
    Ok(())
}

#[test]
fn what_is_no_model_is_one_line() -> TestResult {
    let directory = tempfile::tempdir()?;
    let output = run(directory.path(), &["inspect", "."])?;
    let error = String::from_utf8(output.stderr)?;
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("config.json"), "{error}");
    Ok(())
}

#[test]
fn the_machine_is_measured() -> TestResult {
    let directory = tempfile::tempdir()?;
    let report: Value = serde_json::from_str(&succeeded(&run(directory.path(), &["machine", "--json"])?))?;
    let types = report["types"].as_array().ok_or("types")?;
    let names: Vec<_> = types.iter().filter_map(|of| of["dtype"].as_str()).collect();
    assert_eq!(names, ["f32", "f16", "bf16", "int8", "quantized"]);
    for of in types {
        assert!(of["gflops"].as_f64() > Some(0.) && of["instructions"].is_string(), "{report}");
    }
    let arithmetic: Vec<_> = types.iter().filter_map(|of| of["arithmetic"].as_str()).collect();
    assert!(arithmetic[2] == "f32" || arithmetic[2] == "bf16", "{report}");
    assert_eq!([arithmetic[0], arithmetic[1], arithmetic[3], arithmetic[4]], ["f32", "f32", "int8", "f32"]);
    // The table for programs: tab-separated columns.
    let table = succeeded(&run(directory.path(), &["machine"])?);
    assert!(table.lines().all(|line| line.split('\t').count() == 5), "{table}");
    Ok(())
}
