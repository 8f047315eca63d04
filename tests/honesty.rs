//! Tests that the program says what its model draws, and when a prompt is about something else.

mod common;

use std::fs;
use std::path::Path;

use common::{EMOJI, altdiffusion, run, succeeded};
use serde_json::Value;
use test_support::{TestResult, copy_directory};

/// Draws quickly, and returns what the program says about the prompt.
fn said_about(directory: &Path, prompt: &str, more: &[&str]) -> TestResult<String> {
    let output = run(directory, &[&["generate", prompt, "--steps", "1", "--seed", "1"], more].concat())?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{prompt}: {stderr}");
    assert!(directory.join("out.png").exists(), "{prompt}");
    Ok(stderr)
}

#[test]
fn a_prompt_about_something_else_is_drawn_and_noted() -> TestResult {
    let directory = tempfile::tempdir()?;
    for prompt in [
        "a cat",
        "cats",
        "a picture of a red apple",
        "一只猫",
        "三只小狗",
        "пингвин",
        "แมว",
        "une pomme rouge",
        "42",
    ] {
        assert_eq!(said_about(directory.path(), prompt, &[])?, "", "{prompt}");
    }
    for prompt in ["quantum field equations", "Barack Obama giving a speech", "量子场论方程", "Ελληνικά"]
    {
        let said = said_about(directory.path(), prompt, &[])?;
        let names = said.strip_prefix("note: this model knows 1097 emoji only; nearest to ");
        let names = names.and_then(|rest| rest.strip_prefix(&format!("\"{prompt}\": ")));
        let names: Vec<&str> = names.unwrap_or_default().trim_end().split(", ").collect();
        // A name may have a comma, but none is empty.
        assert!(names.len() >= 3 && names.iter().all(|name| !name.is_empty()), "{prompt}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let long = said_about(directory.path(), &"quantum\nequations ".repeat(6), &[])?;
    assert!(
        long.lines().count() == 1 && long.contains("quantum equations quantum") && long.contains("…\""),
        "{long}"
    );
    Ok(())
}

#[test]
fn the_note_is_in_the_reader_s_language() -> TestResult {
    let directory = tempfile::tempdir()?;
    let mut command = altdiffusion(directory.path());
    command.env("LC_ALL", "zh_CN.UTF-8").args(["generate", "量子场论方程", "--steps", "1"]);
    let said = String::from_utf8(command.output()?.stderr)?;
    assert!(
        said.starts_with("注意：此模型只认识 1097 个 emoji；与“量子场论方程”最接近的是：")
            && said.contains('、'),
        "{said}"
    );
    Ok(())
}

#[test]
fn programs_and_quiet_people_read_no_note() -> TestResult {
    let directory = tempfile::tempdir()?;
    for option in ["--quiet", "--json"] {
        assert_eq!(said_about(directory.path(), "quantum field equations", &[option])?, "", "{option}");
    }
    Ok(())
}

#[test]
fn lines_of_a_file_are_named() -> TestResult {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("prompts.txt"), "a cat\n\nquantum field equations\n")?;
    let arguments = ["generate", "--prompts", "prompts.txt", "--output", "out", "--steps", "1"];
    let said = String::from_utf8(run(directory.path(), &arguments)?.stderr)?;
    assert!(
        said.starts_with("note: --prompts prompts.txt: line 3: this model knows 1097 emoji only; "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    Ok(())
}

#[test]
fn concepts_are_listed_in_every_language() -> TestResult {
    let directory = tempfile::tempdir()?;
    let list = |more: &[&str]| -> TestResult<Vec<String>> {
        let said = succeeded(&run(directory.path(), &[&["models", "--concepts"], more].concat())?);
        Ok(said.lines().map(str::to_owned).collect())
    };
    for (language, cat) in
        [("en", "🐈\tcat"), ("zh", "🐈\t猫"), ("ja", "🐈\tネコ"), ("ru", "🐈\tкошка"), ("th", "🐈\tแมว")]
    {
        let lines = list(&["--language", language])?;
        assert_eq!(lines.len(), 1097, "{language}");
        assert!(lines.iter().any(|line| line == cat), "{language}: {:?}", &lines[..3]);
    }
    assert_eq!(list(&[])?, list(&["--language", "en"])?);
    let concepts: Vec<Value> = serde_json::from_str(&list(&["--json", "--language", "fr"])?.join("\n"))?;
    assert!(concepts.iter().any(|concept| concept["emoji"] == "🐈" && concept["name"] == "chat"));

    let output = run(directory.path(), &["models", "--concepts", "--language", "xx"])?;
    assert_eq!(
        String::from_utf8(output.stderr)?,
        "error: --language xx: expected one of ar, de, en, es, fr, hi, it, ja, ko, nl, pl, pt, ru, th, tr, uk, vi, zh\n"
    );
    Ok(())
}

/// A model in a directory says what it draws by the same file, or says nothing.
#[test]
fn a_model_in_a_directory_has_concepts_of_its_own() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    copy_directory(Path::new(EMOJI), &root.join("model"))?;
    let concepts = succeeded(&run(root, &["models", "--concepts=model"])?);
    assert_eq!(concepts.lines().count(), 1097);
    let of_model = ["--model", "model"];
    let said = said_about(root, "quantum field equations", &of_model)?;
    assert!(said.contains("nearest to"), "{said}");

    // Without an image encoder, the text encoder cannot compare.
    fs::remove_dir_all(root.join("model/image_encoder"))?;
    let said = said_about(root, "quantum field equations", &of_model)?;
    assert!(said.ends_with("note: this model knows 1097 emoji only\n"), "{said}");

    let file = root.join("model/concepts.json.gz");
    let whole = fs::read(&file)?;
    fs::write(&file, &whole[..whole.len() / 2])?;
    let output = run(root, &["generate", "a cat", "--model", "model"])?;
    let error = String::from_utf8(output.stderr)?;
    assert!(
        !output.status.success() && error.contains("concepts.json.gz: expected what a model draws: "),
        "{error}"
    );

    fs::remove_file(&file)?;
    let said = said_about(root, "quantum field equations", &of_model)?;
    assert!(!said.contains("note: "), "{said}");
    let output = run(root, &["models", "--concepts=model"])?;
    assert_eq!(String::from_utf8(output.stderr)?, "error: --concepts: model does not say what it draws\n");
    Ok(())
}
