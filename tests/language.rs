//! Checks that with a Chinese locale help, progress and errors are Chinese throughout, and unchanged otherwise.

mod common;

use std::process::Output;

use common::altdiffusion;
use test_support::TestResult;

const CHINESE: &str = "zh_CN.UTF-8";

fn run(locale: &str, arguments: &[&str]) -> TestResult<Output> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("text.txt"), "no image")?;
    std::fs::write(folder.path().join("empty.txt"), "")?;
    std::fs::create_dir(folder.path().join("folder.png"))?;
    let mut command = altdiffusion(folder.path());
    Ok(command.env("LC_ALL", locale).env("HF_HUB_OFFLINE", "1").args(arguments).output()?)
}

fn help(locale: &str, arguments: &[&str]) -> TestResult<String> {
    let output = run(locale, arguments)?;
    assert!(output.status.success(), "{arguments:?}");
    Ok(String::from_utf8(output.stdout)?)
}

const SUBCOMMANDS: [&[&str]; 30] = [
    &["generate"],
    &["encode"],
    &["similarity"],
    &["classify"],
    &["inspect"],
    &["convert"],
    &["embed"],
    &["search"],
    &["index", "add"],
    &["index", "search"],
    &["index", "duplicates"],
    &["index", "status"],
    &["index", "import"],
    &["index", "remove"],
    &["download"],
    &["models"],
    &["machine"],
    &["serve"],
    &["train", "prepare"],
    &["train", "emoji"],
    &["train", "concepts"],
    &["train", "teacher"],
    &["train", "contrastive"],
    &["train", "diffusion"],
    &["train", "lora"],
    &["eval", "emoji"],
    &["eval", "retrieval"],
    &["eval", "zero-shot"],
    &["train", "dreambooth"],
    &["train", "textual-inversion"],
];

/// English words that are allowed in Chinese text: names, options, and placeholders.
fn is_english(line: &str) -> bool {
    const COMMON: [&str; 14] = [
        " the ",
        " of ",
        " is ",
        " to ",
        " from ",
        " with ",
        " and ",
        "Usage",
        "Options:",
        "Arguments:",
        "Commands:",
        "[default",
        "Print ",
        "[possible",
    ];
    COMMON.iter().any(|word| line.contains(word))
}

#[test]
fn help_is_chinese_throughout() -> TestResult {
    for subcommand in SUBCOMMANDS {
        for flag in ["-h", "--help"] {
            let text = help(CHINESE, &[subcommand, &[flag]].concat())?;
            assert!(text.contains("用法："), "{text}");
            let english: Vec<&str> = text
                .lines()
                .filter(|line| is_english(line) && !line.trim_start().starts_with("altdiffusion "))
                .collect();
            assert!(english.is_empty(), "{subcommand:?} {flag}: {english:#?}");
        }
    }
    let top = help(CHINESE, &["--help"])?;
    assert!(top.contains("画图") && !top.lines().any(is_english), "{top}");
    Ok(())
}

/// Help is 100 columns wide if it does not go to a terminal. Its last line counts the options that only the long help
/// shows.
#[test]
fn short_help_fits_on_a_screen() -> TestResult {
    const LINES: usize = 40;
    let groups: [&[&str]; 4] = [&[], &["index"], &["train"], &["eval"]];
    for subcommand in SUBCOMMANDS.into_iter().chain(groups) {
        for locale in ["C", CHINESE] {
            let short = help(locale, &[subcommand, &["-h"]].concat())?;
            let lines = short.lines().count();
            assert!(lines <= LINES, "{subcommand:?}: {lines} lines");

            // Options have one of these indents; so may examples, which come last.
            let is_option = |line: &&str| line.starts_with("  -") || line.starts_with("      --");
            let is_before_examples = |line: &&str| !line.starts_with("Example") && !line.starts_with("示例");
            let options = |text: &str| text.lines().take_while(is_before_examples).filter(is_option).count();
            let long = help(locale, &[subcommand, &["--help"]].concat())?;
            let hint = short.lines().last().unwrap_or_default();
            let counted: usize =
                hint.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
            let is_hint = hint.contains("--help") && !hint.trim_start().starts_with('-');
            let counted = if is_hint { counted } else { 0 };
            assert_eq!(options(&long) - options(&short), counted, "{subcommand:?}: {hint}");
            assert!(!is_hint || !long.contains(hint), "{subcommand:?}: {long}");
        }
    }
    Ok(())
}

