//! Streams vectors out at one side while Python puts texts and images in at the other.

use std::path::PathBuf;
use std::sync::mpsc::{IntoIter, Sender, channel};
use std::sync::{Mutex, PoisonError};

use altclip_encoder as encoder;
use altclip_encoder::RowOutcome;
use altclip_encoder::embedder::{ImageSource, ImageStream as Images, RowStream};
use altdiffusion_pipeline::Cancellation;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};

use crate::arrays::Numbers;
use crate::errors::Failure;
use crate::work::interruptible;

/// Rows per call of the model, after which a stream can be stopped.
const WINDOW: usize = 2048;

/// What a stream gives: vectors, (rows, dim), and the places of those that failed, which are zero, with the exceptions.
type Taken<'py> = (Bound<'py, PyAny>, Vec<(usize, Bound<'py, PyAny>)>);

/// An image: its name, and the contents of its file unless that is the name.
type Image = (PathBuf, Option<PyBackedBytes>);

/// Vectors of some rows, and what failed.
struct Rows {
    values: Vec<f32>,
    failed: Vec<(usize, Failure)>,
}

/// Both ends of a stream.
struct Ends<I, S> {
    /// `None` after the last item.
    entry: Mutex<Option<Sender<I>>>,
    /// `None` while it is at work, and after that was interrupted.
    exit: Mutex<Option<S>>,
    dim: usize,
}

impl<I: Send, S: Send + 'static> Ends<I, S> {
    fn new(embedder: &encoder::Embedder, stream: impl FnOnce(IntoIter<I>) -> S) -> Self {
        let (sender, receiver) = channel();
        Self {
            entry: Mutex::new(Some(sender)),
            exit: Mutex::new(Some(stream(receiver.into_iter()))),
            dim: embedder.projection_dim(),
        }
    }

    fn push(&self, items: Vec<I>) {
        if let Some(entry) = &*locked(&self.entry) {
            // The other end may have been interrupted, which `take` reports.
            items.into_iter().try_for_each(|item| entry.send(item)).ok();
        }
    }

    fn finish(&self) {
        locked(&self.entry).take();
    }

    /// Takes rows with `read`, without holding up Python.
    fn take<'py>(
        &self,
        py: Python<'py>,
        read: impl FnOnce(&mut S, &Cancellation) -> Rows + Send + 'static,
    ) -> PyResult<Taken<'py>> {
        let Some(mut stream) = locked(&self.exit).take() else {
            return Err(Failure::input("this stream was interrupted, expected a new one").exception(py));
        };
        let (rows, stream) = interruptible(py, move |cancellation| {
            let rows = read(&mut stream, cancellation);
            Ok((rows, stream))
        })?;
        *locked(&self.exit) = Some(stream);
        let shape = vec![rows.values.len() / self.dim, self.dim];
        let failed = rows.failed.into_iter();
        let failed = failed
            .map(|(row, failure)| (row, failure.exception(py).into_value(py).into_bound(py).into_any()));
        Ok((Numbers { values: rows.values, shape }.array(py)?, failed.collect()))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Texts in, vectors out. `take` waits for whole windows of 2048 texts, so that many more than are taken must have been
/// pushed, unless the stream is finished.
#[pyclass(frozen)]
pub(crate) struct TextStream(Ends<Option<PyBackedStr>, RowStream<()>>);

impl TextStream {
    pub(crate) fn new(embedder: &encoder::Embedder) -> Self {
        Self(Ends::new(embedder, |texts| embedder.row_stream(texts.map(|text| ((), text)))))
    }
}

#[pymethods]
impl TextStream {
    /// Adds texts; None is a text that is missing.
    fn push(&self, texts: Vec<Option<PyBackedStr>>) {
        self.0.push(texts);
    }

    /// Says that there are no more.
    fn finish(&self) {
        self.0.finish();
    }

    /// The vectors of the next texts, at most `rows`; fewer at the end.
    fn take<'py>(&self, py: Python<'py>, rows: usize) -> PyResult<Taken<'py>> {
        let dim = self.0.dim;
        self.0.take(py, move |stream, cancellation| {
            let (mut values, mut failed) = (vec![0.; rows * dim], Vec::new());
            let mut done = 0;
            for out in values.chunks_mut(WINDOW * dim) {
                if cancellation.is_cancelled() {
                    break;
                }
                for ((), outcome) in stream.embed_into(out) {
                    match outcome {
                        RowOutcome::Embedded => {}
                        RowOutcome::Null => {
                            failed.push((done, Failure::input("expected a text, found None")))
                        }
                        RowOutcome::Failed(error) => failed.push((done, error.into())),
                    }
                    done += 1;
                }
            }
            values.truncate(done * dim);
            Rows { values, failed }
        })
    }
}

/// Images in, vectors out. The model takes 16 at a time, and as many are prepared ahead of it.
#[pyclass(frozen)]
pub(crate) struct ImageStream(Ends<Image, Images>);

impl ImageStream {
    pub(crate) fn new(embedder: &encoder::Embedder) -> Self {
        Self(Ends::new(embedder, |images| embedder.image_stream(images.map(source))))
    }
}

#[pymethods]
impl ImageStream {
    /// Adds images.
    fn push(&self, images: Vec<Image>) {
        self.0.push(images);
    }

    /// Says that there are no more.
    fn finish(&self) {
        self.0.finish();
    }

    /// The vectors of the next images, at most `rows`; fewer at the end.
    fn take<'py>(&self, py: Python<'py>, rows: usize) -> PyResult<Taken<'py>> {
        let dim = self.0.dim;
        self.0.take(py, move |stream, cancellation| {
            let mut taken = Rows { values: Vec::with_capacity(rows * dim), failed: Vec::new() };
            for (row, (_, vector)) in
                stream.take(rows).take_while(|_| !cancellation.is_cancelled()).enumerate()
            {
                match vector {
                    Ok(vector) => taken.values.extend(vector),
                    Err(error) => {
                        taken.values.extend(std::iter::repeat_n(0., dim));
                        taken.failed.push((row, error.into()));
                    }
                }
            }
            taken
        })
    }
}

fn source((name, contents): Image) -> ImageSource {
    match contents {
        Some(contents) => ImageSource::Bytes { name, bytes: contents.to_vec() },
        None => ImageSource::Path(name),
    }
}
