//! Writes vectors and items as safetensors, the format of an index.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::{StoredRows, WriteResult};
use crate::item::IndexInfo;

/// The metadata key of an [`IndexInfo`], as JSON, also in Parquet. A single key, because metadata are unordered.
pub(crate) const INFO_KEY: &str = "altdiffusion_embed";
/// The tensors for the vectors and items of texts.
pub(crate) const TEXTS: [&str; 2] = ["text_embeds", "texts"];
/// The tensors for the vectors and items of images.
pub(crate) const IMAGES: [&str; 2] = ["image_embeds", "images"];

pub(super) fn write(
    path: &Path,
    width: usize,
    texts: StoredRows<'_>,
    images: StoredRows<'_>,
    info: &IndexInfo,
) -> WriteResult {
    let files = [
        (TEXTS[0], Dtype::F32, texts.vectors, vec![texts.rows, width]),
        (IMAGES[0], Dtype::F32, images.vectors, vec![images.rows, width]),
        (TEXTS[1], Dtype::U8, texts.items, Vec::new()),
        (IMAGES[1], Dtype::U8, images.items, Vec::new()),
    ];
    let mut offset = 0;
    let mut tensors = Vec::new();
    for (name, dtype, file, mut shape) in files.clone() {
        let length = usize::try_from(fs::metadata(file)?.len())?;
        if shape.is_empty() {
            shape.push(length);
        }
        let end = offset + length;
        tensors.push((name.to_owned(), TensorInfo { dtype, shape, data_offsets: (offset, end) }));
        offset = end;
    }
    let metadata = HashMap::from([(INFO_KEY.to_owned(), serde_json::to_string(info)?)]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(metadata), tensors)?)?;
    // The header is padded with spaces, so that numbers are aligned when the file is mapped.
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');

    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, _, data, _) in files {
        io::copy(&mut File::open(data)?, &mut file)?;
    }
    Ok(file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?)
}
