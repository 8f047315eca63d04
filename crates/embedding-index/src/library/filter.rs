//! Narrows searches by what is recorded about images.

use std::path::Path;

use rusqlite::types::Value;

use super::rows::below;
use crate::error::{Error, Result};

/// When an image was taken, or if it does not say, when its file was modified (UTC).
pub(super) const DATE: &str =
    "coalesce(contents.taken, strftime('%Y-%m-%d %H:%M:%S', files.modified / 1000000000, 'unixepoch'))";

/// What images must be like. By default, anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LibraryFilter {
    conditions: Vec<&'static str>,
    values: Vec<Value>,
}

impl LibraryFilter {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Images in this folder and its subfolders.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        let (first, end) = below(&folder.display().to_string());
        self.conditions.extend(["files.path >= ?", "files.path < ?"]);
        self.values.extend([first.into(), end.into()]);
        self
    }

    /// Images taken at this date or later: a year, a month, or a day, such as `2026-11`.
    ///
    /// # Errors
    /// If it is no date.
    pub fn after(self, date: &str) -> Result<Self> {
        // Texts of dates are ordered as dates are.
        Ok(self.with("date >= ?", checked(date)?.into()))
    }

    /// Images taken before this date.
    ///
    /// # Errors
    /// If it is no date.
    pub fn before(self, date: &str) -> Result<Self> {
        Ok(self.with("date < ?", checked(date)?.into()))
    }

    /// Images of at least this width, in pixels.
    #[must_use]
    pub fn min_width(self, pixels: u32) -> Self {
        self.with("contents.width >= ?", i64::from(pixels).into())
    }

    /// Images of at least this height, in pixels.
    #[must_use]
    pub fn min_height(self, pixels: u32) -> Self {
        self.with("contents.height >= ?", i64::from(pixels).into())
    }

    /// Images of at most this width, in pixels.
    #[must_use]
    pub fn max_width(self, pixels: u32) -> Self {
        self.with("contents.width <= ?", i64::from(pixels).into())
    }

    /// Images of at most this height, in pixels.
    #[must_use]
    pub fn max_height(self, pixels: u32) -> Self {
        self.with("contents.height <= ?", i64::from(pixels).into())
    }

    fn with(mut self, condition: &'static str, value: Value) -> Self {
        self.conditions.push(condition);
        self.values.push(value);
        self
    }

    /// The condition of a query, and its values.
    pub(super) fn sql(&self) -> (String, &[Value]) {
        let conditions: String = self
            .conditions
            .iter()
            .map(|condition| format!(" AND {}", condition.replace("date", DATE)))
            .collect();
        (conditions, &self.values)
    }
}

fn checked(date: &str) -> Result<String> {
    let parts: Vec<&str> = date.split('-').collect();
    let number = |part: usize, digits: usize| {
        let text = parts.get(part)?;
        let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u32>().ok())?
    };
    let is_within = |part: usize, most: u32| {
        parts.len() <= part || number(part, 2).is_some_and(|number| (1..=most).contains(&number))
    };
    if parts.len() > 3 || number(0, 4).is_none() || !is_within(1, 12) || !is_within(2, 31) {
        return Err(Error::Input(format!(
            "expected a date such as 2026, 2026-11 or 2026-11-30, found {date:?}"
        )));
    }
    Ok(date.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_checked() {
        for good in ["2026", "2026-11", "2026-11-30", "0001"] {
            assert!(LibraryFilter::default().after(good).is_ok(), "{good}");
        }
        for bad in ["", "26", "2026-13", "2026-1", "2026-11-32", "2026-11-30-1", "2026/11/30", "+202", "今天"]
        {
            let refused = LibraryFilter::default().before(bad);
            assert!(refused.is_err(), "{bad}");
        }
    }
}
