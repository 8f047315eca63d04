//! Weights split over several files, with an index of which tensor is where.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Checkpoint, Located, file};
use crate::config::parse_json;
use crate::error::{Error, Result};
use crate::source::{FileData, check_relative};

/// A `*.index.json`: which file holds which tensor.
#[derive(Debug, Deserialize)]
pub struct ShardIndex {
    /// From tensor name to file name, relative to the index.
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Parses an index.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no index, and [`Error::Format`] when a file in it lies outside the index's folder.
    pub fn parse(file: &FileData) -> Result<Self> {
        let index: Self = parse_json(file)?;
        for (tensor, shard) in &index.weight_map {
            check_relative(shard).map_err(|error| {
                Error::format(file.name(), format!("weight_map: tensor {tensor}: {error}"))
            })?;
        }
        Ok(index)
    }

    /// The name of each tensor's file, relative to the index.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.weight_map.values().map(String::as_str)
    }

    /// Opens all shards, which `read` gets by their names in the index, and finds each tensor of the index in its shard.
    pub(super) fn open(self, index: &str, read: impl Fn(&str) -> Result<FileData>) -> Result<Checkpoint> {
        let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, shard) in self.weight_map {
            shards.entry(shard).or_default().push(tensor);
        }
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for (number, (shard, names)) in shards.into_iter().enumerate() {
            let data = read(&shard)?;
            let mut stored: BTreeMap<_, _> = file::read(&data)?.into_iter().collect();
            for name in names {
                let tensor = stored.remove(&name).ok_or_else(|| {
                    Error::format(
                        index,
                        format!("weight_map: tensor {name} should be in {shard}, but is not there"),
                    )
                })?;
                tensors.insert(name, Located { file: number, tensor });
            }
            files.push(data);
        }
        Ok(Checkpoint::of(index.to_owned(), files, tensors))
    }
}
