//! Embeds the rest of a job, saving the vectors on the way.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use altclip_encoder::embedder::{Embedder, IMAGE_BATCH};

use super::JobObserver;
use super::row_sink::{Row, RowSink};
use crate::error::{Error, Result};
use crate::item::ItemKind;
use crate::readers::{ImageInputs, TextInputs};
use crate::vector::unit_vector;

/// Texts embedded at a time; work can be resumed at multiples of this with the same bits.
const TEXT_BATCH: usize = 1024;

/// A running job.
pub(super) struct JobRun<'a> {
    pub(super) embedder: &'a Embedder,
    pub(super) normalize: bool,
    pub(super) rows: &'a mut dyn RowSink,
    pub(super) observer: &'a mut dyn JobObserver,
}

impl JobRun<'_> {
    /// Embeds the remaining texts of `total`. Rows without a text are reported and skipped.
    pub(super) fn texts(&mut self, texts: &TextInputs, total: usize) -> Result<()> {
        let done = self.rows.done(ItemKind::Text);
        if done == total {
            return Ok(());
        }
        self.observer.progress(ItemKind::Text, done, total);
        let mut left = texts.keyed()?.skip(done);
        loop {
            let batch = left.by_ref().take(TEXT_BATCH).collect::<Result<Vec<_>>>()?;
            if batch.is_empty() {
                break;
            }
            let (mut keys, mut present) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
            for item in batch {
                match item {
                    Ok((key, text)) => {
                        keys.push(key);
                        present.push(text);
                    }
                    Err(missing) => {
                        self.observer.skipped(&missing);
                        self.rows.skip(ItemKind::Text);
                    }
                }
            }
            self.text_batch(&keys, &present)?;
            self.rows.save_if_due()?;
            self.observer.progress(ItemKind::Text, self.rows.done(ItemKind::Text), total);
            self.stop_if_asked()?;
        }
        if self.rows.done(ItemKind::Text) != total {
            return Err(changed("the texts"));
        }
        self.rows.save()
    }

    fn text_batch(&mut self, keys: &[String], texts: &[String]) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let vectors = self.embedder.embed_texts(texts)?;
        let vectors = vectors.to_vec2::<f32>().map_err(altclip_encoder::Error::from)?;
        for ((key, item), vector) in keys.iter().zip(texts).zip(vectors) {
            let vector = self.finished(vector, || format!("the text {item:?}"))?;
            self.rows.push(ItemKind::Text, Row { key, item, vector: &vector })?;
        }
        Ok(())
    }

    /// Embeds the remaining images of `total`. Unreadable ones are reported and skipped. Returns the number of
    /// transparent images without a background.
    pub(super) fn images(&mut self, images: &ImageInputs, total: usize) -> Result<usize> {
        let done = self.rows.done(ItemKind::Image);
        if done == total {
            return Ok(0);
        }
        self.observer.progress(ItemKind::Image, done, total);
        // The stream takes no errors: an error ends the list, and is returned after everything before it.
        let failure = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&failure);
        let sources = images.iter()?.skip(done).map_while(move |image| {
            image.map_err(|error| *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(error)).ok()
        });
        let mut stream = self.embedder.image_stream(sources);
        for (path, vector) in stream.by_ref() {
            match named(&path, vector) {
                Ok((name, vector)) => {
                    let vector = self.finished(vector, || name.to_owned())?;
                    let key = images.key_of(name);
                    self.rows.push(ItemKind::Image, Row { key: &key, item: name, vector: &vector })?;
                }
                Err(error) if is_of_the_image(&error) => {
                    self.observer.skipped(&error.into());
                    self.rows.skip(ItemKind::Image);
                }
                Err(source) => {
                    let item = path.display().to_string();
                    return Err(Error::Item { item, source: source.into() });
                }
            }
            let done = self.rows.done(ItemKind::Image);
            if done.is_multiple_of(IMAGE_BATCH) {
                self.rows.save_if_due()?;
                self.observer.progress(ItemKind::Image, done, total);
                self.stop_if_asked()?;
            }
        }
        self.rows.save()?;
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if self.rows.done(ItemKind::Image) != total {
            return Err(changed("the lists of images"));
        }
        Ok(stream.transparent())
    }

    fn stop_if_asked(&mut self) -> Result<()> {
        if !self.observer.should_stop() {
            return Ok(());
        }
        self.rows.save()?;
        Err(Error::Stopped { folder: self.rows.place() })
    }

    /// Converts a vector for storage.
    fn finished(&self, vector: Vec<f32>, item: impl FnOnce() -> String) -> Result<Vec<f32>> {
        let vector = if self.normalize { unit_vector(&vector) } else { vector };
        if vector.iter().all(|number| number.is_finite()) {
            return Ok(vector);
        }
        Err(Error::NotFinite { item: item() })
    }
}

fn changed(what: &str) -> Error {
    Error::Input(format!("{what} changed while they were read"))
}

/// An image's name for storage, and its vector.
fn named(
    path: &Path,
    vector: altclip_encoder::Result<Vec<f32>>,
) -> altclip_encoder::Result<(&str, Vec<f32>)> {
    let not_utf8 = || altclip_encoder::Error::format(path.display().to_string(), "its name is not in UTF-8");
    Ok((path.to_str().ok_or_else(not_utf8)?, vector?))
}

/// Whether the image is at fault, and not the model or the device.
pub(crate) fn is_of_the_image(error: &altclip_encoder::Error) -> bool {
    use altclip_encoder::Error::Files;
    use model_files::Error;
    matches!(error, Files(Error::Io { .. } | Error::Format { .. }))
}
