//! Draws the prompts of a file into a folder, skipping what an earlier run drew with the same settings.

mod earlier;
mod fields;
mod lines;

use std::fs;
use std::path::Path;
use std::time::Instant;

use altdiffusion_pipeline::image_metadata::ParameterFields;
use anyhow::{Context, Result, bail, ensure};

use self::earlier::Earlier;
use self::lines::{LineOptions, PromptFile, PromptLine};
use super::loaded::LoadedModel;
use super::options::Generate;
use super::run::random_seed;
use crate::one_line;
use crate::progress::warn;
use crate::standard_streams::{complain, print_line};

/// The number of lines per outcome.
#[derive(Default)]
struct Counts {
    drawn: usize,
    skipped: usize,
    failed: usize,
}

impl Generate {
    /// Draws the prompts of a file with one model. Lines that fail are reported and do not stop the others.
    ///
    /// # Errors
    /// If the file or the model cannot be read, or a line failed.
    pub(super) fn draw_prompt_file(self, path: &Path, start: Instant) -> Result<()> {
        let file = PromptFile::read(path)?;
        // Check all lines before the work starts.
        file.check(&self)?;
        let folder = self.output.display();
        ensure!(
            self.output.is_dir() || !self.output.exists(),
            "--output {folder}: expected a directory beside --prompts, found a file"
        );
        fs::create_dir_all(&self.output).with_context(|| format!("--output {folder}"))?;
        let mut model = LoadedModel::load(&self, start, None)?;
        let mut counts = Counts::default();
        for line in &file.lines {
            match draw_line(&mut model, &self, &file, line, start) {
                Ok(true) => counts.drawn += 1,
                Ok(false) => counts.skipped += 1,
                Err(error) => {
                    counts.failed += 1;
                    complain(format!("error: {}: line {}: {}", file.name, line.number, one_line(&error)));
                }
            }
        }
        self.model.suggest_bf16()?;
        let Counts { drawn, skipped, failed } = counts;
        if !self.json {
            print_line(format!("{folder}: {drawn} drawn, {skipped} drawn before, {failed} failed"))?;
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{}: {failed} of {} lines failed", file.name, file.lines.len()),
        }
    }
}

/// Draws a line, unless an earlier run did with the same settings, and returns whether it drew.
fn draw_line(
    model: &mut LoadedModel,
    all: &Generate,
    file: &PromptFile,
    line: &PromptLine,
    start: Instant,
) -> Result<bool> {
    let LineOptions { options, recorded, warnings } = line.options(all, &file.path)?;
    let say = |warning: &str| warn(&format!("{}: line {}: {warning}", file.name, line.number));
    warnings.iter().for_each(|warning| say(warning));
    if let Some(folder) = options.output.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut prepared = options.prepare()?;
    let earlier = Earlier::read(&prepared);
    let seed = options.seed.or_else(|| earlier.as_ref()?.seed(&options)).unwrap_or_else(random_seed);
    let plan = model.plan(&mut prepared, seed)?;
    if earlier.is_some() || recorded.is_some() {
        let mut fields = options.record(&plan.record)?;
        model.add_hash(&mut fields);
        if let Some(other) = recorded.and_then(|recorded| other_for_all_lines(&recorded, &fields)) {
            say(&format!("parameters: drawn with {other}, so that another image comes out"));
        }
        if let Some(earlier) = earlier.filter(|earlier| earlier.is_drawn_by(&options, &plan.record, &fields))
        {
            if options.json {
                earlier.print(&prepared, &plan)?;
            }
            return Ok(false);
        }
    }
    model.draw(&prepared, plan, start)?;
    model.drawn_concepts.note_unknown(&options, &format!("{}: line {}: ", file.name, line.number));
    Ok(true)
}

/// The first recorded field about the model or its adapters, which are loaded once, that differs now.
fn other_for_all_lines(recorded: &ParameterFields, now: &ParameterFields) -> Option<String> {
    const ADAPTERS: [&str; 3] = ["LoRA ", "Embedding ", "ControlNet "];
    let mut others = recorded.iter().filter(|(name, value)| match *name {
        // Not computed if nothing is recorded.
        "Model hash" => now.get(name).is_some_and(|now| now != *value),
        name => ADAPTERS.iter().any(|start| name.starts_with(start)) && now.get(name) != Some(value),
    });
    others.next().map(|(name, value)| format!("{name}: {value}"))
}
