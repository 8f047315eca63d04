//! Writes to standard output and standard error, as the only module that does.
//!
//! There is a writer for people and one for programs. Names, prompts and errors may be untrusted: for people,
//! everything that could move the cursor or reverse the text is escaped; programs get JSON, which escapes such
//! characters itself.

#![allow(unsafe_code, reason = "asks for a flag of a file descriptor")]

mod table;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use serde::Serialize;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::language::translated;

pub use self::table::{is_for_people, percent, print_table};

/// The longest line, in characters; a path on Linux has at most 4096 bytes.
const LONGEST: usize = 4096;

/// How much of the end of a long line is shown: the end of an error often says most.
const LONGEST_END: usize = 256;

/// Writes a message to standard output: at a terminal in the reader's language, for programs always in English.
///
/// # Errors
/// If standard output cannot be written to, unless its reader has gone.
pub fn print_line(line: impl Display) -> Result<()> {
    let english = line.to_string();
    let line = if is_for_people() { translated(&english) } else { english.as_str().into() };
    print(&format!("{}\n", printable(&line)))
}

/// Writes a value for programs to standard output.
///
/// # Errors
/// If standard output cannot be written to, unless its reader has gone.
pub fn print_json(value: &(impl Serialize + ?Sized)) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes a value for programs to standard output, on one line.
///
/// # Errors
/// If standard output cannot be written to, unless its reader has gone.
pub fn print_json_line(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// Whether standard output is the file of a result, so that reports about it go to standard error.
static IS_GIVEN_AWAY: AtomicBool = AtomicBool::new(false);

/// Leaves standard output to a result that an option sends there, such as `--output /dev/stdout`.
pub fn give_away() {
    IS_GIVEN_AWAY.store(true, Ordering::Relaxed);
}

/// Writes text to standard output unchanged: it must be [`printable`] already.
///
/// A reader that has gone, like `head`, got what it needed: this is not an error and ends with exit code 0, as in
/// ripgrep. Dying of SIGPIPE would stop a run whose files matter more than its last line, and fail scripts under
/// `set -o pipefail`. Everything else, such as a full disk, is an error, since the output was lost.
///
/// # Errors
/// If standard output cannot be written to, unless its reader has gone.
pub fn print(text: &str) -> Result<()> {
    if IS_GIVEN_AWAY.load(Ordering::Relaxed) {
        // Like messages: if standard error is closed, the report is lost.
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    print_bytes(text.as_bytes())
}

/// Writes bytes for programs to standard output, like [`print()`].
///
/// # Errors
/// If standard output cannot be written to, unless its reader has gone.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    check(write_now(bytes))
}

/// Converts the result of writing to standard output.
///
/// # Errors
/// The error in `written`, unless the reader has gone.
pub fn check(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            tracing::debug!("standard output: {error}");
            Ok(())
        }
        written => written.context("standard output cannot be written to"),
    }
}

fn write_now(bytes: &[u8]) -> io::Result<()> {
    check_open()?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    // Otherwise errors such as a full disk would be reported too late, or never.
    stdout.flush()
}

/// Writes a message to standard error, translated, and coloured if enabled. If standard error is closed, the message
/// is lost.
pub fn complain(line: impl Display) {
    let _ = write_to_stderr(&line.to_string());
}

fn write_to_stderr(line: &str) -> io::Result<()> {
    anstream::stderr().write_all(format!("{}\n", coloured(line)).as_bytes())
}

/// Translates the line, and colours its start by severity.
fn coloured(line: &str) -> String {
    const ERROR: Style = AnsiColor::Red.on_default().bold();
    const WARNING: Style = AnsiColor::Yellow.on_default().bold();
    let shown = printable(&translated(line));
    let style = match line.split_once(": ") {
        Some(("error", _)) => ERROR,
        Some(("warning" | "skipped" | "left out", _)) => WARNING,
        _ => return shown,
    };
    // Chinese uses a full-width colon.
    match shown.find([':', '：']) {
        Some(end) => format!("{style}{}{style:#}{}", &shown[..end], &shown[end..]),
        None => shown,
    }
}

