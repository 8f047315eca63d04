//! Shows how far the work is: in a line that changes, or, where standard error is no terminal and the work is long, in a
//! line now and then.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::language::translated;
use crate::output::complain;

const SPINNER: &str = "{spinner} {msg}";
const WAITING: &str = "{spinner} {msg}, {elapsed}";
const BAR: &str = "{msg} [{wide_bar}] {pos}/{len}{left}";
const ITEMS: &str = "{msg} [{wide_bar}] {pos}/{len}, {rate}, {eta} left";
const TRAINING: &str = "{prefix} [{wide_bar}] {pos}/{len}, {msg}, {per_sec}, {eta} left";
const TICK: Duration = Duration::from_millis(100);
/// Where no bar can be shown, a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Share of the shown loss that is kept at every step; the rest is the new one.
const LOSS_MEMORY: f64 = 0.98;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Shows nothing from now on but warnings and errors.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A bar on standard error, if one is to be shown there.
fn new_bar(bar: ProgressBar) -> ProgressBar {
    if is_quiet() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Takes what changes off the terminal's line, to write something else there.
pub fn clear_line() {
    if io::stderr().is_terminal() {
        // A line that cannot be cleared is not worth an error.
        let _ = Term::stderr().clear_line();
    }
}

/// Says what is being done, on a line of its own. For work that may show progress itself, as downloads do.
pub fn announce(what: &str) {
    if io::stderr().is_terminal() && !is_quiet() {
        complain(what);
    }
}

/// Says what a person should know although the work goes on.
pub fn warn(what: &str) {
    complain(format!("warning: {what}"));
}

/// One line that says what is being done and, as soon as steps have been done, how long it will take.
pub struct ProgressLine {
    bar: ProgressBar,
    /// When the last line came where no bar can be shown; in the beginning, when the work began.
    last_line: Cell<Instant>,
}

impl ProgressLine {
    /// Says what is being done, of a length that is not known.
    pub fn start(what: &'static str) -> Self {
        Self::of(ProgressBar::new_spinner().with_style(style(SPINNER)).with_message(translated(what)))
    }

    fn of(bar: ProgressBar) -> Self {
        let bar = new_bar(bar);
        bar.enable_steady_tick(TICK);
        Self { bar, last_line: Cell::new(Instant::now()) }
    }

    /// So many of the steps of `what` are done.
    pub fn steps(&self, what: &'static str, done: usize, total: usize) {
        self.steps_until(what, done, total, "left");
    }

    /// So many of the steps from noise to images are done. What follows takes as long as many of them.
    pub fn drawing(&self, done: usize, total: usize) {
        self.steps_until("Drawing", done, total, "until decoding");
    }

    /// Decoding begins with an image, from 0, of so many.
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
                // Before the first step nobody knows. What cannot be shown is not worth an error.
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

    /// Says how far the work is where no bar can be shown, if it has been long since the last time.
    fn line(&self, text: impl FnOnce() -> String) {
        if self.bar.is_hidden() && !is_quiet() && self.last_line.get().elapsed() >= LINE_EVERY {
            self.last_line.set(Instant::now());
            complain(text());
        }
    }

    /// `total` items of a kind, of which an earlier run did the first `done`: how many are done, how many in a second, and
    /// how long the others will take.
    pub fn items(kind: &'static str, done: usize, total: usize) -> Self {
        let rate = |state: &ProgressState, shown: &mut dyn fmt::Write| {
            // A rate that cannot be shown is not worth an error.
            let _ = write!(shown, "{:.1}/s", state.per_sec());
        };
        let style = style(ITEMS).with_key("rate", rate);
        let progress =
            Self::of(ProgressBar::new(total as u64).with_style(style).with_message(translated(kind)));
        progress.bar.set_position(done as u64);
        progress.bar.reset_eta();
        progress
    }

    /// So many of the items are done.
    pub fn advance(&self, done: usize) {
        self.bar.set_position(done as u64);
        self.line(|| {
            let (kind, total) = (self.bar.message(), self.bar.length().unwrap_or_default());
            format!("{kind}: {done} of {total}, {:#} left", HumanDuration(self.bar.eta()))
        });
    }

    /// Says something on a line of its own, also where no progress is shown.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| complain(text));
    }

    /// Says what is being done next, again of a length that is not known.
    pub fn then(&self, what: &'static str) {
        self.bar.set_style(style(SPINNER));
        self.bar.set_message(translated(what));
    }
}

/// The line goes when the work is over, also by an error.
impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The steps of one training stage: a bar with the loss, the rate and the time left, or lines in a log.
pub struct TrainingProgress {
    bar: ProgressBar,
    stage: String,
    start: Instant,
    last_line: Option<Instant>,
    /// The step that this run began with.
    first: Option<usize>,
    loss: Option<f64>,
}

impl TrainingProgress {
    /// Shows nothing yet.
    pub fn start(stage: &str) -> Self {
        let bar = new_bar(ProgressBar::no_length().with_style(style(TRAINING)).with_prefix(stage.to_owned()));
        Self { bar, stage: stage.to_owned(), start: Instant::now(), last_line: None, first: None, loss: None }
    }

    /// `done` of `total` steps are done, the last one with this loss.
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

    /// Says something on a line of its own.
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
