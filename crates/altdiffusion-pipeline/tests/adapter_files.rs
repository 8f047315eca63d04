//! Tests where adapters are found, and the words in files of embeddings.

use std::collections::HashMap;
use std::path::Path;

use altdiffusion_pipeline::{AltDiffusion, LoadOptions, Lora, ModelParts, TextualInversion};
use candle_core::{DType, Device, Tensor, safetensors};
use model_files::source::ModelSource;
use test_support::{TestResult, error_message, golden, normal, relative_error};

fn text(path: &Path) -> TestResult<&str> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}

fn save(path: &Path, tensors: &[(&str, &Tensor)]) -> TestResult {
    let tensors: HashMap<String, Tensor> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())).collect();
    Ok(safetensors::save(&tensors, path)?)
}

/// A new folder with copies of a LoRA, and of one in a pickle, under these names.
fn folder_of(files: &[&str]) -> TestResult<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for file in files {
        let original = if file.ends_with(".safetensors") {
            golden("adapters/alt_diffusion.kohya.safetensors")
        } else {
            golden("adapters/webui.pt")
        };
        std::fs::copy(original, folder.path().join(file))?;
    }
    Ok(folder)
}

#[test]
fn a_lora_may_have_any_name() -> TestResult {
    for files in [
        ["ink_style.safetensors"].as_slice(),
        &["pytorch_lora_weights.safetensors", "other.safetensors"],
        &["adapter_model.safetensors", "other.safetensors", "third.safetensors"],
        &[
            "ink style 墨.safetensors",
            "README.md",
            "optimizer.bin",
            "scheduler.bin",
            "pytorch_lora_weights.bin",
        ],
        &["ink.safetensors", "checkpoint-500.safetensors", "optimizer.safetensors"],
    ] {
        let folder = folder_of(files)?;
        assert_eq!(Lora::open(text(folder.path())?)?.layers(), 7, "{files:?}");
        let first = folder.path().join(files.first().ok_or("no file")?);
        assert_eq!(Lora::open(text(&first)?)?.layers(), 7, "{files:?}");
    }
    for (files, problem) in [
        (
            ["a.safetensors", "b.safetensors", "c.bin"].as_slice(),
            "expected one file, found a.safetensors, b.safetensors: name the one that is meant, such as ",
        ),
        (&["a.bin", "b.pt"], "expected one file, found a.bin, b.pt"),
        (&["README.md"], "expected a LoRA in a file such as pytorch_lora_weights.safetensors or"),
        (&["optimizer.bin"], "found none"),
    ] {
        let folder = folder_of(files)?;
        let error = error_message(Lora::open(text(folder.path())?));
        assert!(error.contains(problem), "{files:?}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
    let many: Vec<String> = (0..30).map(|number| format!("{number:02}.safetensors")).collect();
    let folder = folder_of(&many.iter().map(String::as_str).collect::<Vec<_>>())?;
    let error = error_message(Lora::open(text(folder.path())?));
    assert!(error.contains("09.safetensors and 20 more"), "{error}");
    let missing = Lora::open("no-such-folder/ink.safetensors").err().map(|error| error.to_string());
    assert_eq!(missing.as_deref(), Some("no-such-folder/ink.safetensors: no such file, expected a LoRA"));
    Ok(())
}

/// A pickle of a tensor, without a dictionary.
#[test]
fn a_word_may_be_a_tensor_alone() -> TestResult {
    let [alone, webui] = ["alone.pt", "webui.pt"].map(|file| golden("adapters").join(file));
    let (alone, webui) = (TextualInversion::open(text(&alone)?)?, TextualInversion::open(text(&webui)?)?);
    assert_eq!(alone.word(), "alone");
    assert_eq!(relative_error(alone.vectors(), webui.vectors()), 0.0);
    Ok(())
}

#[test]
fn words_are_found_in_every_form() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (one, two) = (normal(1, &[16]), normal(2, &[2, 16]));
    let step = Tensor::new(500f32, &Device::Cpu)?;
    for (tensors, words) in [
        // Web interfaces, and the original program of textual inversion.
        (vec![("emb_params", &two)], vec![("cat", 2)]),
        (vec![("string_to_param.*", &two), ("string_to_token.*", &step)], vec![("cat", 2)]),
        (vec![("string_to_param.a b", &one)], vec![("cat", 1)]),
        (vec![("clip_l", &two)], vec![("cat", 2)]),
        (vec![("text_encoders_0", &two)], vec![("cat", 2)]),
        (vec![("*", &one)], vec![("cat", 1)]),
        // diffusers.
        (vec![("<cat-toy>", &one)], vec![("<cat-toy>", 1)]),
        (vec![("猫", &two)], vec![("猫", 2)]),
        (vec![("<s0>", &one), ("<s1>", &two)], vec![("<s0>", 1), ("<s1>", 2)]),
    ] {
        let file = folder.path().join("cat.safetensors");
        save(&file, &tensors)?;
        let found = TextualInversion::open_all(text(&file)?)?;
        let found: Vec<(&str, usize)> =
            found.iter().map(|word| Ok((word.word(), word.vectors().dim(0)?))).collect::<TestResult<_>>()?;
        assert_eq!(found, words);
    }
    // A folder with a file of any name, which becomes the word.
    let found = TextualInversion::open_all(text(folder.path())?)?;
    assert_eq!(found.len(), 2);
    let error = TextualInversion::open(text(folder.path())?).err().map(|error| error.to_string());
    assert!(error.unwrap_or_default().contains("of one word, found [\"<s0>\", \"<s1>\"]"));
    let pickle = folder_of(&["my-cat.pt"])?;
    assert_eq!(TextualInversion::open(text(&pickle.path().join("my-cat.pt"))?)?.word(), "my-cat");
    assert_eq!(TextualInversion::open(text(pickle.path())?)?.word(), "my-cat");
    Ok(())
}

#[test]
fn what_holds_no_words_is_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cat.safetensors");
    let (one, long, cube) = (normal(1, &[16]), normal(2, &[80, 16]), normal(3, &[2, 2, 16]));
    for (tensors, problem) in [
        (vec![("clip_l", &one), ("clip_g", &one)], "for the two text encoders of Stable Diffusion XL"),
        (vec![("clip_g", &one)], "for the two text encoders of Stable Diffusion XL"),
        (
            vec![("text_encoders_0", &one), ("text_encoders_1", &one)],
            "for the two text encoders of Stable Diffusion XL",
        ),
        (
            vec![("string_to_param.a", &one), ("string_to_param.b", &one)],
            "of one word, found the keys [\"a\", \"b\"]",
        ),
        (
            vec![("emb_params", &long)],
            "expected 1 to 75 vectors of the text encoder's width for \"cat\", found shape [80, 16]",
        ),
        (vec![("conv_in.weight", &cube)], "found shape [2, 2, 16]"),
        (vec![], "found no tensors"),
    ] {
        save(&file, &tensors)?;
        let error = error_message(TextualInversion::open_all(text(&file)?));
        assert!(error.contains("cat.safetensors") && error.contains(problem), "{error}");
    }
    save(&file, &[("emb_params", &normal(1, &[3, 768]))])?;
    let options = LoadOptions::new(DType::F32, &Device::Cpu).word(TextualInversion::open(text(&file)?)?);
    let parts = ModelParts::in_folders(&ModelSource::directory(golden("alt_diffusion")))?;
    let error = error_message(AltDiffusion::load(parts, options));
    assert!(error.contains("768 values, where those of this model's text encoder have 16"), "{error}");
    Ok(())
}

