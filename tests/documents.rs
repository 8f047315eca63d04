//! Checks README and docs: links resolve, commands are valid, and no figure is repeated.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::altdiffusion;
use image::{Rgb, RgbImage};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use tempfile::TempDir;
use test_support::TestResult;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MOST_LINES_OF_README: usize = 150;

/// A page, as far as these tests need it.
#[derive(Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
    /// The lines of its shell code.
    commands: Vec<String>,
    /// Its text outside code.
    text: String,
}

fn pages() -> TestResult<BTreeMap<PathBuf, Page>> {
    let mut files = vec!["README.md".into(), "README.zh-CN.md".into(), "ARCHITECTURE.md".into()];
    for folder in ["docs", "docs/zh-CN"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "md") {
                files.push(path.strip_prefix(ROOT)?.to_owned());
            }
        }
    }
    files.into_iter().map(|file| Ok((file.clone(), read(&Path::new(ROOT).join(file))?))).collect()
}

fn read(path: &Path) -> TestResult<Page> {
    let markdown = fs::read_to_string(path)?;
    let mut page = Page::default();
    let (mut heading, mut language) = (None::<String>, None::<String>);
    for event in Parser::new_ext(&markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take().map(|text| anchor(&text))),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(name))) => language = Some(name.to_string()),
            Event::End(TagEnd::CodeBlock) => language = None,
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.to_string());
            }
            Event::Text(text) | Event::Code(text) => match (&language, &mut heading) {
                (Some(language), _) if language == "sh" => {
                    page.commands.extend(text.lines().map(str::to_owned).filter(|line| !line.is_empty()));
                }
                (Some(_), _) => {}
                (None, heading) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&text));
                    page.text.push_str(&text);
                    page.text.push('\n');
                }
            },
            _ => {}
        }
    }
    Ok(page)
}

