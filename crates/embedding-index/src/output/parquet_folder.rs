//! Writes vectors and items as a folder of Parquet files, which other programs read as one table.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::parquet::{Rows, write_rows};
use super::{StoredRows, WriteResult};
use crate::error::{Error, Result};
use crate::item::IndexInfo;

/// Rows per file.
pub(super) const FILE_ROWS: usize = 1 << 16;

/// The names of the files are between these.
const PREFIX: &str = "part-";
const SUFFIX: &str = ".parquet";

/// Writes the folder. Each file gets its name when it is complete, so that those of a killed run are kept.
pub(super) fn write(
    folder: &Path,
    width: usize,
    texts: StoredRows<'_>,
    images: StoredRows<'_>,
    file_rows: usize,
    info: &IndexInfo,
) -> WriteResult {
    if !folder.is_dir() {
        fs::create_dir(folder)?;
    }
    let unfinished = folder.with_extension("part");
    let mut kinds = Rows::open(texts, images)?;
    for number in 0_usize.. {
        if kinds.iter().all(|rows| rows.left() == 0) {
            break;
        }
        let path = folder.join(format!("{PREFIX}{number:05}{SUFFIX}"));
        if path.exists() {
            skip(&mut kinds, width, file_rows)?;
        } else {
            write_rows(&unfinished, width, &mut kinds, file_rows, info)?;
            fs::rename(&unfinished, path)?;
        }
    }
    Ok(())
}

/// Passes over the rows of a file.
fn skip(kinds: &mut [Rows], width: usize, file_rows: usize) -> WriteResult {
    let mut left = file_rows;
    for rows in kinds {
        let count = rows.left().min(left);
        rows.skip(count, width)?;
        left -= count;
    }
    Ok(())
}

/// Checks that a folder is new, or has nothing but files of an earlier one in it, so that it can be replaced.
///
/// # Errors
/// If there is anything else in it, it is no folder, or it cannot be read.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        let name = entry.map_err(Error::io(folder))?.file_name();
        if !name.to_str().is_some_and(is_of_folder) {
            let expected =
                "expected a new directory, or one with nothing but part-00000.parquet and so on in it";
            return Err(Error::format(folder, format!("{expected}, found {}", name.display())));
        }
    }
    Ok(())
}

