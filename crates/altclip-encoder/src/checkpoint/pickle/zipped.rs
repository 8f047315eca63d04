//! The zip archive that `torch.save` writes: `NAME/data.pkl`, and `NAME/data/KEY` for each storage.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::machine::Machine;
use super::{LONGEST_PICKLE, Result, StoredTensor, state_dict};

pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

const PICKLE: &str = "data.pkl";

pub(super) fn read(file: &[u8]) -> Result<Vec<(String, StoredTensor)>> {
    let entries = entries(file)?;
    let mut pickles = entries.keys().filter_map(|name| name.strip_suffix(PICKLE));
    let folder = match (pickles.next(), pickles.next()) {
        (Some(folder), None) if folder.is_empty() || folder.ends_with('/') => folder.to_owned(),
        (None, _) => {
            return Err(format!("expected an archive that torch.save wrote, found one without {PICKLE}"));
        }
        _ => {
            return Err(format!(
                "expected an archive that torch.save wrote, found one with several {PICKLE}"
            ));
        }
    };
    if entries.contains_key(&format!("{folder}constants.pkl")) {
        return Err("expected a dictionary of tensors, found a TorchScript program".to_owned());
    }
    let entry = |name: &str| entries.get(&format!("{folder}{name}")).cloned();
    let content = |range: Range<usize>| file.get(range).unwrap_or_default();
    if let Some(order) = entry("byteorder").map(content).filter(|order| *order != b"little") {
        return Err(format!(
            "expected little-endian numbers, found byte order {:?}",
            String::from_utf8_lossy(order)
        ));
    }

    let pickle = entry(PICKLE).map(content).unwrap_or_default();
    if pickle.len() > LONGEST_PICKLE {
        return Err(format!("{PICKLE} has {} bytes, where at most {LONGEST_PICKLE} are read", pickle.len()));
    }
    let (objects, _) = Machine::run(pickle)?;
    state_dict::tensors(&objects, |storage| {
        entry(&format!("data/{}", storage.key))
            .ok_or_else(|| format!("the archive lacks storage data/{}", storage.key))
    })
}

/// The archive's entries: where the bytes of each lie in the file.
fn entries(file: &[u8]) -> Result<HashMap<String, Range<usize>>> {
    let damaged = |error: zip::result::ZipError| format!("the zip archive is truncated or damaged: {error}");
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
    let mut entries = HashMap::with_capacity(archive.len());
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).map_err(damaged)?;
        let name = entry.name().to_owned();
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(format!(
                "entry {name} is compressed or encrypted, where torch.save stores it as it is"
            ));
        }
        let range = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= file.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| format!("the file is truncated: entry {name} goes beyond its end"))?;
        entries.insert(name, range);
    }
    Ok(entries)
}
