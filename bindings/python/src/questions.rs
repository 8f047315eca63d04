//! Lets a run on another thread ask Python, on the thread that waits for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use altdiffusion_pipeline::random::Noise;
use altdiffusion_pipeline::{Error, Result};
use candle_core::Tensor;

use crate::arrays::Numbers;
use crate::errors::Result as Work;

/// What a run tells or asks.
pub(crate) enum Message<T> {
    /// A step was completed: its index, its timestep, and the latents after it.
    Step(usize, f64, Numbers),
    /// Noise of this shape is needed, which the batch shares or not.
    Noise { shape: Vec<usize>, shared: bool },
    /// The run has ended.
    Done(Work<T>),
}

/// What Python answers.
pub(crate) enum Answer {
    Continue,
    Noise(Numbers),
}

/// Where a run sends its messages, and receives the answers.
type Ends<T> = (Sender<Message<T>>, Receiver<Answer>);

/// The end of the run. Clones ask the same thread.
pub(crate) struct Asker<T> {
    ends: Arc<Mutex<Ends<T>>>,
}

/// The end of the thread that answers.
pub(crate) struct Answerer<T> {
    pub(crate) messages: Receiver<Message<T>>,
    pub(crate) answers: Sender<Answer>,
}

/// Both ends.
pub(crate) fn connected<T>() -> (Asker<T>, Answerer<T>) {
    let ((sender, messages), (answers, receiver)) = (channel(), channel());
    (Asker { ends: Arc::new(Mutex::new((sender, receiver))) }, Answerer { messages, answers })
}

impl<T> Clone for Asker<T> {
    fn clone(&self) -> Self {
        Self { ends: Arc::clone(&self.ends) }
    }
}

impl<T> Asker<T> {
    /// The answer, unless the other thread has gone.
    pub(crate) fn ask(&self, message: Message<T>) -> Option<Answer> {
        let ends = self.ends.lock().ok()?;
        ends.0.send(message).ok()?;
        ends.1.recv().ok()
    }

    /// Sends the end.
    pub(crate) fn tell(&self, message: Message<T>) {
        if let Ok(ends) = self.ends.lock() {
            // Nobody waits for it after an exception.
            let _ = ends.0.send(message);
        }
    }
}

/// Noise that Python draws.
pub(crate) struct AskedNoise<T>(pub(crate) Asker<T>);

impl<T> AskedNoise<T> {
    fn draw(&self, shape: &[usize], shared: bool) -> Result<Tensor> {
        match self.0.ask(Message::Noise { shape: shape.to_vec(), shared }) {
            Some(Answer::Noise(noise)) => Ok(noise.tensor()?),
            Some(Answer::Continue) | None => Err(Error::Cancelled { completed: 0, total: 0, latents: None }),
        }
    }
}

impl<T: Send> Noise for AskedNoise<T> {
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.draw(shape, false)
    }

    fn normal_for_all(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.draw(shape, true)
    }
}
