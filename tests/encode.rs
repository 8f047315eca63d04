//! Tests `altdiffusion encode`.

mod common;

use std::fs;
use std::path::Path;

use candle_core::{DType, Tensor};
use common::{failed, golden_model, run, run_with_input, succeeded, tensor, tensors};
use serde_json::Value;
use test_support::{TestResult, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of the hidden states.
const TOLERANCE: f64 = 1e-5;

/// The texts of `tests/golden/text_encoder.safetensors`, from `scripts/golden/text_encoder.py`.
fn texts() -> [String; 5] {
    let long = "cat and dog, ".repeat(40);
    let languages = "Дві кішки п'ють чай, قطة صغيرة, 달빛 고양이, ภาพแมว, चाँदनी रात";
    ["", "一只猫", "a picture of a small dog wearing a red hat", languages, &long].map(str::to_owned)
}

fn encode(directory: &Path, model: &str, arguments: &[&str]) -> TestResult<String> {
    let model = golden_model(model)?;
    let all = [&["encode", "--model", &model, "--output", "out.safetensors"], arguments].concat();
    Ok(succeeded(&run(directory, &all)?))
}

fn rows(tensor: &Tensor) -> TestResult<Vec<Vec<u32>>> {
    Ok(tensor.to_dtype(DType::U32)?.to_vec2()?)
}

#[test]
fn hidden_states_are_those_of_the_reference() -> TestResult {
    let directory = tempfile::tempdir()?;
    let texts = texts();
    let expected = golden_tensors("text_encoder.safetensors");
    for (model, repository) in
        [("alt_diffusion", "alt_diffusion"), ("alt_diffusion_m18", "alt_diffusion_m18")]
    {
        let printed = encode(directory.path(), model, &texts.each_ref().map(String::as_str))?;
        assert_eq!(printed, "out.safetensors: 5 texts\n");
        let found = tensors(&directory.path().join("out.safetensors"))?;
        let mut names: Vec<_> = found.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["attention_mask", "hidden_states", "input_ids"]);
        for name in ["input_ids", "attention_mask"] {
            assert_eq!((found[name].dtype(), found[name].dims()), (DType::U32, [5, 77].as_slice()));
            assert_eq!(rows(&found[name])?, rows(&expected[name])?, "{model}: {name}");
        }
        assert_eq!(found["hidden_states"].dims(), [5, 77, 20]);
        let error = relative_error(&found["hidden_states"], &expected[&format!("{repository}.mask")]);
        println!("{model}: {error:e}");
        assert!(error <= TOLERANCE, "{model}: {error}");
    }
    Ok(())
}

#[test]
fn ids_are_those_of_the_reference_tokenizer() -> TestResult {
    let directory = tempfile::tempdir()?;
    let cases: Vec<Value> = golden_json("tokenizer/cases.json");
    // Some texts cannot be command-line arguments.
    let text = |case: &Value| case["text"].as_str().filter(|text| !text.contains('\0')).map(str::to_owned);
    let (texts, cases): (Vec<String>, Vec<&Value>) =
        cases.iter().filter_map(|case| Some((text(case)?, case))).unzip();
    assert!(texts.len() > 300, "{}", texts.len());
    let arguments: Vec<&str> = std::iter::once("--").chain(texts.iter().map(String::as_str)).collect();
    encode(directory.path(), "alt_diffusion", &arguments)?;
    let ids = rows(&tensor(&directory.path().join("out.safetensors"), "input_ids")?)?;
    assert_eq!(ids.len(), texts.len());
    for ((text, case), ids) in texts.iter().zip(cases).zip(ids) {
        let expected: Vec<u32> = serde_json::from_value(case["input_ids"].clone())?;
        assert_eq!(ids, expected, "{text:?}");
    }
    Ok(())
}

#[test]
fn texts_come_from_arguments_a_file_or_standard_input() -> TestResult {
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("out.safetensors");
    let states = || tensor(&output, "hidden_states");
    encode(directory.path(), "alt_diffusion", &["一只猫", "", "a cat"])?;
    let from_arguments = states()?;

    let lines = "一只猫\r\n\na cat\n";
    fs::write(directory.path().join("texts.txt"), lines)?;
    encode(directory.path(), "alt_diffusion", &["--texts", "texts.txt"])?;
    assert_eq!(relative_error(&states()?, &from_arguments), 0.0);

    fs::remove_file(&output)?;
    let model = golden_model("alt_diffusion")?;
    let arguments = ["encode", "--model", &model, "--output", "out.safetensors", "--texts", "-"];
    succeeded(&run_with_input(directory.path(), &arguments, lines.as_bytes())?);
    assert_eq!(relative_error(&states()?, &from_arguments), 0.0);
    Ok(())
}

#[test]
fn a_text_is_the_same_alone_and_among_many() -> TestResult {
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("out.safetensors");
    // More than are encoded at a time, of different lengths.
    let texts: Vec<String> = (0..40).map(|length| "a cat ".repeat(length)).collect();
    encode(directory.path(), "alt_diffusion", &texts.iter().map(String::as_str).collect::<Vec<_>>())?;
    let together = tensor(&output, "hidden_states")?;
    assert_eq!(together.dims(), [40, 77, 20]);
    for index in [0, 1, 17, 39] {
        encode(directory.path(), "alt_diffusion", &[&texts[index]])?;
        let error = relative_error(&together.narrow(0, index, 1)?, &tensor(&output, "hidden_states")?);
        assert!(error < 1e-6, "{index}: {error}");
    }
    Ok(())
}

#[test]
fn short_types_are_near_and_the_file_is_f32() -> TestResult {
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("out.safetensors");
    encode(directory.path(), "alt_diffusion", &["一只猫"])?;
    let exact = tensor(&output, "hidden_states")?;
    // The checkpoint's values are exact in f16, and on the CPU only weights are rounded, except in int8. A distance of
    // 4 % is a cosine of 0.999.
    for (dtype, least, most) in [("f16", 0.0, 1e-6), ("bf16", 1e-4, 1e-2), ("int8", 1e-4, 4e-2)] {
        encode(directory.path(), "alt_diffusion", &["一只猫", "--dtype", dtype, "--device", "cpu"])?;
        let found = tensor(&output, "hidden_states")?;
        assert_eq!(found.dtype(), DType::F32);
        let error = relative_error(&found, &exact);
        assert!(error >= least && error < most, "{dtype}: {error}");
    }
    Ok(())
}

/// NumPy would call it a pickle.
#[test]
fn a_name_of_another_format_is_refused() -> TestResult {
    let directory = tempfile::tempdir()?;
    let error = failed(run(directory.path(), &["encode", "a cat", "--output", "a.npy"])?)?;
    assert_eq!(error, "error: --output a.npy: expected a name that ends in .safetensors\n");
    Ok(())
}

#[test]
fn the_model_inside_and_timings() -> TestResult {
    let directory = tempfile::tempdir()?;
    let arguments = ["encode", "--output", "a.safetensors", "--timings", "t.json", "一只猫"];
    succeeded(&run(directory.path(), &arguments)?);
    assert_eq!(tensor(&directory.path().join("a.safetensors"), "input_ids")?.dims(), [1, 77]);
    let timings: Value = serde_json::from_slice(&fs::read(directory.path().join("t.json"))?)?;
    let seconds = |field: &str| timings[field].as_f64().unwrap_or(-1.0);
    assert!(seconds("load_s") > 0.0 && seconds("text_s") > 0.0, "{timings}");
    assert!(seconds("load_s") + seconds("text_s") <= seconds("total_s"), "{timings}");
    Ok(())
}
