//! `altdiffusion index`: keeps an index of folders of images up to date, and searches it.

mod add;
mod database;
mod duplicates;
mod import;
mod remove;
mod search;
mod status;
mod watch;

use anyhow::Result;
use clap::Subcommand;

/// Keep an index of folders of images, and search it.
///
/// The index is one database that follows the folders: run `index add` again, and only what is new or changed is embedded.
#[derive(Debug, Subcommand)]
pub enum Index {
    Add(add::Add),
    Search(search::Search),
    Duplicates(duplicates::Duplicates),
    Status(status::Status),
    Import(import::Import),
    Remove(remove::Remove),
}

impl Index {
    pub fn run(self) -> Result<()> {
        match self {
            Self::Add(add) => add.run(),
            Self::Search(search) => search.run(),
            Self::Duplicates(duplicates) => duplicates.run(),
            Self::Status(status) => status.run(),
            Self::Import(import) => import.run(),
            Self::Remove(remove) => remove.run(),
        }
    }
}
