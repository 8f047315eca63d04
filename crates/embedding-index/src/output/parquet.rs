//! Writes vectors and items as Parquet, a row per item.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::{StoredRows, WriteResult};

/// Rows per row group, and in memory at a time.
const ROW_GROUP: usize = 4096;

const SCHEMA: &str = "message embeddings {
    optional binary text (UTF8);
    optional binary image (UTF8);
    required group embedding (LIST) { repeated group list { required float element; } }
}";

pub(super) fn write(path: &Path, width: usize, texts: StoredRows<'_>, images: StoredRows<'_>) -> WriteResult {
    let elements = ColumnPath::new(["embedding", "list", "element"].map(str::to_owned).to_vec());
    // Dictionaries and statistics are useless for such numbers.
    let properties = WriterProperties::builder()
        .set_column_dictionary_enabled(elements.clone(), false)
        .set_column_statistics_enabled(elements, EnabledStatistics::None)
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    for (rows, is_text) in [(texts, true), (images, false)] {
        let mut vectors = BufReader::new(File::open(rows.vectors)?);
        let mut items = BufReader::new(File::open(rows.items)?).lines();
        let mut left = rows.rows;
        while left > 0 {
            let count = left.min(ROW_GROUP);
            let items: Vec<ByteArray> = items.by_ref().take(count).map(item).collect::<WriteResult<_>>()?;
            let numbers = read_numbers(&mut vectors, count * width)?;
            let mut group = writer.next_row_group()?;
            for is_this in [is_text, !is_text] {
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
