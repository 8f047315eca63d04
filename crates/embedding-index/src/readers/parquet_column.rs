//! Reads a column of a Parquet file: strings, or images as in data sets of the Hugging Face hub.
//!
//! A column is given by its name, or by a path into nested values: names in groups and indices in lists, separated by
//! dots, such as `image.bytes` or `captions.0`. Rows after an error may be misaligned.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use altclip_encoder::embedder::ImageSource;
use altclip_encoder::images;
use model_files::foreign;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};

use super::Items;
pub use crate::error::ColumnError;

/// The part of an image's group with the bytes of its file.
const BYTES: &str = "bytes";
/// The part of an image's group with its name.
const PATH: &str = "path";
/// The name of an image without one is this and its row.
pub(super) const ROW: &str = "row ";

/// Reads a column of strings.
///
/// # Errors
/// If it is not a Parquet file, or has no such column.
pub fn strings(file: File, column: &str) -> Result<Items<String, ColumnError>, ColumnError> {
    fields(file, column, Ok, |_, field| string(field)?.ok_or_else(|| expected("a string", &Field::Null)))
}

/// Reads a column of keys: strings, whole numbers or nulls.
///
/// # Errors
/// Like [`strings`].
pub(super) fn keys(file: File, column: &str) -> Result<Items<Option<String>, ColumnError>, ColumnError> {
    fields(file, column, Ok, |_, field| match field {
        Field::Byte(number) => Ok(Some(number.to_string())),
        Field::Short(number) => Ok(Some(number.to_string())),
        Field::Int(number) => Ok(Some(number.to_string())),
        Field::Long(number) => Ok(Some(number.to_string())),
        Field::UByte(number) => Ok(Some(number.to_string())),
        Field::UShort(number) => Ok(Some(number.to_string())),
        Field::UInt(number) => Ok(Some(number.to_string())),
        Field::ULong(number) => Ok(Some(number.to_string())),
        field => string(field),
    })
}

/// Reads a column of strings and nulls.
///
/// # Errors
/// Like [`strings`].
pub(super) fn optional_strings(
    file: File,
    column: &str,
) -> Result<Items<Option<String>, ColumnError>, ColumnError> {
    fields(file, column, Ok, |_, field| string(field))
}

/// Whether a column has strings only: images in it are paths.
///
/// # Errors
/// Like [`strings`].
pub(super) fn is_of_strings(file: File, column: &str) -> Result<bool, ColumnError> {
    guarded(|| {
        let reader = SerializedFileReader::new(file)?;
        let (mut field, path) = column_of(&reader, column)?;
        for name in path {
            field = match field.as_ref() {
                Type::GroupType { fields, .. } => match part_of(fields, &name) {
                    Some(part) => part,
                    None => return Ok(false),
                },
                Type::PrimitiveType { .. } => return Ok(false),
            };
        }
        let info = field.get_basic_info();
        Ok(info.converted_type() == ConvertedType::UTF8
            || info.logical_type_ref() == Some(&LogicalType::String))
    })
}

/// Reads a column of images: each is a path, the bytes of a file, or a group of `bytes` and `path`, one of which may
/// be null.
///
/// # Errors
/// If it is not a Parquet file, or has no such column.
pub fn images(file: File, column: &str) -> Result<Items<ImageSource, ColumnError>, ColumnError> {
    fields(file, column, Ok, image)
}

/// Reads the names of [`images`](fn@images): their paths, or else row numbers. The bytes in groups are not read.
///
/// # Errors
/// Like [`images`](fn@images).
pub fn image_names(file: File, column: &str) -> Result<Items<PathBuf, ColumnError>, ColumnError> {
    fields(file, column, path_alone, |row, field| match field {
        Field::Group(group) => Ok(group_path(&group).unwrap_or_else(|| row_name(row))),
        other => Ok(image(row, other)?.name().to_owned()),
    })
}

