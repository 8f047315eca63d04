//! Opens weights that are split into shards with an index.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::format;
use super::stored::Listing;
use super::tables::Tables;
use crate::config::parse_json;
use crate::error::{Error, Result};
use crate::file_data::FileData;
use crate::relative_path::check_relative;

/// A `*.index.json`, which maps tensors to files.
#[derive(Debug, Deserialize)]
pub struct ShardIndex {
    /// From tensor names to file names, relative to the index.
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Parses an index.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not an index, and [`Error::Format`] if it names a file outside its folder.
    pub fn parse(file: &FileData) -> Result<Self> {
        let mut index: Self = parse_json(file)?;
        for (tensor, shard) in &mut index.weight_map {
            if let Some(plain) = shard.strip_prefix("./") {
                *shard = plain.to_owned();
            }
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

    /// Opens all shards with `read`, which takes their names in the index, and finds each indexed tensor in its
    /// shard.
    pub(super) fn open(self, read: impl Fn(&str) -> Result<FileData>) -> Result<(Vec<FileData>, Tables)> {
        let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, shard) in self.weight_map {
            shards.entry(shard).or_default().push(tensor);
        }
        let (mut files, mut tables) = (Vec::new(), Tables::default());
        for (number, (shard, names)) in shards.into_iter().enumerate() {
            let data = read(&shard)?;
            let Listing { tensors, unreadable } = format::read(&data)?;
            let mut stored: BTreeMap<_, _> = tensors.into_iter().collect();
            let mut problems: BTreeMap<_, _> = unreadable.into_iter().collect();
            let mut listing = Listing::default();
            for name in names {
                if let Some(tensor) = stored.remove(&name) {
                    listing.tensors.push((name, tensor));
                } else {
                    let absent = || format!("should be in {shard} by the weight_map, but is not there");
                    let problem = problems.remove(&name).unwrap_or_else(absent);
                    listing.unreadable.push((name, problem));
                }
            }
            tables.add(number, listing);
            files.push(data);
        }
        Ok((files, tables))
    }
}