/// Escapes everything that would change how a terminal shows the rest, in Rust's notation: control characters, and
/// those that change the text direction. The middle of a very long text is left out.
pub fn printable(text: &str) -> String {
    let length = text.chars().count();
    if length <= LONGEST {
        return escaped(text.chars());
    }
    let left_out = length - LONGEST;
    let start = escaped(text.chars().take(LONGEST - LONGEST_END));
    let end = escaped(text.chars().skip(length - LONGEST_END));
    format!("{start} … ({left_out} characters) … {end}")
}

fn escaped(characters: impl Iterator<Item = char>) -> String {
    let mut shown = String::new();
    for character in characters {
        match character {
            // The marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9, section 2),
            // and line separators.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(character.escape_unicode());
            }
            _ if character.is_control() => shown.extend(character.escape_default()),
            _ => shown.push(character),
        }
    }
    shown
}

/// Formats a log event as a line for people: `warning: …`.
pub struct Warning;

impl<S, N> FormatEvent<S, N> for Warning
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let level = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        write!(writer, "{level}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writes warnings to standard error, like all other messages.
pub struct WarningWriter;

impl Write for WarningWriter {
    /// Takes a whole line at a time, as the subscriber passes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_to_stderr(&without_end(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the lines of a log to standard error, made [`printable`]. A server writes one for each request, so that they
/// are not searched for messages to translate.
pub struct LogWriter;

impl Write for LogWriter {
    /// Takes a whole line at a time, as the subscriber passes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(format!("{}\n", printable(&without_end(line))).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a log of JSON is written, unchanged: escapes for a terminal would make it invalid.
pub fn json_log() -> io::Stderr {
    io::stderr()
}

/// The text of a line.
fn without_end(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line))
}

/// Checks that standard output was open when the program started.
///
/// # Errors
/// The system's error if it was not.
pub fn check_open() -> io::Result<()> {
    #[cfg(unix)]
    if at_start::STDOUT_IS_CLOSED.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(())
}

/// Checked before Rust's runtime starts, which opens /dev/null for closed standard streams, so that writing succeeds.
#[cfg(unix)]
mod at_start {
    use std::sync::atomic::{AtomicBool, Ordering};

    pub static STDOUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);

    #[ctor::ctor(unsafe)]
    fn look_at_stdout() {
        // SAFETY: asks for a flag of a file descriptor by its number, which may be one that is not open.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        STDOUT_IS_CLOSED.store(flags == -1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_the_terminal_is_escaped() {
        for (text, shown) in [
            ("一只猫 café ❤️", "一只猫 café ❤️"),
            ("a\u{1b}[2Jb\r\n\tc\0\u{9b}", "a\\u{1b}[2Jb\\r\\n\\tc\\u{0}\\u{9b}"),
            ("gpj.\u{202e}exe\u{2069}", "gpj.\\u{202e}exe\\u{2069}"),
            ("one\u{2028}two", "one\\u{2028}two"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn of_long_lines_both_ends_are_shown() {
        let exact = "猫".repeat(LONGEST);
        assert_eq!(printable(&exact), exact);
        let shown = printable(&format!("start{}end", "x".repeat(100 << 20)));
        assert!(shown.starts_with("startxx") && shown.ends_with("xxend"));
        assert!(shown.contains("… (104853512 characters) …") && shown.chars().count() < LONGEST + 64);
    }

    #[test]
    fn only_a_reader_that_has_gone_is_forgiven() {
        assert!(check(Err(ErrorKind::BrokenPipe.into())).is_ok());
        let error = check(Err(ErrorKind::StorageFull.into())).err().map(|error| format!("{error:#}"));
        assert!(error.is_some_and(|error| error.starts_with("standard output cannot be written to: ")));
    }
}
