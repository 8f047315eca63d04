//! Writes vectors and items as Parquet, a row per item.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::safetensors::INFO_KEY;
use super::{StoredRows, WriteResult};
use crate::item::IndexInfo;

/// Rows per row group, and in memory at a time.
const ROW_GROUP: usize = 4096;

const SCHEMA: &str = "message embeddings {
    optional binary text (UTF8);
    optional binary image (UTF8);
    required group embedding (LIST) { repeated group list { required float element; } }
}";

/// The metadata by which readers on Arrow know that all vectors have the same size, which Parquet cannot say.
const ARROW_KEY: &str = "ARROW:schema";
/// Its message for these columns, from `scripts/golden/arrow_schema.py`, and where the vectors' size is in it.
const ARROW_SCHEMA: &[u8] = include_bytes!("arrow_schema.bin");
const ARROW_SIZE: Range<usize> = 120..124;

/// The rows of a kind that are left to write.
pub(super) struct Rows {
    is_text: bool,
    left: usize,
    items: Lines<BufReader<File>>,
    vectors: BufReader<File>,
}

impl Rows {
    /// All texts, then all images.
    pub(super) fn open(texts: StoredRows<'_>, images: StoredRows<'_>) -> WriteResult<[Self; 2]> {
        let open = |rows: StoredRows<'_>, is_text| -> WriteResult<Self> {
            let items = BufReader::new(File::open(rows.items)?).lines();
            Ok(Self { is_text, left: rows.rows, items, vectors: BufReader::new(File::open(rows.vectors)?) })
        };
        Ok([open(texts, true)?, open(images, false)?])
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Passes over the next rows.
    pub(super) fn skip(&mut self, count: usize, width: usize) -> WriteResult {
        for line in self.items.by_ref().take(count) {
            line?;
        }
        self.vectors.seek_relative(i64::try_from(count * width * size_of::<f32>())?)?;
        self.left -= count;
        Ok(())
    }

    /// The items and numbers of the next rows.
    fn read(&mut self, count: usize, width: usize) -> WriteResult<(Vec<ByteArray>, Vec<f32>)> {
        let items = self.items.by_ref().take(count).map(item).collect::<WriteResult<_>>()?;
        let numbers = read_numbers(&mut self.vectors, count * width)?;
        self.left -= count;
        Ok((items, numbers))
    }
}

pub(super) fn write(
    path: &Path,
    width: usize,
    texts: StoredRows<'_>,
    images: StoredRows<'_>,
    info: &IndexInfo,
) -> WriteResult {
    write_rows(path, width, &mut Rows::open(texts, images)?, usize::MAX, info)
}

/// Writes a file with the next rows of the kinds, at most `most`.
pub(super) fn write_rows(
    path: &Path,
    width: usize,
    kinds: &mut [Rows],
    most: usize,
    info: &IndexInfo,
) -> WriteResult {
    let elements = ColumnPath::new(["embedding", "list", "element"].map(str::to_owned).to_vec());
    // Dictionaries and statistics are useless for such numbers.
    let properties = WriterProperties::builder()
        .set_column_dictionary_enabled(elements.clone(), false)
        .set_column_statistics_enabled(elements, EnabledStatistics::None)
        .set_key_value_metadata(Some(vec![
            KeyValue::new(ARROW_KEY.to_owned(), arrow_schema(width)?),
            KeyValue::new(INFO_KEY.to_owned(), serde_json::to_string(info)?),
        ]))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let mut left = most;
    for rows in kinds {
        while rows.left.min(left) > 0 {
            let count = rows.left.min(left).min(ROW_GROUP);
            let (items, numbers) = rows.read(count, width)?;
            let mut group = writer.next_row_group()?;
            for is_this in [rows.is_text, !rows.is_text] {
                let (items, level) = if is_this { (items.as_slice(), 1) } else { (&[][..], 0) };
                write_column::<ByteArrayType>(&mut group, |column| {
                    column.write_batch(items, Some(&vec![level; count]), None)
                })?;
            }
            // A row's first number starts a list, and the others continue it.
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

/// The schema for vectors of this size, in base64.
fn arrow_schema(width: usize) -> WriteResult<String> {
    let mut message = ARROW_SCHEMA.to_vec();
    let size = message.get_mut(ARROW_SIZE).ok_or("a size in the schema")?;
    size.copy_from_slice(&i32::try_from(width)?.to_le_bytes());
    Ok(STANDARD.encode(message))
}

fn write_column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    write: impl FnOnce(&mut ColumnWriterImpl<'_, T>) -> parquet::errors::Result<usize>,
) -> WriteResult {
    let mut column = group.next_column()?.ok_or("a column less than in the schema")?;
    write(column.typed::<T>())?;
    Ok(column.close()?)
}

fn item(line: io::Result<String>) -> WriteResult<ByteArray> {
    let item: String = serde_json::from_str(&line?)?;
    Ok(ByteArray::from(item.into_bytes()))
}

fn read_numbers(reader: &mut impl Read, count: usize) -> WriteResult<Vec<f32>> {
    let mut bytes = vec![0; count * size_of::<f32>()];
    reader.read_exact(&mut bytes)?;
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
