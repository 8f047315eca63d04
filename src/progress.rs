//! What a person sees while the work goes on. Nothing, where standard error is not a terminal.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::output::complain;

const SPINNER: &str = "{spinner} {msg}";
const BAR: &str = "{msg} [{wide_bar}] {pos}/{len}, {eta} left";
const ITEMS: &str = "{msg} [{wide_bar}] {pos}/{len}, {rate}, {eta} left";
const TRAINING: &str = "{prefix} [{wide_bar}] {pos}/{len}, {msg}, {per_sec}, {eta} left";
const TICK: Duration = Duration::from_millis(100);
/// Where no bar can be shown, a line of training comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Share of the shown loss that is kept at every step; the rest is the new one.
const LOSS_MEMORY: f64 = 0.98;

/// Says what is being done, on a line of its own. For work that may show progress itself, as downloads do.
pub fn announce(what: &str) {
    if io::stderr().is_terminal() {
        complain(what);
    }
}

/// Says what a person should know although the work goes on.
pub fn warn(what: &str) {
    complain(format!("warning: {what}"));
}

/// One line that says what is being done and, as soon as steps have been done, how long it will take.
pub struct Progress(ProgressBar);

impl Progress {
    /// Says what is being done, of a length that is not known.
    pub fn start(what: &'static str) -> Self {
        let bar = ProgressBar::new_spinner().with_style(style(SPINNER)).with_message(what);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So many of the steps of `what` are done.
    pub fn steps(&self, what: &'static str, done: usize, total: usize) {
        let total = total as u64;
        if self.0.length() != Some(total) {
            self.0.set_style(style(BAR));
            self.0.set_message(what);
            self.0.set_length(total);
            self.0.reset_eta();
        }
        self.0.set_position(done as u64);
    }

    /// `total` items of a kind, of which an earlier run did the first `done`: how many are done, how many in a second, and
    /// how long the others will take.
    pub fn items(kind: &'static str, done: usize, total: usize) -> Self {
        let rate = |state: &ProgressState, shown: &mut dyn fmt::Write| {
            // A rate that cannot be shown is not worth an error.
            let _ = write!(shown, "{:.1}/s", state.per_sec());
        };
        let style = style(ITEMS).with_key("rate", rate);
        let bar = ProgressBar::new(total as u64).with_style(style).with_message(kind);
        bar.set_position(done as u64);
        bar.reset_eta();
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So many of the items are done.
    pub fn advance(&self, done: usize) {
        self.0.set_position(done as u64);
    }

    /// Says something on a line of its own, also where no progress is shown.
    pub fn note(&self, text: &str) {
        self.0.suspend(|| complain(text));
    }

    /// Says what is being done next, again of a length that is not known.
    pub fn then(&self, what: &'static str) {
        self.0.set_style(style(SPINNER));
        self.0.set_message(what);
    }
}

/// The line goes when the work is over, also by an error.
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
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
        let bar = ProgressBar::no_length().with_style(style(TRAINING)).with_prefix(stage.to_owned());
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
        self.bar.set_message(format!("loss {loss:.4}"));
        self.bar.set_position(done as u64);
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) || done == total;
        if self.bar.is_hidden() && due {
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
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [SPINNER, BAR, ITEMS, TRAINING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