/// Maps every field of a column with `read`, which gets the row number, counted from 1, and returns what is wrong on
/// failure. Only the type that `choose` selects is read from the file.
fn fields<T: 'static>(
    file: File,
    column: &str,
    choose: impl FnOnce(TypePtr) -> Result<TypePtr, ParquetError>,
    read: impl Fn(usize, Field) -> Result<T, String> + Send + 'static,
) -> Result<Items<T, ColumnError>, ColumnError> {
    let (mut rows, path) = guarded(|| {
        let reader = SerializedFileReader::new(file)?;
        let (field, path) = column_of(&reader, column)?;
        let chosen = if path.is_empty() { choose(field)? } else { along(&field, &path)? };
        let name = reader.metadata().file_metadata().schema().name();
        let projection = Type::group_type_builder(name).with_fields(vec![chosen]).build()?;
        Ok((RowIter::from_file_into(Box::new(reader)).project(Some(projection))?, path))
    })?;
    let column = column.to_owned();
    let mut is_over = false;
    Ok(Box::new((1..).map_while(move |number| {
        if is_over {
            return None;
        }
        // After a panic the reader is in an undefined state.
        let row = guarded(|| Ok(rows.next())).inspect_err(|_| is_over = true).transpose()?;
        let field = row.and_then(|row| {
            let row = row?;
            Ok(row.into_columns().into_iter().next().map_or(Field::Null, |(_, field)| field))
        });
        let item = field.map_err(|error| error.to_string()).and_then(|field| {
            let value = within(field, &path)?;
            read(number, value)
        });
        let at = |problem: String| ColumnError::Row {
            row: number,
            problem: format!("column {column:?}: {problem}"),
        };
        Some(item.map_err(at))
    })))
}

/// Runs part of the Parquet reader, which panics on some damaged files.
fn guarded<T>(read: impl FnOnce() -> Result<T, ColumnError>) -> Result<T, ColumnError> {
    foreign::parse("a Parquet file", read)
}

