//! Writes vectors as a `numpy.save` array, version 1.0.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{StoredRows, WriteResult};

/// Writes one array with all rows.
pub(super) fn write(path: &Path, width: usize, kinds: [StoredRows<'_>; 2]) -> WriteResult {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    const ALIGNMENT: usize = 64;
    let rows: usize = kinds.iter().map(|kind| kind.rows).sum();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // The header is padded with spaces and a newline.
    let before = MAGIC.len() + size_of::<u16>();
    let filled = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before;
    header.extend(std::iter::repeat_n(' ', filled - 1 - header.len()));
    header.push('\n');

    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(MAGIC)?;
    file.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for kind in kinds {
        io::copy(&mut File::open(kind.vectors)?, &mut file)?;
    }
    Ok(file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?)
}
