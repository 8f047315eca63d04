//! `altdiffusion completions` and `altdiffusion manual`: write files for packages of the program.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::{Shell, generate};

use crate::standard_streams;

const NAME: &str = "altdiffusion";

/// Print a completion script for a shell.
///
/// For bash: source <(altdiffusion completions bash). For zsh: altdiffusion completions zsh >
/// "${fpath[1]}/_altdiffusion". For fish: altdiffusion completions fish | source.
// Its brackets are for the command's help; they are not links.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell: bash, zsh, fish, elvish or powershell.
    shell: Shell,
}

impl Completions {
    pub fn run(self, mut command: clap::Command) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut command, NAME, &mut script);
        standard_streams::check_open()?;
        let mut stdout = io::stdout().lock();
        standard_streams::check(stdout.write_all(&script).and_then(|()| stdout.flush()))
    }
}

/// Write man pages, one for each subcommand.
#[derive(Debug, Args)]
pub struct Manual {
    /// The folder to write them to.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
}

impl Manual {
    pub fn run(self, command: clap::Command) -> Result<()> {
        let folder = self.output.display().to_string();
        std::fs::create_dir_all(&self.output).with_context(|| format!("--output {folder}"))?;
        clap_mangen::generate_to(command, &self.output).with_context(|| format!("--output {folder}"))
    }
}
