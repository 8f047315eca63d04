//! Compares weighted and long prompts with an implementation in Python over the reference's text encoder.

mod common;

use std::collections::HashMap;

use altdiffusion_pipeline::schedulers::SchedulerKind;
use altdiffusion_pipeline::{
    AltDiffusion, GenerateOptions, PROMPT_TOKENS, PromptReading, PromptSegment, TextStates, parse_prompt,
};
use candle_core::{Device, Tensor};
use common::load;
use serde::Deserialize;
use test_support::{TestResult, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of hidden states and latents. The text encoder's own is 1e-6, and restoring
/// a mean that is a hundredth of the values can multiply it by a hundred.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 2] = ["alt_diffusion", "alt_diffusion_m18"];

#[derive(Deserialize)]
struct Golden {
    parsed: Vec<Parsed>,
    encoded: Vec<String>,
    /// The prompt of the latents.
    drawn: String,
}

#[derive(Deserialize)]
struct Parsed {
    prompt: String,
    /// `None` is a BREAK.
    parts: Vec<Option<(String, f64)>>,
}

fn cases() -> (Golden, HashMap<String, Tensor>) {
    (golden_json("prompt_weights.json"), golden_tensors("prompt_weights.safetensors"))
}

fn states(
    pipeline: &AltDiffusion,
    reading: PromptReading,
    prompts: &[&str],
) -> altdiffusion_pipeline::Result<TextStates> {
    let (tokenizer, encoder, tokens) = (pipeline.tokenizer()?, &*pipeline.text_encoder()?, PROMPT_TOKENS);
    match reading {
        PromptReading::Plain => TextStates::encode(tokenizer, encoder, prompts, tokens),
        PromptReading::Weighted => TextStates::encode_weighted(tokenizer, encoder, prompts, tokens),
    }
}

/// All rows of one text, (tokens, width), repeated as often as their bias says.
fn expanded(states: &TextStates, text: usize) -> TestResult<Tensor> {
    let rows = states.hidden_states().get(text)?;
    let counts = states.key_bias().ok_or("no bias")?.get(text)?.to_vec1::<f32>()?;
    let indices = counts
        .iter()
        .enumerate()
        .flat_map(|(row, bias)| std::iter::repeat_n(row as u32, bias.exp().round() as usize));
    Ok(rows.index_select(&Tensor::from_iter(indices, &Device::Cpu)?, 0)?)
}

#[test]
fn the_syntax_is_that_of_the_web_interface() -> TestResult {
    for Parsed { prompt, parts } in cases().0.parsed {
        let found = parse_prompt(&prompt)?;
        assert_eq!(found.len(), parts.len(), "{prompt:?}: {found:?}");
        for (found, expected) in found.iter().zip(&parts) {
            match (found, expected) {
                (PromptSegment::Break, None) => {}
                (PromptSegment::Text { text, weight }, Some((expected, expected_weight))) => {
                    assert_eq!(text, expected, "{prompt:?}");
                    assert!(
                        (weight - expected_weight).abs() < 1e-12,
                        "{prompt:?}: {weight} {expected_weight}"
                    );
                }
                other => panic!("{prompt:?}: {other:?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn hidden_states_are_weighted_and_in_windows() -> TestResult {
    let (golden, tensors) = cases();
    for model in MODELS {
        let pipeline = load(model)?;
        for (index, prompt) in golden.encoded.iter().enumerate() {
            let expected = &tensors[&format!("{model}.{index}")];
            // Beside a longer and a shorter text, which must not affect it.
            let texts = [golden.encoded[5].as_str(), prompt, ""];
            let found = expanded(&states(&pipeline, PromptReading::Weighted, &texts)?, 1)?;
            assert_eq!(found.dims(), expected.dims(), "{model}: {prompt}");
            let error = relative_error(&found, expected);
            println!("{model} {index}: {error:e}");
            assert!(error <= TOLERANCE, "{model}: {prompt}: {error}");
        }
    }
    Ok(())
}

#[test]
fn latents_of_a_long_weighted_prompt_are_those_of_diffusers() -> TestResult {
    let (golden, tensors) = cases();
    for model in MODELS {
        let options = GenerateOptions::new(&golden.drawn)
            .prompt_reading(PromptReading::Weighted)
            .initial_latents(tensors[&format!("{model}.initial_latents")].clone())
            .guidance_scale(2.5)
            .steps(4);
        let latents = load(model)?.generate(&options)?.latents;
        let error = relative_error(&latents, &tensors[&format!("{model}.latents")]);
        println!("{model}: {error:e}");
        assert!(error <= TOLERANCE, "{model}: {error}");
    }
    Ok(())
}

#[test]
fn a_text_without_weights_is_read_as_it_stands() -> TestResult {
    for model in MODELS {
        let pipeline = load(model)?;
        for prompt in ["", "a cat", "一只猫: 两只狗", "10:30 :)"] {
            let plain = states(&pipeline, PromptReading::Plain, &[prompt])?;
            let weighted = states(&pipeline, PromptReading::Weighted, &[prompt])?;
            let values = |states: &TextStates| states.hidden_states().flatten_all()?.to_vec1::<f32>();
            assert_eq!(values(&plain)?, values(&weighted)?, "{model}: {prompt}");
            assert_eq!(expanded(&weighted, 0)?.dim(0)?, PROMPT_TOKENS);
        }
    }
    Ok(())
}

#[test]
fn a_weight_of_1_changes_nothing_and_another_one_something() -> TestResult {
    let pipeline = load(MODELS[0])?;
    let state = |prompt: &str| expanded(&states(&pipeline, PromptReading::Weighted, &[prompt])?, 0);
    let plain = state("a red cat")?;
    for prompt in ["(a red cat:1)", "(a red cat:1.0)", "((a red cat:0.5):2)", "（a red cat：1）"] {
        assert!(relative_error(&state(prompt)?, &plain) < 1e-6, "{prompt}");
    }
    assert!(relative_error(&state("(a red cat:1.4)")?, &plain) > 1e-3);
    let nested = state("(((a red cat)))")?;
    assert!(relative_error(&state("(a red cat:1.331)")?, &nested) < 1e-5);
    Ok(())
}

#[test]
fn a_prompt_that_cannot_be_read_is_an_error() -> TestResult {
    let pipeline = load(MODELS[0])?;
    for (prompt, part) in [("(a:1.2.3)", "1.2.3"), ("(猫:1.2.3", "猫")] {
        let options =
            GenerateOptions::new(prompt).steps(1).scheduler(SchedulerKind::Ddim).width(16).height(16);
        pipeline.generate(&options)?;
        let result = pipeline.generate(&options.prompt_reading(PromptReading::Weighted));
        let error = result.err().map(|error| error.to_string());
        match part {
            "猫" => assert_eq!(error, None),
            _ => assert!(error.is_some_and(|error| error.starts_with("prompt: ") && error.contains(part))),
        }
    }
    Ok(())
}
