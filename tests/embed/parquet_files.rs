//! Writes Parquet files to embed.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use test_support::TestResult;

/// Writes a column of numbers and one of strings.
pub fn write_parquet_column(path: &Path, column: &str, strings: &[&str]) -> TestResult {
    let schema =
        parse_message_type(&format!("message m {{ required int32 id; required binary {column} (UTF8); }}"))?;
    let mut writer = SerializedFileWriter::new(File::create(path)?, Arc::new(schema), Default::default())?;
    let mut group = writer.next_row_group()?;
    let ids: Vec<i32> = (0..strings.len() as i32).collect();
    let mut ids_column = group.next_column()?.ok_or("a column")?;
    ids_column.typed::<parquet::data_type::Int32Type>().write_batch(&ids, None, None)?;
    ids_column.close()?;
    let strings: Vec<ByteArray> = strings.iter().map(|string| ByteArray::from(*string)).collect();
    let mut strings_column = group.next_column()?.ok_or("a column")?;
    strings_column.typed::<ByteArrayType>().write_batch(&strings, None, None)?;
    strings_column.close()?;
    group.close()?;
    writer.close()?;
    Ok(())
}

/// Writes groups of bytes and path, as in data sets of the Hugging Face hub.
pub fn write_parquet_images(path: &Path, rows: &[(Option<&[u8]>, Option<&str>)]) -> TestResult {
    let schema = "message m { optional group image { optional binary bytes; optional binary path (UTF8); } }";
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default()));
    let schema = Arc::new(parse_message_type(schema)?);
    let mut writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::new(properties.build()))?;
    let mut group = writer.next_row_group()?;
    let columns: [Vec<Option<&[u8]>>; 2] =
        [rows.iter().map(|row| row.0).collect(), rows.iter().map(|row| row.1.map(str::as_bytes)).collect()];
    for values in columns {
        let levels: Vec<i16> = values.iter().map(|value| if value.is_some() { 2 } else { 1 }).collect();
        let values: Vec<ByteArray> =
            values.into_iter().flatten().map(|v| ByteArray::from(v.to_vec())).collect();
        let mut column = group.next_column()?.ok_or("a column")?;
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}
