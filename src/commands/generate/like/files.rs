//! Finds the files that an image was drawn with, at their recorded paths or beside the image.

use std::path::{Component, Path, PathBuf};

use altdiffusion_pipeline::image_metadata::ParameterFields;
use anyhow::{Result, bail};

use super::found::ImageOptions;
use crate::commands::generate::adapters::short_hash;
use crate::recorded::{digest, recorded_name};
use crate::standard_input;

/// Endings of weight files, which no hub repository has.
const WEIGHTS: [&str; 7] = ["safetensors", "gguf", "ckpt", "pt", "pth", "bin", "json"];

impl ImageOptions<'_> {
    /// Finds the file in a field, if there is one, with its hash. Only called for files that are used.
    pub(super) fn file(
        &mut self,
        fields: &mut ParameterFields,
        field: &str,
        option: &str,
    ) -> Result<Option<PathBuf>> {
        let (name, hash) = (fields.take(field), fields.take(&format!("{field} hash")));
        let Some(name) = name.filter(|_| self.is_wanted(option) && !self.options.has(option)) else {
            return Ok(None);
        };
        let candidates = self.places(&name);
        let is_same = |path: &&PathBuf| hash.is_none() || digest(path).ok() == hash;
        if let Some(same) = candidates.iter().find(is_same) {
            return Ok(Some(same.clone()));
        }
        let Some(other) = candidates.into_iter().next() else { bail!(self.missing(option, &name)) };
        self.warn_changed(option, &other);
        Ok(Some(other))
    }

    /// Finds an adapter: a file with a short hash, a directory, or a repository.
    pub(super) fn named(
        &mut self,
        fields: &mut ParameterFields,
        name: &str,
        option: &str,
    ) -> Result<Option<PathBuf>> {
        let hash = fields.take("Hash");
        if !self.is_wanted(option) || self.options.has(option) {
            return Ok(None);
        }
        let candidates = self.places(name);
        let is_same = |path: &&PathBuf| hash.is_none() || short_hash(path).ok() == hash;
        if let Some(same) = candidates.iter().find(is_same) {
            return Ok(Some(same.clone()));
        }
        match candidates.into_iter().next() {
            Some(other) => {
                self.warn_changed(option, &other);
                Ok(Some(other))
            }
            None => self.source(option, name).map(Some),
        }
    }

    /// Finds a file, a directory, or a hub repository.
    pub(super) fn source(&self, option: &str, name: &str) -> Result<PathBuf> {
        if !self.is_wanted(option) || self.options.has(option) {
            return Ok(PathBuf::from(name));
        }
        if let Some(path) = self.places(name).into_iter().next() {
            return Ok(path);
        }
        let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let is_weights = ending.is_some_and(|ending| WEIGHTS.contains(&&*ending));
        let is_repository = name.contains('/') && !Path::new(name).is_absolute() && !name.contains("..");
        if is_repository && (!is_weights || name.matches('/').count() > 1) {
            return Ok(PathBuf::from(name));
        }
        bail!(self.missing(option, name))
    }

    /// Where something of this name may be: at its recorded path, or beside the image. Untrusted records lead nowhere
    /// else.
    pub(super) fn places(&self, name: &str) -> Vec<PathBuf> {
        let beside = self.path.parent().unwrap_or(Path::new(""));
        let is_below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        // An image that came from standard input is no longer there.
        if standard_input::is_named_by(Path::new(name)) {
            return Vec::new();
        }
        let alone = recorded_name(Path::new(Path::new(name).file_name().unwrap_or_default()));
        let names = [Some(name.to_owned()).filter(|_| is_below), Some(alone)];
        let mut places = Vec::new();
        for name in names.into_iter().flatten().filter(|name| !name.is_empty()) {
            places
                .extend([PathBuf::from(&name), beside.join(&name)].into_iter().filter(|path| path.exists()));
        }
        places
    }

    fn missing(&self, option: &str, name: &str) -> String {
        let leave_out = match self.options.like {
            Some(_) => format!(", or leave it out with --leave-out {option}"),
            None => String::new(),
        };
        format!(
            "{}: drawn with --{option} {name}, which is neither here nor beside it; say where it is with --{option}{leave_out}",
            self.source
        )
    }

    fn warn_changed(&mut self, option: &str, found: &Path) {
        self.changed.push(format!(
            "{}: --{option} {} is not the file that it was drawn with, so that another image comes out",
            self.source,
            found.display()
        ));
    }
}
