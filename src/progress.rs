//! Shows progress: in a changing line or, if standard error is not a terminal and the work is long, in occasional
//! lines.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::language::translated;
use crate::standard_streams::{complain, printable};

const SPINNER: &str = "{spinner} {msg}";
const WAITING: &str = "{spinner} {msg}, {elapsed}";
const BAR: &str = "{msg} [{wide_bar}] {pos}/{len}{left}";
const ITEMS: &str = "{msg} [{wide_bar}] {pos}/{len}, {rate}, {eta} left";
const TRAINING: &str = "{prefix} [{wide_bar}] {pos}/{len}, {msg}, {per_sec}, {eta} left";
const TICK: Duration = Duration::from_millis(100);
/// The time between lines if no bar can be shown.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The smoothing of the displayed loss: the share kept at every step.
const LOSS_MEMORY: f64 = 0.98;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Shows only warnings and errors from now on.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether only warnings and errors are shown.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A bar on standard error, if it can be shown.
fn new_bar(bar: ProgressBar) -> ProgressBar {
    if is_quiet() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Clears the terminal's changing line, to write something else.
pub fn clear_line() {
    if io::stderr().is_terminal() {
        // Failing to clear a line is harmless.
        let _ = Term::stderr().clear_line();
    }
}

/// Announces work on a separate line, for work that may show its own progress, such as downloads.
pub fn announce(what: &str) {
    if io::stderr().is_terminal() && !is_quiet() {
        complain(what);
    }
}

/// Says something that is worth knowing, but no reason to worry.
pub fn note(what: &str) {
    if !is_quiet() {
        complain(format!("note: {what}"));
    }
}

/// Warns the user while the work goes on.
pub fn warn(what: &str) {
    complain(format!("warning: {what}"));
}

/// A line that shows the current work and, once steps are done, the time left.
pub struct ProgressLine {
    bar: ProgressBar,
    /// When the last line was printed if no bar can be shown; initially, when the work began.
    last_line: Cell<Instant>,
}

impl ProgressLine {
    /// Starts work of unknown length.
    pub fn start(what: &'static str) -> Self {
        Self::of(ProgressBar::new_spinner().with_style(style(SPINNER)).with_message(translated(what)))
    }

    fn of(bar: ProgressBar) -> Self {
        let bar = new_bar(bar);
        bar.enable_steady_tick(TICK);
        Self { bar, last_line: Cell::new(Instant::now()) }
    }

    /// Reports `done` of the steps of `what`.
    pub fn steps(&self, what: &'static str, done: usize, total: usize) {
        self.steps_until(what, done, total, "left");
    }

    /// Reports `done` of the denoising steps. The rest takes about as long as all of them.
    pub fn drawing(&self, done: usize, total: usize) {
        self.steps_until("Drawing", done, total, "until decoding");
    }

    /// Reports that decoding of image `image`, from 0, begins.
    pub fn decoding(&self, image: usize, images: usize) {
        if images > 1 {
            return self.steps("Decoding", image, images);
        }
        self.bar.reset_elapsed();
        self.bar.unset_length();
        self.bar.set_style(style(WAITING));
        self.bar.set_message(translated("Decoding"));
        self.line(|| "Decoding".to_owned());
    }

    fn steps_until(&self, what: &'static str, done: usize, total: usize, end: &'static str) {
        let (bar, length) = (&self.bar, total as u64);
        if bar.length() != Some(length) || bar.message() != translated(what) {
            let left = move |state: &ProgressState, shown: &mut dyn fmt::Write| {
                // Before the first step there is no estimate. Failing to show progress is harmless.
                if state.pos() > 0 && state.len().is_some_and(|length| state.pos() < length) {
                    let left = format!(", {:#} {end}", HumanDuration(state.eta()));
                    let _ = shown.write_str(&translated(&left));
                }
            };
            bar.set_style(style(BAR).with_key("left", left));
            bar.set_message(translated(what));
            bar.set_length(length);
            bar.set_position(done as u64);
            bar.reset_eta();
        }
        bar.set_position(done as u64);
        self.line(|| {
            let left = match done > 0 && done < total {
                true => format!(", {:#} {end}", HumanDuration(bar.eta())),
                false => String::new(),
            };
            format!("{what}: {done} of {total}{left}")
        });
    }

    /// Prints a line about progress if no bar can be shown and enough time has passed.
    fn line(&self, text: impl FnOnce() -> String) {
        if self.bar.is_hidden() && !is_quiet() && self.last_line.get().elapsed() >= LINE_EVERY {
            self.last_line.set(Instant::now());
            complain(text());
        }
    }

    /// Starts `total` items of a kind, `done` of them by an earlier run: shows their number, rate and the time left.
    pub fn items(kind: &'static str, done: usize, total: usize) -> Self {
        let rate = |state: &ProgressState, shown: &mut dyn fmt::Write| {
            // Failing to show a rate is harmless.
            let _ = write!(shown, "{:.1}/s", state.per_sec());
        };
        let style = style(ITEMS).with_key("rate", rate);
        let progress =
            Self::of(ProgressBar::new(total as u64).with_style(style).with_message(translated(kind)));
        progress.bar.set_position(done as u64);
        progress.bar.reset_eta();
        progress
    }

    /// Reports the number of items done.
    pub fn advance(&self, done: usize) {
        self.bar.set_position(done as u64);
        self.line(|| {
            let (kind, total) = (self.bar.message(), self.bar.length().unwrap_or_default());
            format!("{kind}: {done} of {total}, {:#} left", HumanDuration(self.bar.eta()))
        });
    }

    /// Prints a separate line, even if no progress is shown.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| complain(text));
    }

    /// Starts the next work of unknown length.
    pub fn then(&self, what: &'static str) {
        self.bar.set_style(style(SPINNER));
        self.bar.set_message(translated(what));
    }
}

