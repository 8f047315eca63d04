//! `altdiffusion index remove`: takes folders out of an index.

use std::path::{PathBuf, absolute};

use anyhow::Result;
use clap::Args;

use super::database::DatabaseArgs;
use crate::standard_streams::print_line;

/// Take folders or images out of an index. The files stay as they are.
#[derive(Debug, Args)]
pub struct Remove {
    /// Folders with everything in them, or images.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,
}

impl Remove {
    pub fn run(self) -> Result<()> {
        let mut library = self.database.open_to_change()?;
        for path in &self.paths {
            // A folder that is gone has no canonical path.
            let whole = path.canonicalize().or_else(|_| absolute(path))?;
            let files = library.forget(&whole)?;
            print_line(format!("{}: {files} files taken out", path.display()))?;
        }
        Ok(())
    }
}
