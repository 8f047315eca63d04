//! Converts weights to quantized types and back, and draws with them.

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};

use crate::Place;
use crate::common::{golden_model, run, succeeded};
use test_support::{TestResult, relative_error};

/// The cosines printed by a conversion.
fn cosines(printed: &str) -> TestResult<Vec<f64>> {
    let of_line = |line: &str| Some(line.split("cosine ").nth(1)?.split(',').next()?.to_owned());
    Ok(printed.lines().filter_map(of_line).map(|cosine| cosine.parse()).collect::<Result<_, _>>()?)
}

#[test]
fn blocks_draw_nearly_the_same() -> TestResult {
    let place = Place::new()?;
    // A trained model whose rows are multiples of 32.
    let source = format!("{}/models/emoji", env!("CARGO_MANIFEST_DIR"));
    let drawn = place.draw(&["--model", &source])?;
    for (dtype, bits) in [("q8_0", 8), ("q5_0", 5), ("q4_0", 4)] {
        let printed = place.convert(&[&source, "one.gguf", "--dtype", dtype])?;
        assert!(printed.starts_with("one.gguf: 529 tensors, 1 others left out: upscaler.*\n"), "{printed}");
        // The largest value of a block is 2^(bits − 1) steps, and of 32 normal values it is about twice their root
        // mean square. Rounding is uniform over a step, with an error of 1/√12 of it: relative to the values, and so
        // to what a layer computes, 2 / (2^(bits − 1) √12). A path through the model has some 64 layers, whose errors
        // add up in squares.
        let tolerance = 64f64.sqrt() * 2.0 / (f64::from(1 << (bits - 1)) * 12f64.sqrt());
        let cosines = cosines(&printed)?;
        assert_eq!(cosines.len(), 4, "{printed}");
        for cosine in cosines {
            // 1 − cos is half the square of a small angle.
            assert!(cosine < 1.0 && cosine > 1.0 - tolerance * tolerance / 2.0, "{dtype}: {printed}");
        }
        let config = ["--model", "one.gguf", "--config", &source];
        let error = relative_error(&place.draw(&config)?, &drawn);
        assert!(error > 0.0 && error < tolerance, "{dtype}: {error}, at most {tolerance} expected");
    }
    Ok(())
}

#[test]
fn int8_draws_nearly_the_same() -> TestResult {
    let place = Place::new()?;
    let source = format!("{}/models/emoji", env!("CARGO_MANIFEST_DIR"));
    let printed = place.convert(&[&source, "one.safetensors", "--dtype", "int8"])?;
    let cosines = cosines(&printed)?;
    assert_eq!(cosines.len(), 4, "{printed}");
    assert!(printed.contains("layers with factors by SmoothQuant: "), "{printed}");
    let states = printed.split("cosines from ").nth(1).and_then(|rest| rest.split(',').next());
    let worst: f64 = states.ok_or("no cosine of the hidden states")?.parse()?;
    assert!((0.999..1.0).contains(&worst), "{printed}");
    assert!(cosines.iter().all(|cosine| *cosine < 1.0 && *cosine > 0.997), "{printed}");
    // The file has what would be rounded when it is read.
    let from_file = place.draw(&["--model", "one.safetensors", "--config", &source, "--dtype", "bf16"])?;
    let rounded = place.draw(&["--model", &source, "--dtype", "int8", "--device", "cpu"])?;
    let drawn = place.draw(&["--model", &source])?;
    let errors = [relative_error(&from_file, &drawn), relative_error(&rounded, &drawn)];
    assert!(errors.iter().all(|error| *error > 0.0 && *error < 0.3), "{errors:?}");
    let error = place.refused(&["convert", &source, "one.gguf", "--dtype", "int8"])?;
    assert!(error.contains("--dtype int8: only safetensors hold it"), "{error}");
    Ok(())
}

#[test]
fn layers_are_measured_with_own_texts() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    let source = source.as_str();
    fs::write(place.path("texts.txt"), "一只猫\na dog\n\n")?;
    let arguments = [source, "one.safetensors", "--dtype", "int8", "--calibrate", "texts.txt"];
    let printed = place.convert(&arguments)?;
    let layers = printed.lines().find_map(|line| line.strip_prefix("layers with factors by SmoothQuant: "));
    let (smoothed, measured) = layers.and_then(|layers| layers.split_once(" of ")).ok_or("no count")?;
    assert!(smoothed.parse::<usize>()? <= measured.parse::<usize>()? && measured != "0", "{printed}");
    place.draw(&["--model", "one.safetensors", "--config", source])?;
    let int8 = ["--dtype", "int8", "--calibrate"];
    for (arguments, problem) in [
        (vec![source, "a.safetensors", "--calibrate", "texts.txt"], "--calibrate: is for --dtype int8"),
        ([&[source, "a"], &int8[..], &["none.txt"]].concat(), "--calibrate none.txt: "),
        ([&["one.safetensors", "a.safetensors"], &int8[..], &["texts.txt"]].concat(), "has no tokenizer"),
    ] {
        let error = place.refused(&[&["convert"], &arguments[..]].concat())?;
        assert!(error.contains(problem), "{error}");
    }
    Ok(())
}