/// Clears the line when the work ends, even on error.
impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The progress of a training stage: a bar with loss, rate and time left, or lines in a log.
pub struct TrainingProgress {
    bar: ProgressBar,
    stage: String,
    start: Instant,
    last_line: Option<Instant>,
    /// The step at which this run started.
    first: Option<usize>,
    loss: Option<f64>,
}

impl TrainingProgress {
    /// Shows nothing yet.
    pub fn start(stage: &str) -> Self {
        let bar = new_bar(ProgressBar::no_length().with_style(style(TRAINING)).with_prefix(printable(stage)));
        Self { bar, stage: stage.to_owned(), start: Instant::now(), last_line: None, first: None, loss: None }
    }

    /// Reports `done` of `total` steps, and the last step's loss.
    pub fn step(&mut self, done: usize, total: usize, loss: f64) {
        let loss = self.loss.map_or(loss, |before| LOSS_MEMORY * before + (1. - LOSS_MEMORY) * loss);
        self.loss = Some(loss);
        let first = *self.first.get_or_insert_with(|| {
            self.bar.set_length(total as u64);
            self.bar.set_position(done as u64);
            self.bar.reset_eta();
            self.start = Instant::now();
            done
        });
        self.bar.set_message(translated(&format!("loss {loss:.4}")).into_owned());
        self.bar.set_position(done as u64);
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) || done == total;
        if self.bar.is_hidden() && !is_quiet() && due {
            self.last_line = Some(Instant::now());
            let per_step = self.start.elapsed().as_secs_f64() / (done - first).max(1) as f64;
            let left = per_step * (total - done) as f64 / 60.;
            let line = format!("{}: {done}/{total}, loss {loss:.4}", self.stage);
            if done == first {
                complain(line);
            } else {
                complain(format!("{line}, {per_step:.2} s a step, {left:.0} min left"));
            }
        }
    }

    /// Prints a separate line.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| complain(format!("{}: {text}", self.stage)));
    }
}

impl Drop for TrainingProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(&translated(template)).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [SPINNER, WAITING, BAR, ITEMS, TRAINING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