/// The vectors of every word reach the text encoder.
#[test]
fn several_words_of_a_file_are_learned() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("words.safetensors");
    let (one, two) = (normal(1, &[1, 16]), normal(2, &[2, 16]));
    save(&file, &[("<s0>", &one), ("<s1>", &two)])?;
    let load = |words: Vec<TextualInversion>| {
        let parts = ModelParts::in_folders(&ModelSource::directory(golden("alt_diffusion")))?;
        let options = words.into_iter().fold(LoadOptions::new(DType::F32, &Device::Cpu), LoadOptions::word);
        AltDiffusion::load(parts, options)
    };
    let encode = |pipeline: &AltDiffusion, text: &str| -> TestResult<Tensor> {
        let states = pipeline.encode_texts(altdiffusion_pipeline::PromptReading::Plain, &[text])?;
        Ok(states.hidden_states().clone())
    };
    let of_file = load(TextualInversion::open_all(text(&file)?)?)?;
    let by_hand =
        load(vec![TextualInversion::new("<s0>", one, "a")?, TextualInversion::new("<s1>", two, "b")?])?;
    let prompt = "a <s1> 猫 <s0>";
    assert_eq!(relative_error(&encode(&of_file, prompt)?, &encode(&by_hand, prompt)?), 0.0);
    assert!(relative_error(&encode(&of_file, prompt)?, &encode(&of_file, "a <s0> 猫 <s1>")?) > 0.01);
    Ok(())
}
