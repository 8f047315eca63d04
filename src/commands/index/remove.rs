//! `altdiffusion index remove`: takes folders out of an index.

use std::path::{PathBuf, absolute};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::database::DatabaseArgs;
use crate::standard_streams::{print_json, print_line};

/// Take folders or images out of an index. The files stay as they are.
#[derive(Debug, Args)]
pub struct Remove {
    /// Folders with everything in them, or images.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: a list of objects with path and files, the number of files taken out.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed {
    path: String,
    files: usize,
}

impl Remove {
    pub fn run(self) -> Result<()> {
        let mut library = self.database.open_to_change()?;
        let mut removed = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            // A folder that is gone has no canonical path.
            let whole = path.canonicalize().or_else(|_| absolute(path))?;
            let files = library.forget(&whole)?;
            let path = path.display().to_string();
            if !self.json {
                let unit = if files == 1 { "file" } else { "files" };
                print_line(format!("{path}: {files} {unit} taken out"))?;
            }
            removed.push(Removed { path, files });
        }
        if self.json { print_json(&removed) } else { Ok(()) }
    }
}
