//! Shows the progress of training, and stops it on Ctrl-C or when its time is up.

use std::time::{Duration, Instant};

use altclip_training::{Error, Metrics, Observer};
use anyhow::Result;

use crate::exit_status::Cancelled;
use crate::interrupt::Interrupt;
use crate::progress::TrainingProgress;
use crate::standard_streams::complain;

/// Shows the progress of training, stage by stage, and stops it on Ctrl-C or when its time is up.
pub struct Watch {
    stage: Option<(String, TrainingProgress)>,
    interrupt: Interrupt,
    end: Option<Instant>,
}

impl Watch {
    /// Watches for Ctrl-C, and stops the run after `minutes` if given.
    pub fn start(minutes: Option<f64>) -> Self {
        let time = minutes.and_then(|minutes| Duration::try_from_secs_f64(60. * minutes).ok());
        let end = time.and_then(|time| Instant::now().checked_add(time));
        Self { stage: None, interrupt: Interrupt::watch_for("this step is done and kept"), end }
    }

    fn stage(&mut self, name: &str) -> &mut TrainingProgress {
        let shown = self.stage.take().filter(|(shown, _)| shown == name);
        &mut self.stage.insert(shown.unwrap_or_else(|| (name.to_owned(), TrainingProgress::start(name)))).1
    }

    /// The program's result: running out of time is a success, Ctrl-C is not.
    ///
    /// # Errors
    /// The errors of the run.
    pub fn finish(&self, result: altclip_training::Result<()>) -> Result<()> {
        match result {
            Err(Error::Interrupted { stage, step, steps }) if !self.interrupt.is_pressed() => {
                complain(format!("{stage}: {step} of {steps} steps; the same command goes on from there"));
                Ok(())
            }
            Err(Error::Interrupted { step, steps, .. }) => Err(Cancelled { step, steps }.into()),
            other => Ok(other?),
        }
    }
}

impl Observer for Watch {
    fn step(&mut self, stage: &str, metrics: &Metrics, steps: usize) {
        self.stage(stage).step(metrics.step + 1, steps, metrics.loss);
    }

    fn note(&mut self, stage: &str, text: &str) {
        self.stage(stage).note(text);
    }

    fn is_over(&mut self) -> bool {
        self.interrupt.is_pressed() || self.end.is_some_and(|end| Instant::now() >= end)
    }
}