fn is_of_folder(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
    number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{ListAccessor, RowAccessor};

    use super::*;
    use test_support::TestResult;

    const WIDTH: usize = 2;

    fn info() -> IndexInfo {
        let revision = Some("0123".to_owned());
        IndexInfo { model: "org/name".to_owned(), revision, normalized: true, background: None }
    }

    /// The files of a kind, with `count` rows.
    fn store(folder: &Path, kind: &str, count: usize) -> TestResult<[PathBuf; 2]> {
        let paths = [folder.join(format!("{kind}.f32")), folder.join(format!("{kind}.jsonl"))];
        let numbers = (0..count * WIDTH).flat_map(|number| (number as f32).to_le_bytes());
        fs::write(&paths[0], numbers.collect::<Vec<u8>>())?;
        fs::write(&paths[1], (0..count).map(|row| format!("\"{kind} {row}\"\n")).collect::<String>())?;
        Ok(paths)
    }

    /// The item and the vector of each row of a file.
    fn read(path: &Path) -> TestResult<Vec<(String, Vec<f32>)>> {
        let reader = SerializedFileReader::new(fs::File::open(path)?)?;
        let rows = reader.get_row_iter(None)?.map(|row| {
            let row = row?;
            let item = row.get_string(0).or_else(|_| row.get_string(1))?.clone();
            let list = row.get_list(2)?;
            let numbers = (0..list.len()).map(|place| list.get_float(place)).collect::<Result<_, _>>()?;
            Ok((item, numbers))
        });
        rows.collect()
    }

    fn names(folder: &Path) -> TestResult<Vec<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().display().to_string()));
        let mut names = names.collect::<TestResult<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    #[test]
    fn files_share_the_rows_and_complete_ones_are_kept() -> TestResult {
        let directory = tempfile::tempdir()?;
        let ([texts, text_items], [images, image_items]) =
            (store(directory.path(), "text", 5)?, store(directory.path(), "image", 2)?);
        let texts = StoredRows { rows: 5, vectors: &texts, items: &text_items };
        let images = StoredRows { rows: 2, vectors: &images, items: &image_items };
        let folder = directory.path().join("assembled");
        let write = || write(&folder, WIDTH, texts, images, 3, &info());
        write().map_err(|error| error.to_string())?;
        let expected = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"];
        assert_eq!(names(&folder)?, expected);
        let second = read(&folder.join(expected[1]))?;
        let items: Vec<&str> = second.iter().map(|(item, _)| item.as_str()).collect();
        assert_eq!(items, ["text 3", "text 4", "image 0"]);
        assert_eq!([second[0].1.as_slice(), second[2].1.as_slice()], [[6., 7.], [0., 1.]]);

        // As if it had been killed during the last file.
        let last = fs::read(folder.join(expected[2]))?;
        fs::remove_file(folder.join(expected[2]))?;
        fs::write(folder.with_extension("part"), "cut")?;
        fs::write(folder.join(expected[0]), "complete")?;
        write().map_err(|error| error.to_string())?;
        assert_eq!(fs::read(folder.join(expected[0]))?, b"complete");
        assert_eq!(fs::read(folder.join(expected[2]))?, last);
        assert_eq!(names(&folder)?, expected);
        Ok(())
    }

    /// Parquet has only lists of any size; Arrow's schema beside it says which.
    #[test]
    fn arrow_knows_the_size_of_vectors() -> TestResult {
        let directory = tempfile::tempdir()?;
        let [vectors, items] = store(directory.path(), "text", 1)?;
        let (some, none) = (
            StoredRows { rows: 1, vectors: &vectors, items: &items },
            StoredRows { rows: 0, vectors: &vectors, items: &items },
        );
        let folder = directory.path().join("folder");
        write(&folder, WIDTH, some, none, 1, &info()).map_err(|error| error.to_string())?;
        let reader = SerializedFileReader::new(fs::File::open(folder.join("part-00000.parquet"))?)?;
        let metadata = reader.metadata().file_metadata().key_value_metadata().ok_or("metadata")?;
        let schema = metadata.iter().find(|entry| entry.key == "ARROW:schema").ok_or("a schema")?;
        // What pyarrow 26 writes for `fixed_size_list<element: float not null>[2] not null`.
        let expected = include_str!("../../tests/data/arrow_schema_2.txt").trim();
        assert_eq!(schema.value.as_deref(), Some(expected));
        let made = metadata.iter().find(|entry| entry.key == "altdiffusion_embed").ok_or("no model")?;
        let made: IndexInfo = serde_json::from_str(made.value.as_deref().unwrap_or_default())?;
        assert_eq!(made, info());
        Ok(())
    }

    #[test]
    fn folders_with_anything_else_are_not_replaced() -> TestResult {
        let directory = tempfile::tempdir()?;
        let folder = directory.path().join("vectors");
        assert!(check(&folder).is_ok());
        fs::create_dir(&folder)?;
        fs::write(folder.join("part-00000.parquet"), "")?;
        fs::write(folder.join("part-123456.parquet"), "")?;
        assert!(check(&folder).is_ok());
        for name in ["notes.txt", "part-1.parquet", "part-0000x.parquet", ".part-00000.parquet"] {
            fs::write(folder.join(name), "")?;
            let error = check(&folder).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.ends_with(&format!("in it, found {name}")), "{error}");
            fs::remove_file(folder.join(name))?;
        }
        assert!(check(&folder.join("part-00000.parquet")).is_err());
        Ok(())
    }
}
