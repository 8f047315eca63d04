//! One column of a Parquet file: strings, or pictures as the data sets of the Hugging Face hub hold them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use altclip_encoder::embedder::PictureFile;
use anyhow::{Context, Result, bail};
use parquet::data_type::ByteArray;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};

use super::list::Items;

/// The part of a picture's group that holds its file.
const BYTES: &str = "bytes";
/// The part of a picture's group that says what it is called.
const PATH: &str = "path";

/// The strings of a column.
///
/// # Errors
/// If this is no Parquet file, or has no such column.
pub fn strings(file: File, column: &str) -> Result<Items<String>> {
    fields(file, column, Ok, |_, field| string(field))
}

/// The pictures of a column: each is a path, or the bytes of a file, or a group of `bytes` and `path`, of which one may be
/// null.
///
/// # Errors
/// If this is no Parquet file, or has no such column.
pub fn pictures(file: File, column: &str) -> Result<Items<PictureFile>> {
    fields(file, column, Ok, picture)
}

/// What each of the [`pictures`] is called: its path, or else the number of its row. Of groups the bytes are not read.
///
/// # Errors
/// As for the pictures.
pub fn picture_names(file: File, column: &str) -> Result<Items<PathBuf>> {
    fields(file, column, path_alone, |row, field| match field {
        Field::Group(group) => Ok(group_path(&group).unwrap_or_else(|| row_name(row))),
        other => Ok(match picture(row, other)? {
            PictureFile::Path(name) | PictureFile::Bytes { name, .. } => name,
        }),
    })
}

/// What `read` makes of every field of a column with the number of its row, which counts from 1. Of the file no more is
/// read than the type that `choose` makes of the column's.
fn fields<T: 'static>(
    file: File,
    column: &str,
    choose: impl FnOnce(TypePtr) -> Result<TypePtr>,
    read: impl Fn(usize, Field) -> Result<T> + Send + 'static,
) -> Result<Items<T>> {
    let reader = SerializedFileReader::new(file)?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = schema.get_fields();
    let Some(field) = columns.iter().find(|field| field.name() == column) else {
        bail!("{}", no_column(column, columns.iter().map(|field| field.name())));
    };
    let chosen = vec![choose(field.clone())?];
    let projection = Type::group_type_builder(schema.name()).with_fields(chosen).build()?;
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection))?;
    let column = column.to_owned();
    Ok(Box::new(rows.enumerate().map(move |(index, row)| {
        let number = index + 1;
        let field = row.map_err(anyhow::Error::from).map(|row| row.into_columns().into_iter().next());
        let field = field.map(|field| field.map_or(Field::Null, |(_, field)| field));
        let item = field.and_then(|field| read(number, field).with_context(|| format!("column {column:?}")));
        item.with_context(|| row_name(number).display().to_string())
    })))
}

/// A group's part with the path, if it has one; other types as they are.
fn path_alone(field: TypePtr) -> Result<TypePtr> {
    let Type::GroupType { basic_info, fields } = field.as_ref() else { return Ok(field) };
    let Some(path) = fields.iter().find(|part| part.name() == PATH) else { return Ok(field) };
    let group = Type::group_type_builder(basic_info.name()).with_repetition(basic_info.repetition());
    Ok(Arc::new(group.with_fields(vec![path.clone()]).build()?))
}

fn string(field: Field) -> Result<String> {
    match field {
        Field::Str(string) => Ok(string),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(string) => Ok(string.to_owned()),
            Err(_) => bail!("expected text in UTF-8, found other bytes"),
        },
        other => bail!("expected a string, found {}", kind(&other)),
    }
}

fn picture(row: usize, field: Field) -> Result<PictureFile> {
    match field {
        Field::Str(path) => Ok(PictureFile::Path(path.into())),
        // Old writers do not mark their strings as such.
        Field::Bytes(bytes) if !is_picture(&bytes) && bytes.as_utf8().is_ok() => {
            Ok(PictureFile::Path(string(Field::Bytes(bytes))?.into()))
        }
        Field::Bytes(bytes) => Ok(PictureFile::Bytes { name: row_name(row), bytes: bytes.data().to_vec() }),
        Field::Group(group) => {
            let path = group_path(&group);
            let bytes = group.into_columns().into_iter().find_map(|(name, field)| match field {
                Field::Bytes(bytes) if name == BYTES => Some(bytes.data().to_vec()),
                _ => None,
            });
            Ok(match (bytes, path) {
                (None, Some(path)) => PictureFile::Path(path),
                (None, None) => no_picture(row),
                (Some(bytes), path) => {
                    PictureFile::Bytes { name: path.unwrap_or_else(|| row_name(row)), bytes }
                }
            })
        }
        Field::Null => Ok(no_picture(row)),
        other => bail!("expected a path or a picture, found {}", kind(&other)),
    }
}

/// Whether the bytes begin as a picture's file.
fn is_picture(bytes: &ByteArray) -> bool {
    image::guess_format(bytes.data()).is_ok()
}

fn group_path(group: &Row) -> Option<PathBuf> {
    group.get_column_iter().find_map(|(name, field)| match field {
        Field::Str(path) if name == PATH => Some(PathBuf::from(path)),
        _ => None,
    })
}

/// A file without contents: like any other that cannot be read it is left out and counted.
fn no_picture(row: usize) -> PictureFile {
    PictureFile::Bytes { name: row_name(row), bytes: Vec::new() }
}

fn row_name(row: usize) -> PathBuf {
    PathBuf::from(format!("row {row}"))
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

/// What is wrong when there is no such column.
pub fn no_column<'a>(column: &str, columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<_> = columns.map(|name| format!("{name:?}")).collect();
    match columns.as_slice() {
        [] => format!("no column {column:?}, nor any other"),
        columns => format!("no column {column:?}, there are {}", columns.join(", ")),
    }
}
