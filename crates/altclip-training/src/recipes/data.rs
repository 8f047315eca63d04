//! Reads the data of a run, and reports what was left out.

use crate::error::{Error, Result};
use crate::run::Observer;
use altclip_encoder::images::{self, Background};
use embedding_index::readers::{ImagePairs, Skipped};
use std::path::Path;

/// Reads images and captions for a run that needs both.
pub(super) fn read_pairs(data: &Path, image: Option<&str>, captions: &[String]) -> Result<ImagePairs> {
    if captions.is_empty() {
        return Err(Error::Setting("captions: expected at least one column, found none".to_owned()));
    }
    Ok(ImagePairs::read(data, image, captions)?)
}

/// Reports the number of transparent images without a background, unless that was asked for.
pub(super) fn report_transparent(
    observer: &mut dyn Observer,
    stage: &str,
    count: usize,
    asked: Option<Background>,
) {
    if count > 0 && asked.is_none() {
        let line = format!("{}; background = \"white\" composites them", images::transparency_note(count));
        observer.note(stage, &line);
    }
}

/// Reports what was left out of the data.
pub(super) fn report_skipped(observer: &mut dyn Observer, stage: &str, skipped: &Skipped) {
    if skipped.count > 0 {
        observer.note(stage, &skipped.to_string());
    }
}
