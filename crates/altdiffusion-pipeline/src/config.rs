//! Checks what the configurations of the UNet and the VAE have in common.

use model_files::config::{FieldTable, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The limit for channels, layers and heads, so that arithmetic on them cannot overflow.
pub(crate) const LARGEST_SIZE: usize = 1 << 20;

/// The limit for layers of one kind per level, so that lists of them stay short.
const MOST_LAYERS: usize = 1 << 8;

/// A setting that a configuration gives once for all blocks or as a list with one value per block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock<T> {
    /// The same for every block.
    Same(T),
    /// One value per block, highest resolution first.
    Each(Vec<T>),
}

impl<T: Copy + std::fmt::Debug> PerBlock<T> {
    /// One value for each of `blocks` blocks.
    pub(crate) fn expand(&self, check: &ConfigCheck, field: &'static str, blocks: usize) -> Result<Vec<T>> {
        match self {
            Self::Same(value) => Ok(vec![*value; blocks]),
            Self::Each(values) if values.len() == blocks => Ok(values.clone()),
            Self::Each(values) => {
                let expected = format!("one value, or one for each of the {blocks} blocks");
                Err(check.error(field, expected, format!("{values:?}")))
            }
        }
    }
}

/// Checks the fields of a class's configuration, and words the errors.
pub(crate) struct ConfigCheck {
    /// The class that the configuration describes.
    pub model: &'static str,
}

impl ConfigCheck {
    pub(crate) fn error(
        &self,
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Config { model: self.model, field, expected: expected.into(), found: found.into() }
    }

    /// Checks that `value` is between 1 and a limit that no model comes near.
    pub(crate) fn size(&self, field: &'static str, value: usize) -> Result<()> {
        if (1..=LARGEST_SIZE).contains(&value) {
            Ok(())
        } else {
            Err(self.error(field, format!("a number from 1 to {LARGEST_SIZE}"), value.to_string()))
        }
    }

    /// Checks that `value` is a reasonable number of layers.
    pub(crate) fn layers(&self, field: &'static str, value: usize) -> Result<()> {
        if (1..=MOST_LAYERS).contains(&value) {
            Ok(())
        } else {
            Err(self.error(field, format!("a number from 1 to {MOST_LAYERS}"), value.to_string()))
        }
    }

    /// Checks that there is at least one level, that `groups` divides every level's channels, and that an image can
    /// be halved that many times.
    pub(crate) fn levels(&self, field: &'static str, channels: &[usize], groups: usize) -> Result<()> {
        if channels.is_empty() || channels.len() > usize::BITS as usize / 2 {
            return Err(self.error(
                field,
                "one number per level, highest resolution first",
                format!("{channels:?}"),
            ));
        }
        for &level in channels {
            self.size(field, level)?;
            if !level.is_multiple_of(groups) {
                let expected = format!("multiples of `norm_num_groups` = {groups}");
                return Err(self.error(field, expected, format!("{channels:?}")));
            }
        }
        Ok(())
    }

    /// Checks a list with one block type per level, each one of `supported`.
    pub(crate) fn block_types(
        &self,
        field: &'static str,
        types: &[String],
        levels: usize,
        supported: &[&str],
    ) -> Result<()> {
        if types.len() != levels || types.iter().any(|kind| !supported.contains(&kind.as_str())) {
            let expected =
                format!("{levels} values (one per `block_out_channels`) out of {}", supported.join(", "));
            return Err(self.error(field, expected, format!("{types:?}")));
        }
        Ok(())
    }

    /// Checks the reference's fields of which only some values are supported, if the configuration has them.
    pub(crate) fn fixed(&self, given: &Map<String, Value>, table: &FieldTable) -> Result<()> {
        match table.refused(given) {
            Some(Refusal { field, expected, found }) => Err(self.error(field, expected, found)),
            None => Ok(()),
        }
    }
}
