//! `altdiffusion index import`: takes vectors from a file that `altdiffusion embed` wrote.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use embedding_index::Index;
use embedding_index::library::{ImageLibrary, Precision};
use serde_json::json;

use super::database::{DatabaseArgs, IndexModel, reworded};
use crate::commands::embed::JobProgress;
use crate::image_args::ImageArgs;
use crate::model::ModelArgs;
use crate::option_values;
use crate::standard_streams::{print_json, print_line};

/// Take images into an index from a file that `altdiffusion embed` wrote, without embedding them again.
///
/// The image files must still be there: their contents tell what was renamed or changed later. The index does not follow
/// their folders until `index add` names them, which then embeds only what the file has not. Texts are left out.
#[derive(Debug, Args)]
pub struct Import {
    /// A .safetensors file that `altdiffusion embed` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Where the relative paths in FILE start. By default the current directory.
    #[arg(long, value_name = "FOLDER", default_value = ".", hide_default_value = true)]
    relative_to: PathBuf,

    /// Numbers of the vectors in a new index: f16 or f32. By default f16, which takes half the space.
    #[arg(long, value_name = "TYPE", value_parser = option_values::precision)]
    precision: Option<Precision>,

    /// Print JSON: an object with imported, known, skipped and texts.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ImageArgs,

    #[command(flatten)]
    model: ModelArgs,
}

impl Import {
    pub fn run(self) -> Result<()> {
        let index = Index::open(&self.file)?;
        let mut library = match ImageLibrary::can_create(&self.database.file()?) {
            false => self.database.open_to_change()?,
            true => {
                let options = IndexModel { model: &self.model, reading: &self.reading };
                let (_, made_with) = options.load_new(self.precision.unwrap_or_default())?;
                if let Some(info) = index.info() {
                    made_with.check_name(&info.model).with_context(|| self.file.display().to_string())?;
                }
                self.database.create(made_with)?
            }
        };
        let summary =
            library.import(&index, &self.relative_to, &mut JobProgress::default()).map_err(reworded)?;
        if self.json {
            return print_json(&json!({
                "imported": summary.imported,
                "known": summary.known,
                "skipped": summary.skipped.count,
                "texts": summary.texts,
            }));
        }
        let mut words = format!("{} imported, {} known before", summary.imported, summary.known);
        if summary.skipped.count > 0 {
            words += &format!("; {}", summary.skipped);
        }
        if summary.texts > 0 {
            words += &format!("; {} texts left out", summary.texts);
        }
        print_line(format!("{}: {words}", library.file().display()))
    }
}
