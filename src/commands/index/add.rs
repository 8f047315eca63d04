//! `altdiffusion index add`: brings an index up to date with folders.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use altclip_encoder::embedder::Embedder;
use anyhow::{Result, bail};
use clap::Args;
use embedding_index::library::{ImageLibrary, Precision, UpdateSummary};
use serde_json::{Value, json};

use super::database::{DatabaseArgs, IndexModel, reworded};
use super::watch::Changes;
use crate::commands::embed::JobProgress;
use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::option_values;
use crate::progress::{announce, warn};
use crate::standard_streams::{print_json, print_json_line, print_line};

/// Add folders of images to an index, or bring it up to date.
///
/// Embeds what is new or changed, follows what was renamed, and drops what is gone. Size and time tell what may have
/// changed; the content tells a renamed or copied image, which is not embedded again. Without FOLDER, all folders of the
/// index are brought up to date.
///
/// Stop it at any time: at most a second of work is lost. An image that cannot be read is reported, counted, and not tried
/// again until it changes. A text file beside an image, with its name and the ending .txt, is its caption.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Add {
    /// Folders of images, with their subfolders. The index follows them from now on.
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Go on, and follow changes of the folders until stopped.
    #[arg(long)]
    watch: bool,

    /// With --watch, how often to look even if the system reports no change. By default every minute.
    #[arg(long, value_name = "TIME", requires = "watch", value_parser = humantime::parse_duration, hide_short_help = true)]
    every: Option<Duration>,

    /// Numbers of the vectors in a new index: f16 or f32. By default f16, which takes half the space.
    #[arg(long, value_name = "TYPE", value_parser = option_values::precision)]
    precision: Option<Precision>,

    /// Print JSON: an object with new, changed, renamed, gone, unchanged, unreadable, skipped, embedded and ignored_files.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion index add photos --model BAAI/AltCLIP
  altdiffusion index add
  altdiffusion index add photos --watch --database photos.db";

/// How often to look without a notification of changes.
const EVERY: Duration = Duration::from_secs(60);

impl Add {
    pub fn run(self) -> Result<()> {
        let mut embedder = None;
        let summary = self.update(&mut embedder)?;
        self.report(&summary, false)?;
        self.reading.warn_of_transparency(summary.transparent);
        if !self.watch {
            return Ok(());
        }
        let folders = self.database.open()?.folders()?;
        let changes = Changes::of(&folders, &self.database.file()?, self.every.unwrap_or(EVERY));
        announce("Watching for changes");
        loop {
            changes.wait();
            // A folder may be back, or the other program done, the next time.
            match self.update(&mut embedder) {
                Ok(summary) => self.report(&summary, true)?,
                Err(error) => warn(&crate::one_line(&error)),
            }
        }
    }

    /// Brings the index up to date. The model is loaded once, and only if there is something to embed.
    fn update(&self, embedder: &mut Option<Embedder>) -> Result<UpdateSummary> {
        let options = IndexModel { model: &self.model, reading: &self.reading };
        let mut library = match ImageLibrary::can_create(&self.database.file()?) {
            false => self.database.open_to_change()?,
            true if self.folders.is_empty() => {
                bail!("expected a folder, for there is no index in {}", self.database.file()?.display())
            }
            true => {
                // Check the folders before the model is loaded.
                if let Some(missing) = self.folders.iter().find(|folder| !folder.is_dir()) {
                    bail!("{}: expected a folder", missing.display());
                }
                let (loaded, made_with) = options.load_new(self.precision.unwrap_or_default())?;
                *embedder = Some(loaded);
                self.database.create(made_with)?
            }
        };
        self.check_options(&library)?;
        let plan = library.plan(&self.folders)?;
        if plan.files_to_read() > 0 && embedder.is_none() {
            *embedder = Some(options.load_for(&library)?);
        }
        let wanted = embedder.as_ref().filter(|_| plan.files_to_read() > 0);
        library.apply(plan, wanted, &mut JobProgress::default()).map_err(reworded)
    }

    /// What a new index is made with cannot change later.
    fn check_options(&self, library: &ImageLibrary) -> Result<()> {
        let (file, made_with) = (library.file().display(), library.made_with());
        if let Some(precision) = self.precision.filter(|precision| *precision != made_with.precision) {
            bail!(
                "{file}: its vectors are {}, and --precision is {precision}; expected the same",
                made_with.precision
            );
        }
        if !self.model.is_shipped() {
            IndexModel { model: &self.model, reading: &self.reading }.check_name(library)?;
        }
        Ok(())
    }

    /// Reports what was done; while watching, only if there was something to do.
    fn report(&self, summary: &UpdateSummary, is_watching: bool) -> Result<()> {
        let changes = summary.new + summary.changed + summary.renamed + summary.gone;
        match (self.json, is_watching) {
            (_, true) if changes == 0 => Ok(()),
            (true, true) => print_json_line(&as_json(summary)),
            (true, false) => print_json(&as_json(summary)),
            (false, _) => print_line(format!("{}: {}", self.database.file()?.display(), in_words(summary))),
        }
    }
}

fn as_json(summary: &UpdateSummary) -> Value {
    let ignored: BTreeMap<&str, usize> = summary.ignored.by_ending().collect();
    json!({
        "new": summary.new,
        "changed": summary.changed,
        "renamed": summary.renamed,
        "gone": summary.gone,
        "unchanged": summary.unchanged,
        "unreadable": summary.unreadable.count,
        "skipped": summary.skipped.count,
        "embedded": summary.embedded,
        "ignored_files": ignored,
    })
}

/// For example `2 new, 0 changed, 1 renamed, 0 gone, 7 unchanged; 1 unreadable; skipped 1: a.png: …; left out: 2 .txt`.
fn in_words(summary: &UpdateSummary) -> String {
    let UpdateSummary { new, changed, renamed, gone, unchanged, .. } = summary;
    let mut words =
        format!("{new} new, {changed} changed, {renamed} renamed, {gone} gone, {unchanged} unchanged");
    if summary.unreadable.count > 0 {
        words += &format!("; {} unreadable", summary.unreadable.count);
    }
    if summary.skipped.count > 0 {
        words += &format!("; {}", summary.skipped);
    }
    if !summary.ignored.is_empty() {
        words += &format!("; left out: {}", summary.ignored);
    }
    words
}
