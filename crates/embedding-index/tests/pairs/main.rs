//! Reads captioned images: every form of the same pairs gives the same result, and bad items are named and counted.

mod archives;
mod forms;
mod partly_usable;

use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use altclip_encoder::images::DecodeOptions;
use embedding_index::readers::ImagePairs;
use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use test_support::TestResult;

const CAPTIONS: [[&str; 2]; 4] =
    [["a cat", "一只猫"], ["a dog", "小狗"], ["a red apple", "红苹果"], ["the sun", "太阳"]];

fn image(number: usize) -> RgbImage {
    RgbImage::from_fn(9, 7, |x, y| Rgb([(x * 20) as u8, (y * 30) as u8, number as u8 * 60]))
}

fn png(number: usize) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image(number).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn read(root: &Path, name: &str, image: Option<&str>, captions: &[&str]) -> Result<ImagePairs, String> {
    let captions: Vec<String> = captions.iter().map(|&caption| caption.to_owned()).collect();
    let shown = format!("{}/", root.display());
    ImagePairs::read(&root.join(name), image, &captions).map_err(|e| e.to_string().replace(&shown, ""))
}

/// The problem of each unreadable image.
fn problems(root: &Path, pairs: &ImagePairs) -> Vec<String> {
    let shown = format!("{}/", root.display());
    let decoded = pairs.images().map(|image| image.decode(DecodeOptions::default()));
    decoded.filter_map(|image| Some(image.err()?.to_string().replace(&shown, ""))).collect()
}

fn skipped(root: &Path, pairs: &ImagePairs) -> String {
    pairs.skipped.to_string().replace(&format!("{}/", root.display()), "")
}

fn write_tar(path: &Path, members: &[(&str, &[u8])]) -> TestResult {
    let mut archive = tar::Builder::new(File::create(path)?);
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, *bytes)?;
    }
    Ok(archive.finish()?)
}

/// A column of optional bytes, and the definition level of those present.
type Column = (Vec<Option<Vec<u8>>>, i16);

/// Writes the columns in row groups of two, uncompressed.
fn write_parquet(path: &Path, schema: &str, columns: &[Column]) -> TestResult {
    let schema = Arc::new(parse_message_type(schema)?);
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::new(properties))?;
    let rows = columns[0].0.len();
    for first in (0..rows).step_by(2) {
        let mut group = writer.next_row_group()?;
        for (values, level) in columns {
            let values = &values[first..rows.min(first + 2)];
            let levels: Vec<i16> =
                values.iter().map(|v| if v.is_some() { *level } else { level - 1 }).collect();
            let values: Vec<ByteArray> =
                values.iter().flatten().map(|v| ByteArray::from(v.clone())).collect();
            let mut column = group.next_column()?.ok_or("a column")?;
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
            column.close()?;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

const OF_BYTES: &str =
    "message m { optional binary image; optional binary en (UTF8); optional binary zh (UTF8); }";
const OF_PATHS: &str =
    "message m { optional binary image (UTF8); optional binary en (UTF8); optional binary zh (UTF8); }";
const OF_GROUPS: &str =
    "message m { optional group image { optional binary bytes; optional binary path (UTF8); }
    optional binary en (UTF8); optional binary zh (UTF8); }";

fn column(values: impl IntoIterator<Item = impl Into<Vec<u8>>>, level: i16) -> Column {
    (values.into_iter().map(|value| Some(value.into())).collect(), level)
}
