//! What a person sees while the work goes on. Nothing, where standard error is not a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const SPINNER: &str = "{spinner} {msg}";
const BAR: &str = "{msg} [{wide_bar}] {pos}/{len}, {eta} left";
const TICK: Duration = Duration::from_millis(100);

/// Says what is being done, on a line of its own. For work that may show progress itself, as downloads do.
pub fn announce(what: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // An announcement that cannot be shown is not worth an error.
        let _ = writeln!(stderr, "{what}");
    }
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [SPINNER, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