#[test]
fn a_gguf_file_of_numbers_is_the_model() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "one.gguf"])?;
    // With its configurations, since there are no others.
    place.convert(&["one.gguf", "back.safetensors"])?;
    place.convert(&[&source, "one.safetensors"])?;
    assert_eq!(fs::read(place.path("back.safetensors"))?, fs::read(place.path("one.safetensors"))?);
    let drawn = place.draw(&["--model", &source])?;
    let from_file = place.draw(&["--model", "one.gguf", "--config", &source])?;
    assert_eq!(relative_error(&from_file, &drawn), 0.0);
    Ok(())
}

#[test]
fn blocks_become_numbers_again() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    place.convert(&[&source, "one.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    place.convert(&["one.gguf", "one.safetensors"])?;
    // The layers compute with the same values, in the same order up to the length of a part.
    let blocks = place.draw(&["--model", "one.gguf", "--config", &source])?;
    let numbers = place.draw(&["--model", "one.safetensors", "--config", &source])?;
    let error = relative_error(&blocks, &numbers);
    assert!(error < 1e-4, "{error}");
    // Quantized weights are copied, not quantized again.
    place.convert(&["one.gguf", "two.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    assert_eq!(fs::read(place.path("one.gguf"))?, fs::read(place.path("two.gguf"))?);
    Ok(())
}

#[test]
fn what_blocks_a_file_has_is_told() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    let printed = place.convert(&[&source, "one.gguf", "--dtype", "q4_k"])?;
    assert!(printed.contains(" of them as q8_0 because their rows do not divide into blocks"), "{printed}");
    let printed = succeeded(&run(place.0.path(), &["inspect", "one.gguf"])?);
    for expected in ["AltDiffusion pipeline in one file", "q8_0 × ", "F32 × ", "unet", "text_encoder", "vae"]
    {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let printed = succeeded(&run(place.0.path(), &["inspect", "one.gguf", "--json"])?);
    assert!(printed.contains("\"missing\": []") && printed.contains("\"misshapen\": []"), "{printed}");
    Ok(())
}

/// The emoji model, which has an image encoder.
#[test]
fn folders_hold_parts_quantized() -> TestResult {
    let place = Place::new()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji").display().to_string();
    let printed = place.convert(&[&source, "folders", "--dtype", "q8_0"])?;
    assert!(printed.contains("the UNet's output beside that of"), "{printed}");
    for (there, absent) in [
        ("unet/diffusion_pytorch_model.gguf", "unet/diffusion_pytorch_model.safetensors"),
        ("text_encoder/model.gguf", "text_encoder/model.safetensors"),
        ("image_encoder/model.gguf", "image_encoder/model.safetensors"),
        ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.gguf"),
        ("feature_extractor/preprocessor_config.json", "safety_checker/config.json"),
    ] {
        assert!(place.path("folders").join(there).exists(), "{there}");
        assert!(!place.path("folders").join(absent).exists(), "{absent}");
    }
    // The same quantized weights as in one file, and so the same images.
    place.convert(&[&source, "one.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    let draw = |arguments: &[&str]| -> TestResult<Vec<u8>> {
        let all =
            [&["generate", "一只猫", "--steps", "2", "--seed", "3", "-o", "out.png", "--model"], arguments]
                .concat();
        let output = run(place.0.path(), &all)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(image::open(place.path("out.png"))?.into_rgb8().into_raw())
    };
    assert!(draw(&["folders"])? == draw(&["one.gguf", "--config", &source])?, "other images");
    // It also embeds images and texts, and can be converted further.
    let compared =
        run(place.0.path(), &["similarity", "--model", "folders", "--image", "out.png", "--text", "猫"])?;
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    place.convert(&["folders", "plain", "--dtype", "f16"])?;
    place.convert(&["folders", "again"])?;
    let blocks = |folder: &str| fs::read(place.path(folder).join("unet/diffusion_pytorch_model.gguf"));
    assert!(blocks("folders")? == blocks("again")?, "other blocks");
    Ok(())
}

/// `scripts/embed-model.sh` writes the model in the program.
#[test]
fn the_model_in_the_program_is_that_beside_it() -> TestResult {
    let place = Place::new()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji");
    place.convert(&[&source.display().to_string(), "blocks", "--dtype", "q5_1", "--skip-loss"])?;
    for (part, file) in [
        ("text_encoder", "model.gguf"),
        ("unet", "diffusion_pytorch_model.gguf"),
        ("image_encoder", "model.gguf"),
    ] {
        let embedded = fs::read(source.join("embedded").join(part).with_extension("gguf"))?;
        assert!(embedded == fs::read(place.path("blocks").join(part).join(file))?, "{part}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_quantized_is_said_in_one_line() -> TestResult {
    let place = Place::new()?;
    let source = golden_model("alt_diffusion")?;
    let error = place.refused(&["convert", &source, "one.safetensors", "--dtype", "q8_0"])?;
    assert!(error.contains("--dtype q8_0: only GGUF files hold quantized weights"), "{error}");
    let output = run(place.0.path(), &["convert", &source, "one.gguf", "--dtype", "q9"])?;
    let error = String::from_utf8(output.stderr)?;
    assert!(
        error.contains("'q9'") && error.contains("expected one of f32, f16, bf16, int8, q4_0"),
        "{error}"
    );
    assert_eq!(output.status.code(), Some(2));

    place.convert(&[&source, "one.gguf", "--dtype", "q4_0", "--skip-loss"])?;
    let bytes = fs::read(place.path("one.gguf"))?;
    fs::write(place.path("cut.gguf"), &bytes[..bytes.len() / 2])?;
    let error = place.refused(&["generate", "a cat", "--model", "cut.gguf", "--config", &source])?;
    assert!(error.starts_with("error: cut.gguf: the file is truncated: tensor "), "{error}");
    let text_encoder = golden_model("alt_diffusion/text_encoder/model.safetensors")?;
    let error = place.refused(&["convert", &text_encoder, "part.gguf", "--dtype", "q8_0"])?;
    assert!(error.contains("only a part of a model"), "{error}");

    // A language model.
    let mut llama = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let name = b"blk.0.attn_q.weight";
    llama.extend((name.len() as u64).to_le_bytes());
    llama.extend(name);
    llama.extend(1u32.to_le_bytes());
    llama.extend(32u64.to_le_bytes());
    llama.extend(8u32.to_le_bytes());
    llama.resize(llama.len().next_multiple_of(32) + 64, 0);
    fs::write(place.path("llama.gguf"), llama)?;
    for arguments in
        [&["generate", "a cat", "--model", "llama.gguf", "--config", &source][..], &["inspect", "llama.gguf"]]
    {
        let error = place.refused(arguments)?;
        assert!(error.starts_with("error: llama.gguf: holds no UNet: expected a whole model"), "{error}");
    }
    Ok(())
}

/// Nothing can be added to a quantized weight, so a LoRA is computed beside it, as if it were merged into the
/// unpacked one.
#[test]
fn a_lora_goes_with_blocks() -> TestResult {
    let place = Place::new()?;
    let source = format!("{}/models/emoji", env!("CARGO_MANIFEST_DIR"));
    let normal = |shape: &[usize]| Tensor::randn(0f32, 1.5, shape, &Device::Cpu);
    let layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v";
    let lora = [("lora_A", normal(&[2, 128])?), ("lora_B", normal(&[128, 2])?)];
    let lora = lora.map(|(role, matrix)| (format!("{layer}.{role}.weight"), matrix));
    safetensors::save(&lora.into_iter().collect(), place.path("lora.safetensors"))?;

    place.convert(&[&source, "blocks.gguf", "--dtype", "q8_0", "--skip-loss"])?;
    place.convert(&["blocks.gguf", "numbers.safetensors", "--dtype", "f32"])?;
    let draw =
        |model: &str, with: &[&str]| place.draw(&[&["--model", model, "--config", &source], with].concat());
    let with: &[&str] = &["--lora", "lora.safetensors"];
    let (beside, merged) = (draw("blocks.gguf", with)?, draw("numbers.safetensors", with)?);
    let error = relative_error(&beside, &merged);
    assert!(error < 1e-4, "{error:e}");
    assert!(relative_error(&beside, &draw("blocks.gguf", &[])?) > 0.01);
    Ok(())
}
