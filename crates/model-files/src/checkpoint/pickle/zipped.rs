//! Reads the zip archives of `torch.save`: `NAME/data.pkl`, and `NAME/data/KEY` for each storage.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::machine::Machine;
use super::reader::Result;
use super::state_dict;
use crate::checkpoint::stored::Listing;
use crate::error::Error;
use crate::foreign;

pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

const PICKLE: &str = "data.pkl";

pub(super) fn read(file: &[u8]) -> Result<Listing> {
    let entries = foreign::parse("the zip archive", || Ok::<_, Error>(entries(file)))
        .map_err(|error| error.to_string())??;
    let folders = entries.keys().filter_map(|name| name.strip_suffix(PICKLE));
    let folders = folders.filter(|folder| folder.is_empty() || folder.ends_with('/'));
    // If another program added such a file in a subfolder, that is deeper.
    let folder = folders
        .min_by_key(|folder| (folder.len(), *folder))
        .ok_or_else(|| format!("expected an archive that torch.save wrote, found one without {PICKLE}"))?;
    if entries.contains_key(&format!("{folder}constants.pkl")) {
        return Err("expected a dictionary of tensors, found a TorchScript program".to_owned());
    }
    let entry = |name: &str| -> Result<Range<usize>> {
        match entries.get(&format!("{folder}{name}")) {
            Some(Entry::Stored(range)) => Ok(range.clone()),
            Some(Entry::Compressed) => {
                Err(format!("{name} is compressed or encrypted, where torch.save stores it as it is"))
            }
            None => Err(format!("the archive lacks {name}")),
        }
    };
    let content = |range: Range<usize>| file.get(range).unwrap_or_default();
    let big_endian = match entry("byteorder").map(content) {
        Ok(b"big") => true,
        Ok(b"little") => false,
        Ok(order) => {
            let order = String::from_utf8_lossy(order);
            return Err(format!("expected the byte order little or big, found {order:?}"));
        }
        // PyTorch before 2.1 does not say.
        Err(_) => false,
    };
    let (objects, _) = Machine::run(content(entry(PICKLE)?))?;
    state_dict::tensors(file, &objects, big_endian, |storage| entry(&format!("data/{}", storage.key)))
}

/// An entry of the archive.
enum Entry {
    /// Uncompressed bytes in the file.
    Stored(Range<usize>),
    /// Not needed here.
    Compressed,
}

/// The archive's entries, with the location of their bytes.
fn entries(file: &[u8]) -> Result<HashMap<String, Entry>> {
    let damaged = |error: zip::result::ZipError| format!("the zip archive is truncated or damaged: {error}");
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
    let mut entries = HashMap::with_capacity(archive.len());
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).map_err(damaged)?;
        let not_text = |_| String::from_utf8_lossy(entry.name_raw()).into_owned();
        let name = entry.name().map_or_else(not_text, Cow::into_owned);
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            entries.insert(name, Entry::Compressed);
            continue;
        }
        let range = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= file.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| format!("the file is truncated: entry {name} goes beyond its end"))?;
        entries.insert(name, Entry::Stored(range));
    }
    Ok(entries)
}
