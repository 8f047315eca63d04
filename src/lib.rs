//! Provides the command `altdiffusion` as a function, for programs that contain it.

// Only `standard_streams` writes to standard output and standard error: it escapes what could change the terminal,
// and reports every error.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![warn(missing_docs)]

mod animation;
mod bare_argument;
mod commands;
mod defaults;
mod device;
mod exit_status;
mod image_args;
mod image_file;
mod interrupt;
mod language;
mod library_page;
mod model;
mod more_options;
mod named;
mod option_values;
mod output_files;
mod preview;
mod progress;
mod recorded;
mod result_page;
mod shipped;
mod shortage;
mod standard_input;
mod standard_streams;
mod text_lines;
mod vector_output;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::commands::serve::LogForm;
use self::exit_status::ExitStatus;

pub use self::device::DeviceChoice;
pub use self::shipped::{
    GUIDANCE_SCALE as BUILT_IN_GUIDANCE_SCALE, SCALE as BUILT_IN_SCALE, STEPS as BUILT_IN_STEPS,
    source as built_in_model,
};
pub use self::shortage::Allocator;

/// The variable with the number of candle's own threads, and the number that this program and its Python package set.
///
/// candle must not start them: it adds large tensors on them, and they then spin on the cores that `fused-ops` computes
/// on. That more than doubles the time of a training step, which sums gradients, and slows each batch of texts down,
/// which begins with a sum of embeddings. Nothing that takes time gains by them.
pub const THREADS_OF_CANDLE: (&str, &str) = ("CANDLE_NUM_THREADS", "1");

/// Draw images from prompts in Chinese, English and sixteen other languages, and search images in them.
///
/// Works with the small model inside this program, or with any AltDiffusion or AltCLIP model.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log to standard error. RUST_LOG chooses in more detail.
    #[arg(long, short, global = true)]
    verbose: bool,

    /// Print only warnings and errors to standard error.
    #[arg(long, short, global = true)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion generate 一只猫
  altdiffusion generate \"a red apple\" --num-images 4 --output apple.png
  altdiffusion generate --help";

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Box<commands::generate::Generate>),
    Encode(commands::encode::Encode),
    Similarity(commands::similarity::Similarity),
    Classify(commands::classify::Classify),
    Inspect(commands::inspect::Inspect),
    Convert(commands::convert::Convert),
    Embed(commands::embed::Embed),
    Search(commands::search::Search),
    #[command(subcommand)]
    Index(commands::index::Index),
    Serve(Box<commands::serve::Serve>),
    Download(commands::download::Download),
    Models(commands::models::Models),
    Machine(commands::machine::ShowMachine),
    #[command(subcommand)]
    Train(commands::train::Train),
    #[command(subcommand)]
    Eval(commands::eval::Eval),
    #[command(hide = true)]
    Completions(commands::manual::Completions),
    #[command(hide = true)]
    Manual(commands::manual::Manual),
}

/// Runs the command with its arguments, the first of which is its name, and returns the exit code. Signals are handled
/// from then on, and end the process.
///
/// # Safety
/// It sets environment variables, so no other thread may exist.
#[allow(unsafe_code, reason = "sets environment variables")]
pub unsafe fn run(arguments: Vec<OsString>) -> u8 {
    // SAFETY: the caller says that no other thread exists.
    unsafe { set_environment() };
    shortage::prepare();
    interrupt::install();
    let status = run_prepared(&arguments).unwrap_or_else(|error| {
        standard_streams::complain(format!("error: {}", one_line(&error)));
        ExitStatus::of(&error)
    });
    status.code()
}

