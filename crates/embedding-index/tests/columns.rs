//! Reads columns of tables found in practice: damaged Parquet files, nested columns, and texts from any editor.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use embedding_index::readers::parquet_column::{images, strings};
use embedding_index::readers::{ImagePairs, TextTable};
use flate2::Compression;
use flate2::write::GzEncoder;
use test_support::TestResult;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The strings of a column, or the first error.
fn column(path: &Path, column: &str) -> TestResult<Result<Vec<String>, String>> {
    let file = File::open(path)?;
    Ok(strings(file, column).and_then(Iterator::collect).map_err(|error| error.to_string()))
}

/// Each of these makes the parquet crate panic in another place.
#[test]
fn the_panic_of_the_parquet_reader_is_the_error_of_its_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let whole = fs::read(data("small.parquet"))?;
    let mut files = vec![data("bit_util.parquet")];
    for (at, byte) in [(9, 0), (58, 117), (126, 117)] {
        let mut damaged = whole.clone();
        damaged[at] = byte;
        let path = folder.path().join(format!("{at}.parquet"));
        fs::write(&path, damaged)?;
        files.push(path);
    }
    for path in files {
        let error = column(&path, "text")?.err().ok_or("no error")?;
        assert!(error.contains("damaged: it cannot be decoded"), "{}: {error}", path.display());
        let error = TextTable::read(&path, &["text"]).err().ok_or("no error")?.to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        let items = images(File::open(&path)?, "text").into_iter().flatten();
        // It ends, instead of yielding errors forever.
        assert!(items.take(1000).count() < 1000);
    }
    assert_eq!(column(&data("small.parquet"), "text")?, Ok(vec!["a cat".into(), "dog".into()]));
    Ok(())
}

/// Any byte may be changed.
#[test]
fn damaged_parquet_files_do_not_panic() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.parquet");
    let whole = fs::read(data("small.parquet"))?;
    for at in 0..whole.len() {
        for byte in [0, 0x75, 0xFF] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            fs::write(&path, damaged)?;
            let _ = column(&path, "text")?;
        }
    }
    Ok(())
}

#[test]
fn columns_of_parquet_are_paths_into_what_is_nested() -> TestResult {
    let read = |name: &str| column(&data("nested.parquet"), name);
    assert_eq!(read("text")?.map(|texts| texts[1].clone()), Ok("一只猫".into()));
    assert_eq!(read("meta.title")?.map(|texts| (texts.len(), texts[11].clone())), Ok((12, "m11".into())));
    assert_eq!(read("captions.1")?.map(|texts| texts[0].clone()), Ok("d".into()));
    assert_eq!(read("meta.tags.0")?.map(|texts| texts[3].clone()), Ok("x".into()));
    for (name, problem) in [
        ("captions", "expected a string, found a list; NAME.0 is its first item"),
        ("captions.2", "expected a string, found null"),
        ("captions.first", "expected a place in a list, found \"first\""),
        ("meta", "expected a string, found a group"),
        ("meta.x", "in column \"meta\": no column \"x\", there are \"title\", \"tags\""),
        ("text.x", "a string has no part \"x\""),
        ("x.y", "no column \"x.y\", there are \"text\", \"meta\", \"captions\""),
    ] {
        let error = read(name)?.err().ok_or("no error")?;
        assert!(error.ends_with(problem), "{name}: {error}");
    }
    let table = TextTable::read(&data("nested.parquet"), &["meta.title", "captions.0"])?;
    assert_eq!(table.rows[2], ["m2", "c"]);
    Ok(())
}

/// The same table in every form that editors and programs write.
#[test]
fn tables_are_read_whatever_wrote_them() -> TestResult {
    let folder = tempfile::tempdir()?;
    let rows = vec![vec!["a cat".to_owned(), "一只猫".to_owned()], vec!["a dog".into(), "一只狗".into()]];
    let json = [
        r#"{"en": "a cat", "zh": {"short": "一只猫"}, "score": NaN}"#,
        r#"{"en": "lost", "en": "a dog", "zh": {"short": "一只狗"}, "half": "\ud83d", "score": -Infinity}"#,
    ];
    let csv = ["en,zh.short", "a cat,一只猫", "a dog,一只狗"];
    let gzip = |text: &str| -> TestResult<Vec<u8>> {
        let mut file = GzEncoder::new(Vec::new(), Compression::fast());
        file.write_all(text.as_bytes())?;
        Ok(file.finish()?)
    };
    for end in ["\n", "\r\n", "\r", "\n\n"] {
        for mark in ["", "\u{feff}"] {
            for (name, lines) in [("a.jsonl", &json[..]), ("a.csv", &csv[..])] {
                for last in ["", end] {
                    let text = format!("{mark}{}{last}", lines.join(end));
                    let forms = [
                        (name.to_owned(), text.clone().into_bytes()),
                        (format!("{name}.gz"), gzip(&text)?),
                        (format!("{name}.zst"), zstd::encode_all(text.as_bytes(), 1)?),
                        // Compressed, without the ending.
                        (name.to_owned(), gzip(&text)?),
                    ];
                    for (name, bytes) in forms {
                        let path = folder.path().join(&name);
                        fs::write(&path, bytes)?;
                        let table = TextTable::read(&path, &["en", "zh.short"])?;
                        assert_eq!((&table.rows, table.skipped.count), (&rows, 0), "{name} {end:?} {mark:?}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_text_is_named() -> TestResult {
    let folder = tempfile::tempdir()?;
    let read = |name: &str, bytes: &[u8]| -> TestResult<String> {
        let path = folder.path().join(name);
        fs::write(&path, bytes)?;
        Ok(match TextTable::read(&path, &["en"]) {
            Ok(table) => table.skipped.to_string(),
            Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
        })
    };
    let utf16: Vec<u8> = "\u{feff}{\"en\": \"a\"}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for name in ["a.jsonl", "a.csv"] {
        let found = read(name, &utf16)?;
        assert_eq!(found, format!("{name}: expected text in UTF-8, found UTF-16; save it as UTF-8"));
    }
    let found = read("b.jsonl", b"{\"en\": \"a\"}\n{\"en\": \"\xc3(\"}\n{\"en\": [\"a\", \"b\"]}\n")?;
    assert_eq!(
        found,
        "skipped 2: line 2: expected text in UTF-8, found the byte 0xc3; line 3: `en`: expected a string, found a \
         list; en.0 is its first item"
    );
    Ok(())
}

/// Training once lost the first row, and evaluation rejected the file.
#[test]
fn a_byte_order_mark_belongs_to_no_row() -> TestResult {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text);
    fs::create_dir(folder.path().join("images"))?;
    for number in 0..4 {
        fs::write(folder.path().join(format!("images/{number}.png")), "")?;
    }
    let lines =
        (0..4).map(|i| format!("{{\"file_name\": \"images/{i}.png\", \"text\": \"caption {i} 猫\"}}\n"));
    write("metadata.jsonl", format!("\u{feff}{}", lines.collect::<String>()))?;
    let pairs = ImagePairs::read(folder.path(), None, &["text".to_owned()])?;
    assert_eq!(
        (pairs.captions.len(), pairs.captions[0][0].as_str(), pairs.skipped.count),
        (4, "caption 0 猫", 0)
    );
    Ok(())
}
