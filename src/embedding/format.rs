//! The files that vectors end up in. None is ever in memory as a whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use altclip_encoder::images::Background;
use anyhow::{Context, Result, bail};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::partial::Rows;

/// Rows that are in memory at a time while a Parquet file is written, and that are together in it.
const ROW_GROUP: usize = 4096;

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Safetensors,
    Npy,
    Parquet,
}

/// What a safetensors file tells about its vectors, under [`ABOUT`] in its metadata.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub model: String,
    pub normalized: bool,
    /// What transparent images were laid on. Files of earlier releases do not tell.
    #[serde(default)]
    pub background: Option<Background>,
}

/// The key of [`About`], as JSON. One key alone, for the metadata have no order.
pub const ABOUT: &str = "altdiffusion_embed";

impl Format {
    /// The format that the ending of a file's name stands for.
    ///
    /// # Errors
    /// When it stands for none of these.
    pub fn of(option: &str, path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match ending.as_str() {
            "safetensors" => Ok(Self::Safetensors),
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            _ => bail!(
                "{option} {}: expected a name that ends in .safetensors, .npy or .parquet",
                path.display()
            ),
        }
    }

    /// Writes the vectors of texts and images, of `width` numbers each.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn write(self, path: &Path, width: usize, texts: &Rows, images: &Rows, about: &About) -> Result<()> {
        match self {
            Self::Safetensors => write_safetensors(path, width, texts, images, about),
            Self::Npy => write_npy(path, width, [texts, images]),
            Self::Parquet => write_parquet(path, width, texts, images),
        }
    }
}

fn write_safetensors(path: &Path, width: usize, texts: &Rows, images: &Rows, about: &About) -> Result<()> {
    let files = [
        ("text_embeds", Dtype::F32, &texts.vectors_path, vec![texts.counts().rows, width]),
        ("image_embeds", Dtype::F32, &images.vectors_path, vec![images.counts().rows, width]),
        ("texts", Dtype::U8, &texts.items_path, Vec::new()),
        ("images", Dtype::U8, &images.items_path, Vec::new()),
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
    let metadata = HashMap::from([(ABOUT.to_owned(), serde_json::to_string(about)?)]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(metadata), tensors)?)?;
    // Spaces fill the header up, so that the numbers are aligned where the file is mapped into memory.
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');

    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, _, data, _) in files {
        io::copy(&mut File::open(data)?, &mut file)?;
    }
    Ok(file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?)
}

/// The format of `numpy.save`, version 1.0, of whichever of the two has rows.
fn write_npy(path: &Path, width: usize, kinds: [&Rows; 2]) -> Result<()> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    const ALIGNMENT: usize = 64;
    let rows: usize = kinds.iter().map(|kind| kind.counts().rows).sum();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // Spaces and the end of the line fill the header up.
    let before = MAGIC.len() + size_of::<u16>();
    let filled = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before;
    header.extend(std::iter::repeat_n(' ', filled - 1 - header.len()));
    header.push('\n');

    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(MAGIC)?;
    file.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for kind in kinds {
        io::copy(&mut File::open(&kind.vectors_path)?, &mut file)?;
    }
    Ok(file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?)
}

const SCHEMA: &str = "message embeddings {
    optional binary text (UTF8);
    optional binary image (UTF8);
    required group embedding (LIST) { repeated group list { required float element; } }
}";

fn write_parquet(path: &Path, width: usize, texts: &Rows, images: &Rows) -> Result<()> {
    let elements = ColumnPath::new(["embedding", "list", "element"].map(str::to_owned).to_vec());
    // Neither are there few different numbers, nor does anyone look for the rows between two of them.
    let properties = WriterProperties::builder()
        .set_column_dictionary_enabled(elements.clone(), false)
        .set_column_statistics_enabled(elements, EnabledStatistics::None)
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    for (rows, is_text) in [(texts, true), (images, false)] {
        let mut vectors = BufReader::new(File::open(&rows.vectors_path)?);
        let mut items = BufReader::new(File::open(&rows.items_path)?).lines();
        let mut left = rows.counts().rows;
        while left > 0 {
            let count = left.min(ROW_GROUP);
            let items: Vec<ByteArray> = items.by_ref().take(count).map(item).collect::<Result<_>>()?;
            let numbers = read_numbers(&mut vectors, count * width)?;
            let mut group = writer.next_row_group()?;
            for is_this in [is_text, !is_text] {
                let (items, level) = if is_this { (items.as_slice(), 1) } else { (&[][..], 0) };
                write_column::<ByteArrayType>(&mut group, |column| {
                    column.write_batch(items, Some(&vec![level; count]), None)
                })?;
            }
            // A row's first number begins a list, and the others go on with it.
            let repetitions: Vec<i16> = (0..numbers.len()).map(|i| i16::from(i % width != 0)).collect();
            write_column::<FloatType>(&mut group, |column| {
                column.write_batch(&numbers, Some(&vec![1; numbers.len()]), Some(&repetitions))
            })?;
            group.close()?;
            left -= count;
        }
    }
    writer.finish()?;
    Ok(writer.inner().sync_all()?)
}

fn write_column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    write: impl FnOnce(&mut ColumnWriterImpl<'_, T>) -> parquet::errors::Result<usize>,
) -> Result<()> {
    let mut column = group.next_column()?.context("a column less than in the schema")?;
    write(column.typed::<T>())?;
    Ok(column.close()?)
}

fn item(line: io::Result<String>) -> Result<ByteArray> {
    let item: String = serde_json::from_str(&line?)?;
    Ok(ByteArray::from(item.into_bytes()))
}

fn read_numbers(reader: &mut impl Read, count: usize) -> Result<Vec<f32>> {
    let mut bytes = vec![0; count * size_of::<f32>()];
    reader.read_exact(&mut bytes)?;
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_the_ending() {
        let format = |path: &str| Format::of("--output", Path::new(path)).ok();
        assert_eq!(format("a.safetensors"), Some(Format::Safetensors));
        assert_eq!(format("a.b.NPY"), Some(Format::Npy));
        assert_eq!(format("a.parquet"), Some(Format::Parquet));
        for path in ["a", ".npy", "a.npz"] {
            assert_eq!(format(path), None, "{path}");
        }
    }
}