fn run_prepared(arguments: &[OsString]) -> anyhow::Result<ExitStatus> {
    let command = defaults::with_defaults(full_command(), EXAMPLES)?;
    let command = language::localized(more_options::counted(command));
    let parsed = command.try_get_matches_from(arguments).and_then(|matches| match matches.subcommand() {
        // An image records everything it was drawn with; a user's defaults must not interfere.
        Some((_, of_generate)) if of_generate.try_contains_id("like").unwrap_or(false) => {
            let command = language::localized(defaults::without_defaults(full_command()));
            command.try_get_matches_from(arguments)
        }
        _ => Ok(matches),
    });
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(mut message) if message.use_stderr() => {
            bare_argument::suggest(&mut message, arguments);
            return Ok(refuse(&message));
        }
        // Help or the version was requested, so failing to print it is an error.
        Err(help) => {
            let printed = standard_streams::check_open().and_then(|()| help.print());
            standard_streams::check(printed.and_then(|()| io::stdout().flush()))?;
            return Ok(ExitStatus::Success);
        }
    };
    start_log(cli.verbose, cli.quiet, &cli.command);
    if cli.quiet {
        progress::be_quiet();
    }
    match cli.command {
        Command::Generate(generate) => generate.run(),
        Command::Encode(encode) => encode.run(),
        Command::Similarity(similarity) => similarity.run(),
        Command::Classify(classify) => classify.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Convert(convert) => convert.run(),
        Command::Embed(embed) => embed.run(),
        Command::Search(search) => search.run(),
        Command::Index(index) => index.run(),
        Command::Serve(serve) => serve.run(),
        Command::Download(download) => download.run(),
        Command::Models(models) => models.run(),
        Command::Machine(machine) => machine.run(),
        Command::Train(train) => train.run(),
        Command::Eval(eval) => eval.run(),
        Command::Completions(completions) => completions.run(full_command()),
        Command::Manual(manual) => manual.run(full_command()),
    }?;
    Ok(ExitStatus::Success)
}

/// All options and subcommands, in English.
pub fn full_command() -> clap::Command {
    Cli::command()
}

/// Sets environment variables that libraries read: [`THREADS_OF_CANDLE`], and that of backtraces.
///
/// Backtraces are for panics only: candle captures one in each error and displays it with the message, so with
/// `RUST_BACKTRACE=1`, which some set permanently, a one-line error would fill a page.
///
/// # Safety
/// No other thread may exist.
#[allow(unsafe_code, reason = "sets environment variables")]
unsafe fn set_environment() {
    const BACKTRACES_OF_ERRORS: &str = "RUST_LIB_BACKTRACE";
    let (threads, one) = THREADS_OF_CANDLE;
    // SAFETY: as the caller says.
    unsafe {
        if std::env::var_os(threads).is_none() {
            std::env::set_var(threads, one);
        }
        std::env::set_var(BACKTRACES_OF_ERRORS, "0");
    }
}

/// Explains invalid options.
fn refuse(message: &clap::Error) -> ExitStatus {
    if let Some(text) = language::explain(message) {
        text.lines().for_each(standard_streams::complain);
        return ExitStatus::Usage;
    }
    let text = message.to_string();
    if text.lines().all(|line| standard_streams::printable(line) == line) {
        // In colours. Failing to print it does not change the outcome.
        let _ = message.print();
    } else {
        // The arguments may contain escape sequences.
        text.lines().for_each(standard_streams::complain);
    }
    ExitStatus::Usage
}

fn start_log(verbose: bool, quiet: bool, command: &Command) {
    const QUIET: &str = "warn";
    const SERVER: &str = "warn,altdiffusion_server=info";
    const VERBOSE: &str = "info,altdiffusion=debug,model_files=debug,altclip_encoder=debug,embedding_index=debug,\
                           altdiffusion_pipeline=debug,altdiffusion_server=debug,altclip_training=debug,\
                           emoji_model=debug";
    let log_form = match command {
        Command::Serve(serve) => Some(serve.log_format),
        _ => None,
    };
    let default = match (verbose, log_form) {
        (true, _) => VERBOSE,
        (false, Some(_)) if !quiet => SERVER,
        (false, _) => QUIET,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // This module prints every byte that is sent, and the hub's token is among them.
    let secret = "ureq_proto::util=off".parse();
    let filter = secret.map_or_else(|_| EnvFilter::new(default), |secret| filter.add_directive(secret));
    let is_log = verbose || log_form.is_some() || std::env::var_os(EnvFilter::DEFAULT_ENV).is_some();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match log_form {
        Some(LogForm::Json) => {
            log.json().flatten_event(true).with_writer(standard_streams::json_log).init();
        }
        _ if is_log => log.with_writer(|| standard_streams::LogWriter).init(),
        // Without a log, warnings look like all other messages.
        _ => {
            let log = log.with_writer(|| standard_streams::WarningWriter);
            log.event_format(standard_streams::Warning).init();
        }
    }
}

/// An error and its causes, joined by `: `. A cause that ends the line already is not repeated.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_do_not_contradict_each_other() {
        full_command().debug_assert();
    }

    #[test]
    fn errors_are_one_line_without_repetition() {
        let cause = io::Error::other("the disk\n  is full");
        let error = altdiffusion_pipeline::Error::Io { file: "a.png".to_owned(), source: cause };
        let error = anyhow::Error::new(error).context("--output");
        assert_eq!(one_line(&error), "--output: a.png: the disk is full");
    }
}
