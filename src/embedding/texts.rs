//! The texts to be embedded.

use anyhow::{Result, ensure};

use super::list::{Items, List};

/// Texts from the command line, and those of a list after them.
pub struct Texts {
    pub arguments: Vec<String>,
    pub list: Option<List>,
}

impl Texts {
    /// The texts in turn.
    ///
    /// # Errors
    /// If the list cannot be read, or is empty.
    pub fn iter(&self) -> Result<Items<String>> {
        let arguments = self.arguments.clone().into_iter().map(anyhow::Ok);
        let Some(list) = &self.list else { return Ok(Box::new(arguments)) };
        let mut strings = list.strings()?.peekable();
        ensure!(strings.peek().is_some(), "{}: expected at least one text, found none", list.name());
        Ok(Box::new(arguments.chain(strings)))
    }
}
