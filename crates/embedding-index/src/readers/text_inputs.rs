//! Lists the texts that a job embeds.

use super::{Items, ListFile};
use crate::error::{Error, Result};

/// Texts in memory, followed by those of a list. They are iterated more than once, in the same order.
#[derive(Debug, Default)]
pub struct TextInputs {
    texts: Vec<String>,
    list: Option<ListFile>,
}

impl TextInputs {
    /// These texts, followed by those of the list.
    pub fn new(texts: Vec<String>, list: Option<ListFile>) -> Self {
        Self { texts, list }
    }

    /// Iterates the texts.
    ///
    /// # Errors
    /// If the list cannot be read, or is empty.
    pub fn iter(&self) -> Result<Items<String>> {
        let texts = self.texts.clone().into_iter().map(Ok);
        let Some(list) = &self.list else { return Ok(Box::new(texts)) };
        let mut strings = list.strings()?.peekable();
        if strings.peek().is_none() {
            return Err(Error::format(list.name(), "expected at least one text, found none"));
        }
        Ok(Box::new(texts.chain(strings)))
    }
}

impl<S: Into<String>> FromIterator<S> for TextInputs {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        Self::new(texts.into_iter().map(Into::into).collect(), None)
    }
}