/// The anchor of a heading on GitHub.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() -> TestResult {
    let pages = pages()?;
    let mut broken = Vec::new();
    for (file, page) in &pages {
        for link in page.links.iter().filter(|link| !link.starts_with("https://")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                file.clone()
            } else {
                let folder = Path::new(ROOT).join(file.parent().unwrap_or(Path::new("")));
                match folder.join(path).canonicalize() {
                    Ok(found) => found.strip_prefix(Path::new(ROOT).canonicalize()?)?.to_owned(),
                    Err(_) => {
                        broken.push(format!("{}: {link}", file.display()));
                        continue;
                    }
                }
            };
            if !fragment.is_empty() && !pages.get(&target).is_some_and(|page| page.anchors.contains(fragment))
            {
                broken.push(format!("{}: {link}: no such heading", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    Ok(())
}

#[test]
fn pages_stand_in_both_languages() -> TestResult {
    let names = |folder: &str| -> TestResult<BTreeSet<String>> {
        let pages = pages()?;
        let pages = pages.keys().filter(|file| file.parent() == Some(Path::new(folder)));
        Ok(pages.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())).collect())
    };
    assert_eq!(names("docs")?, names("docs/zh-CN")?);
    Ok(())
}

#[test]
fn a_readme_is_short() -> TestResult {
    for file in ["README.md", "README.zh-CN.md"] {
        let lines = fs::read_to_string(Path::new(ROOT).join(file))?.lines().count();
        assert!(
            lines <= MOST_LINES_OF_README,
            "{file}: {lines} lines, expected at most {MOST_LINES_OF_README}"
        );
    }
    Ok(())
}

/// The files that commands use: images, texts, an index and an image that was drawn here.
fn desk() -> TestResult<TempDir> {
    let desk = tempfile::tempdir()?;
    let at = |name: &str| desk.path().join(name);
    fs::create_dir(at("photos"))?;
    for (name, red) in [("cat.png", 250), ("sunset.jpg", 220), ("photos/1.jpg", 200), ("photos/2.jpg", 20)] {
        RgbImage::from_fn(80, 64, |x, y| Rgb([red, x as u8, y as u8])).save(at(name))?;
    }
    fs::write(at("captions.txt"), "一只猫\na dog\n")?;
    fs::write(at("prompts.txt"), "一只猫\n")?;
    fs::write(at("captions.jsonl"), "{\"caption\": \"一只猫\"}\n")?;
    Ok(desk)
}

/// Whether a command works with these files, without a download.
fn is_complete(command: &str) -> bool {
    const MISSING: [&str; 11] = [
        "postgres://",
        "--packages",
        "BAAI/",
        "openai/",
        ".ckpt",
        ".toml",
        "photos.parquet",
        "--rendezvous",
        "cifar10",
        "flickr30k",
        "--leave-out lora",
    ];
    !MISSING.iter().any(|missing| command.contains(missing))
}

/// The commands on all pages, without repetitions, in order.
fn commands() -> TestResult<Vec<String>> {
    let mut known = BTreeSet::new();
    let commands = pages()?.into_values().flat_map(|page| page.commands);
    Ok(commands
        .filter(|command| command.starts_with("altdiffusion ") && known.insert(command.clone()))
        .collect())
}

/// A command that ends: a server would not, so it describes its interface instead, and one that watches its help.
fn ending(command: &str) -> String {
    let is_server = command.starts_with("altdiffusion serve");
    let instead = if command.contains("--watch") { " --help" } else { "" };
    format!("{command}{}", if is_server { " --openapi" } else { instead })
}

/// In a shell, like a reader: commands that only need the program work, and those that need a missing model fail only
/// for that reason.
#[test]
#[cfg(unix)]
fn commands_are_understood() -> TestResult {
    let desk = desk()?;
    let program = Path::new(env!("CARGO_BIN_EXE_altdiffusion"));
    let mut path = std::ffi::OsString::from(program.parent().ok_or("the program is in no folder")?);
    path.push(":/usr/bin:/bin");
    // Commands that write files for others come first.
    let mut commands = commands()?;
    let first = [
        "altdiffusion generate 一只猫 --steps 1",
        "altdiffusion embed --image photos --output photos.safetensors",
    ];
    commands.splice(0..0, first.map(str::to_owned));
    let mut wrong = Vec::new();
    for command in &commands {
        let template = altdiffusion(desk.path());
        let mut shell = Command::new("sh");
        shell.args(["-c", &ending(command)]).current_dir(desk.path());
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env("PATH", &path).env("HF_HUB_OFFLINE", "1").env("HF_HOME", desk.path().join("hub"));
        let output = shell.output()?;
        let is_right = match output.status.code() {
            Some(0) => true,
            Some(1) => !is_complete(command),
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(commands.len() > 40, "only {} commands were found", commands.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A measurement, such as `7.13 GB` or `97 %`: if it is repeated, one of the two will become outdated.
fn figures(text: &str) -> BTreeSet<String> {
    const UNITS: [&str; 7] = ["GB", "MB", "s", "%", "×", "dB", "GFLOP/s"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.trim_start_matches('(').to_owned();
    let is_number = |word: &str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    words
        .windows(2)
        .filter(|pair| is_number(&number(pair[0])))
        .filter_map(|pair| {
            let unit = pair[1].trim_end_matches([',', '.', ')', ':', ';']);
            UNITS.contains(&unit).then(|| format!("{} {unit}", number(pair[0])))
        })
        .collect()
}

#[test]
fn no_figure_stands_in_two_places() -> TestResult {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (file, page) in pages()? {
        // The two READMEs say the same.
        if file != Path::new("README.zh-CN.md") {
            for figure in figures(&page.text) {
                places.entry(figure).or_default().push(file.clone());
            }
        }
    }
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
    Ok(())
}

#[test]
fn figures_are_found() {
    let text = "It takes 7.13 GB, 1.8 × as much as 3 GB (97.5 %).";
    let found: Vec<String> = figures(text).into_iter().collect();
    assert_eq!(found, ["1.8 ×", "7.13 GB", "97.5 %"]);
}
