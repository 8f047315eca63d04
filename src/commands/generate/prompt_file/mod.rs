//! Draws the prompts of a file into a folder, skipping what an earlier run drew with the same settings.

mod earlier;
mod fields;
mod lines;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::earlier::Earlier;
use self::lines::{PromptFile, PromptLine};
use super::Generate;
use super::loaded::LoadedModel;
use super::run::random_seed;
use crate::one_line;
use crate::output::{complain, print_json_line, print_line};

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
            match draw_line(&mut model, &self, line, start) {
                Ok(true) => counts.drawn += 1,
                Ok(false) => counts.skipped += 1,
                Err(error) => {
                    counts.failed += 1;
                    complain(format!("error: {}: line {}: {}", file.name, line.number, one_line(&error)));
                }
            }
        }
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
fn draw_line(model: &mut LoadedModel, all: &Generate, line: &PromptLine, start: Instant) -> Result<bool> {
    let options = line.options(all)?;
    if let Some(folder) = options.output.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut prepared = options.prepare()?;
    let earlier = Earlier::read(&prepared);
    let seed = options.seed.or_else(|| earlier.as_ref()?.seed(&options)).unwrap_or_else(random_seed);
    let plan = model.plan(&mut prepared, seed)?;
    if let Some(earlier) = earlier {
        let mut fields = options.record(&plan.record)?;
        model.add_hash(&mut fields);
        if earlier.is_drawn_by(&options, &plan.record, &fields) {
            if options.json {
                let images = (0..prepared.files.paths.len()).zip(earlier.texts());
                for (place, text) in images {
                    let mut image = options.written(&prepared, &plan, place);
                    image.parameters = Some(text.to_owned());
                    print_json_line(&image)?;
                }
            }
            return Ok(false);
        }
    }
    model.draw(&prepared, plan, start)?;
    Ok(true)
}