/// The outermost type of a column, and the path within it.
fn column_of(
    reader: &SerializedFileReader<File>,
    column: &str,
) -> Result<(TypePtr, Vec<String>), ColumnError> {
    let columns = reader.metadata().file_metadata().schema().get_fields();
    // A name with dots takes precedence over a path.
    let dots = column.match_indices('.').map(|(dot, _)| dot);
    let ends = std::iter::once(column.len()).chain(dots);
    let found = ends.into_iter().find_map(|end| {
        let field = part_of(columns, column.get(..end)?)?;
        let rest = column.get(end + 1..).unwrap_or_default();
        Some((field, rest.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    });
    found.ok_or_else(|| ColumnError::NoColumn(no_column(column, columns.iter().map(|field| field.name()))))
}

fn part_of(parts: &[TypePtr], name: &str) -> Option<TypePtr> {
    parts.iter().find(|part| part.name() == name).cloned()
}

/// A group reduced to what a path leads to. Lists and maps stay whole.
fn along(field: &TypePtr, path: &[String]) -> Result<TypePtr, ColumnError> {
    let (Type::GroupType { basic_info, fields }, Some((name, rest))) = (field.as_ref(), path.split_first())
    else {
        return Ok(field.clone());
    };
    if basic_info.converted_type() != ConvertedType::NONE || basic_info.logical_type_ref().is_some() {
        return Ok(field.clone());
    }
    let Some(part) = part_of(fields, name) else {
        let problem = no_column(name, fields.iter().map(|part| part.name()));
        return Err(ColumnError::NoColumn(format!("in column {:?}: {problem}", basic_info.name())));
    };
    let group = Type::group_type_builder(basic_info.name()).with_repetition(basic_info.repetition());
    Ok(Arc::new(group.with_fields(vec![along(&part, rest)?]).build()?))
}

/// The value at a path; null if a part of it is null or a list is too short.
fn within(field: Field, path: &[String]) -> Result<Field, String> {
    let Some((name, rest)) = path.split_first() else { return Ok(field) };
    match field {
        Field::Null => Ok(Field::Null),
        Field::Group(group) => {
            let part = group.into_columns().into_iter().find(|(part, _)| part == name);
            part.map_or_else(|| Err(format!("no part {name:?}")), |(_, field)| within(field, rest))
        }
        Field::ListInternal(list) => {
            let place: usize =
                name.parse().map_err(|_| format!("expected a place in a list, found {name:?}"))?;
            list.elements().get(place).map_or(Ok(Field::Null), |item| within(item.clone(), rest))
        }
        other => Err(format!("{} has no part {name:?}", kind(&other))),
    }
}

/// A group's `path`, if it has one; other types unchanged.
fn path_alone(field: TypePtr) -> Result<TypePtr, ParquetError> {
    let Type::GroupType { basic_info, fields } = field.as_ref() else { return Ok(field) };
    let Some(path) = fields.iter().find(|part| part.name() == PATH) else { return Ok(field) };
    let group = Type::group_type_builder(basic_info.name()).with_repetition(basic_info.repetition());
    Ok(Arc::new(group.with_fields(vec![path.clone()]).build()?))
}

fn string(field: Field) -> Result<Option<String>, String> {
    match field {
        Field::Null => Ok(None),
        Field::Str(string) => Ok(Some(string)),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(string) => Ok(Some(string.to_owned())),
            Err(_) => Err("expected text in UTF-8, found other bytes".to_owned()),
        },
        Field::ListInternal(_) => Err("expected a string, found a list; NAME.0 is its first item".to_owned()),
        other => Err(expected("a string", &other)),
    }
}

fn image(row: usize, field: Field) -> Result<ImageSource, String> {
    match field {
        Field::Str(path) => Ok(ImageSource::Path(path.into())),
        Field::Bytes(bytes) => Ok(match bytes.as_utf8() {
            // Old writers do not mark their strings.
            Ok(path) if !is_image(&bytes) => ImageSource::Path(path.into()),
            _ => ImageSource::Bytes { name: row_name(row), bytes: bytes.data().to_vec() },
        }),
        Field::Group(group) => {
            let path = group_path(&group);
            let bytes = group.into_columns().into_iter().find_map(|(name, field)| match field {
                Field::Bytes(bytes) if name == BYTES => Some(bytes.data().to_vec()),
                _ => None,
            });
            Ok(match (bytes, path) {
                (None, Some(path)) => ImageSource::Path(path),
                (None, None) => no_image(row),
                (Some(bytes), path) => {
                    ImageSource::Bytes { name: path.unwrap_or_else(|| row_name(row)), bytes }
                }
            })
        }
        Field::Null => Ok(no_image(row)),
        other => Err(expected("a path or an image", &other)),
    }
}

fn expected(what: &str, found: &Field) -> String {
    format!("expected {what}, found {}", kind(found))
}

/// Whether bytes start like an image file.
fn is_image(bytes: &ByteArray) -> bool {
    images::is_image(bytes.data())
}

fn group_path(group: &Row) -> Option<PathBuf> {
    group.get_column_iter().find_map(|(name, field)| match field {
        Field::Str(path) if name == PATH => Some(PathBuf::from(path)),
        _ => None,
    })
}

/// A file without content: unreadable, so it is skipped and counted.
fn no_image(row: usize) -> ImageSource {
    ImageSource::Bytes { name: row_name(row), bytes: Vec::new() }
}

fn row_name(row: usize) -> PathBuf {
    PathBuf::from(format!("{ROW}{row}"))
}

fn kind(field: &Field) -> &'static str {
    match field {
        Field::Null => "null",
        Field::Bool(_) => "true or false",
        Field::Str(_) => "a string",
        Field::Bytes(_) => "bytes",
        Field::Group(_) => "a group",
        Field::ListInternal(_) => "a list",
        Field::MapInternal(_) => "a map",
        _ => "a number or a date",
    }
}

/// The error for a missing column.
pub fn no_column<'a>(column: &str, columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<_> = columns.map(|name| format!("{name:?}")).collect();
    match columns.as_slice() {
        [] => format!("no column {column:?}, nor any other"),
        columns => format!("no column {column:?}, there are {}", columns.join(", ")),
    }
}
