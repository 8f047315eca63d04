//! `altdiffusion index remove`: takes folders out of an index.

use std::path::{Path, PathBuf, absolute};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::database::DatabaseArgs;
use crate::standard_streams::{complain, print_json, print_line};

/// Take folders or images out of an index. The files stay as they are.
///
/// A path that is not in the index is an error; the others are taken out all the same.
#[derive(Debug, Args)]
pub struct Remove {
    /// Folders with everything in them, or images.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: a list of objects with path, files (how many were taken out) and error (null if there is none).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed {
    path: String,
    files: usize,
    /// Why nothing was taken out.
    error: Option<String>,
}

impl Remove {
    pub fn run(self) -> Result<()> {
        let mut library = self.database.open_to_change()?;
        let mut forget = |path: &Path| -> Result<usize> {
            // A folder that is gone has no canonical path.
            let whole = path.canonicalize().or_else(|_| absolute(path))?;
            Ok(library.forget(&whole)?)
        };
        let mut removed = Vec::with_capacity(self.paths.len());
        let mut failures = Vec::new();
        for path in &self.paths {
            let forgotten = forget(path);
            let path = path.display().to_string();
            match forgotten {
                Ok(files) => {
                    if !self.json {
                        let unit = if files == 1 { "file" } else { "files" };
                        print_line(format!("{path}: {files} {unit} taken out"))?;
                    }
                    removed.push(Removed { path, files, error: None });
                }
                Err(failure) => {
                    removed.push(Removed { path, files: 0, error: Some(crate::one_line(&failure)) });
                    failures.push(failure);
                }
            }
        }
        if self.json {
            print_json(&removed)?;
        }
        // The caller reports the last.
        let Some(last) = failures.pop() else { return Ok(()) };
        for failure in failures {
            complain(format!("error: {}", crate::one_line(&failure)));
        }
        Err(last)
    }
}
