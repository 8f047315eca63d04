//! Collects the options in an image's record, and what cannot be used.

use std::ffi::OsString;
use std::path::Path;

use crate::commands::generate::options::{Generate, matches};
use crate::standard_streams::printable;

/// What was found in an image.
pub(super) struct ImageOptions<'a> {
    /// The record's name in messages.
    pub source: &'a str,
    /// The image.
    pub path: &'a Path,
    /// The options of the command line.
    pub options: &'a Generate,
    /// The image's options, as command-line arguments.
    pub arguments: Vec<OsString>,
    /// Fields that are not used.
    pub unused: Vec<String>,
    /// Warnings about files that have changed.
    pub changed: Vec<String>,
}

impl<'a> ImageOptions<'a> {
    pub(super) fn new(source: &'a str, path: &'a Path, options: &'a Generate) -> Self {
        Self { source, path, options, arguments: Vec::new(), unused: Vec::new(), changed: Vec::new() }
    }

    pub(super) fn is_wanted(&self, option: &str) -> bool {
        !self.options.leave_out.iter().any(|left_out| left_out == option)
    }

    /// Adds an option with a value, unless the option does not accept it.
    pub(super) fn value(&mut self, field: &str, option: &str, value: &str) {
        let argument = OsString::from(format!("--{option}={value}"));
        // Stands in for a prompt, which is required.
        if let Err(error) = matches(&["--like=-".into(), argument.clone()])
            && matches!(
                error.kind(),
                clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue
            )
        {
            return self.not_used(field, value);
        }
        if self.is_wanted(option) {
            self.arguments.push(argument);
        }
    }

    pub(super) fn flag(&mut self, option: &str) {
        if self.is_wanted(option) {
            self.arguments.push(format!("--{option}").into());
        }
    }

    pub(super) fn push_path(&mut self, option: &str, path: &Path) {
        if self.is_wanted(option) {
            let mut argument = OsString::from(format!("--{option}="));
            argument.push(path);
            self.arguments.push(argument);
        }
    }

    pub(super) fn not_used(&mut self, field: &str, value: &str) {
        const LONGEST: usize = 60;
        let mut value: String = value.to_owned();
        if value.chars().count() > LONGEST {
            value = value.chars().take(LONGEST).chain(['…']).collect();
        }
        self.unused.push(printable(&format!("{field}: {value}")));
    }
}