#[test]
fn errors_are_chinese() -> TestResult {
    let cases: [(&[&str], &str); 26] = [
        (&["generate", "猫", "--stps", "3"], "错误：没有选项“--stps”"),
        (&["generate"], "错误：缺少："),
        (&["draw", "猫"], "错误：没有子命令“draw”"),
        (&["embed", "photos"], "提示：图片或目录前写 --image，文本前写 --text"),
        (&["generate", "猫", "--steps", "0"], "须为不小于 1 的整数"),
        (&["generate", "猫", "--width", "100"], "须为 8 的倍数（像素）"),
        (&["generate", "猫", "--dtype", "f64"], "须为 f32、f16、bf16 或 int8"),
        (&["generate", "猫", "--scheduler", "fast"], "须为以下之一："),
        (&["generate", "猫", "--strength", "2"], "须为 0 到 1 之间的数"),
        (&["generate", "猫", "--only", "1", "--grid"], "不能与"),
        (&["generate", "猫", "--mask", "text.txt"], "--mask：须与 --image 一起使用"),
        (&["generate", "猫", "--strength", "0.5"], "--strength：须与 --image 一起使用"),
        (&["generate", "猫", "--control-image", "text.txt"], "须与 --controlnet 一起使用"),
        (&["generate", "猫", "--image", "none.png"], "没有这个文件或目录"),
        (&["generate", "猫", "--image", "text.txt"], "不是图片：须为"),
        (&["generate", "猫", "--output", "folder.png"], "须为文件名，实为目录"),
        (&["generate", "猫", "--save-steps", "a.png"], "文件名须以 .gif 结尾"),
        (&["generate", "猫", "--only", "5"], "须为某一张图的编号"),
        (&["generate", "猫", "--device", "cuda"], "此程序编译时没有启用 cuda"),
        (&["encode", "--texts", "empty.txt", "--output", "a.safetensors"], "至少须有一行文本"),
        (&["classify", "text.txt", "--label", "猫", "--label", "狗"], "没有一张图片可以读取"),
        (&["search", "none.safetensors", "猫"], "没有这个文件或目录"),
        (&["index", "search", "猫", "--database", "none.db"], "此处没有索引"),
        (&["index", "status", "--database", "text.txt"], "实为其他类型的文件"),
        (&["index", "add", "--database", "none.db"], "须给出文件夹"),
        (&["convert", "none", ".", "--to", "onnx"], "已经存在，须为新目录"),
    ];
    for (arguments, expected) in cases {
        let output = run(CHINESE, arguments)?;
        let printed = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && printed.contains(expected), "{arguments:?}: {printed}");
        assert!(printed.contains("错误：") && !printed.contains("error"), "{arguments:?}: {printed}");
    }
    Ok(())
}

#[test]
fn others_read_english() -> TestResult {
    for locale in ["C", "C.UTF-8", "en_US.UTF-8", "de_DE.UTF-8"] {
        assert!(help(locale, &["generate", "-h"])?.starts_with("Draw images from prompts"));
        let printed = String::from_utf8(run(locale, &["generate", "猫", "--image", "none.png"])?.stderr)?;
        assert_eq!(printed, "error: --image: none.png: No such file or directory (os error 2)\n");
    }
    Ok(())
}

#[test]
fn what_programs_read_is_the_same_in_every_language() -> TestResult {
    let arguments = ["similarity", "--image", "none.png", "--text", "猫", "--text", "狗", "--json"];
    let [english, chinese] = ["C", CHINESE].map(|locale| run(locale, &arguments));
    assert_eq!(english?.stdout, chinese?.stdout);
    let [english, chinese] = ["C", CHINESE].map(|locale| run(locale, &["completions", "bash"]));
    assert_eq!(english?.stdout, chinese?.stdout);
    Ok(())
}

#[test]
fn completions_and_man_pages_are_written() -> TestResult {
    for shell in ["bash", "zsh", "fish"] {
        let script = help("C", &["completions", shell])?;
        assert!(script.contains("altdiffusion") && script.contains("guidance-scale"), "{shell}");
    }
    let folder = tempfile::tempdir()?;
    let written = altdiffusion(folder.path()).args(["manual", "--output", "man"]).status()?;
    assert!(written.success());
    for page in ["altdiffusion.1", "altdiffusion-generate.1", "altdiffusion-train-lora.1"] {
        assert!(std::fs::read_to_string(folder.path().join("man").join(page))?.contains(".TH"), "{page}");
    }
    Ok(())
}
