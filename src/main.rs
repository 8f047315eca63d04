//! The command `altdiffusion`.

mod commands;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Train(commands::train::Train),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Train(train) => train.run(),
    }
}
