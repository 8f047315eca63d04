//! Reads a file of prompts: each line is a prompt, or a JSON object with a prompt and other options.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use altdiffusion_pipeline::image_metadata::{ImageFileFormat, ParameterFields};
use anyhow::{Context, Result, anyhow, ensure};

use super::fields;
use crate::commands::generate::options::Generate;
use crate::output_files::numbered;
use crate::standard_input;
use crate::text_lines::read_texts;

/// The option that names the file.
const OPTION: &str = "--prompts";

/// A file of prompts.
pub struct PromptFile {
    pub path: PathBuf,
    /// The file's name in messages.
    pub name: String,
    pub lines: Vec<PromptLine>,
}

/// A line that is neither blank nor a comment.
pub struct PromptLine {
    /// Its number in the file, from 1.
    pub number: usize,
    text: String,
}

/// The options of a line.
pub struct LineOptions {
    pub options: Generate,
    /// The fields of its record, if it has one.
    pub recorded: Option<ParameterFields>,
    pub warnings: Vec<String>,
}

impl PromptFile {
    /// Reads the lines of a file, or of standard input for `-`.
    ///
    /// # Errors
    /// If it cannot be read, or has no prompts.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = match standard_input::is_named_by(path) {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let name = format!("{OPTION} {shown}");
        let lines = (1..).zip(read_texts(OPTION, path)?);
        let lines = lines.map(|(number, text)| PromptLine { number, text: text.trim().to_owned() });
        let lines: Vec<_> =
            lines.filter(|line| !line.text.is_empty() && !line.text.starts_with('#')).collect();
        ensure!(!lines.is_empty(), "{name}: expected at least one line of text, found none");
        Ok(Self { path: path.to_owned(), name, lines })
    }

    /// Checks that every line is valid, and that no two write the same file.
    ///
    /// # Errors
    /// Names the line and its problem.
    pub fn check(&self, all: &Generate) -> Result<()> {
        let mut writers: HashMap<PathBuf, usize> = HashMap::new();
        for line in &self.lines {
            let check = |writers: &mut HashMap<PathBuf, usize>| -> Result<()> {
                let options = line.options(all, &self.path)?.options;
                ImageFileFormat::from_path(&options.output).map_err(|error| anyhow!("output: {error}"))?;
                let images = options.images_in_batch(None)?;
                let files = if options.grid || options.only.is_some() { 1 } else { images };
                for path in numbered(&options.output, files) {
                    let other = writers.get(&path).copied();
                    ensure!(
                        other.is_none(),
                        "output: expected another file than that of line {}, found {}",
                        other.unwrap_or_default(),
                        path.display()
                    );
                    writers.insert(path, line.number);
                }
                Ok(())
            };
            check(&mut writers).with_context(|| format!("{}: line {}", self.name, line.number))?;
        }
        Ok(())
    }
}

impl PromptLine {
    /// The options of this line, with the command's as defaults; the command's output is a folder.
    ///
    /// # Errors
    /// If the line is not a valid object, or its output leads out of the folder.
    pub fn options(&self, all: &Generate, path: &Path) -> Result<LineOptions> {
        let numbered = PathBuf::from(format!("{:04}.png", self.number));
        let (mut recorded, mut warnings) = (None, Vec::new());
        let (options, output) = match self.text.starts_with('{') {
            true => {
                let object = fields::parse(&self.text, path)?;
                (recorded, warnings) = (object.recorded, object.warnings);
                let output = if object.has_output { inside(&object.options.output)? } else { numbered };
                (object.options.or(all.clone()), output)
            }
            false => {
                let prompt = vec![self.text.clone()];
                (Generate { prompt, prompt_option: Vec::new(), ..all.clone() }, numbered)
            }
        };
        let options = Generate {
            output: all.output.join(output),
            reading: options.reading.limited_as(&all.reading),
            json: all.json,
            no_parameters: all.no_parameters,
            // Hundreds of images would scroll messages off the terminal.
            no_preview: true,
            ..options
        };
        Ok(LineOptions { options, recorded, warnings })
    }
}

/// A relative path that stays in its folder.
fn inside(path: &Path) -> Result<PathBuf> {
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_plain = !path.as_os_str().is_empty() && !path.to_string_lossy().contains(['\\', ':', '\0']);
    ensure!(
        is_inside && is_plain,
        "output: expected a path inside the directory of --output, found {}",
        path.display()
    );
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        for good in ["a.png", "cats/a.png", "a..b.png"] {
            assert!(inside(Path::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "/a.png", "../a.png", "cats/../../a.png", "./a.png", "a\\b.png", "c:a.png", "a\0.png"]
        {
            assert!(inside(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
