//! Reads images with captions: every form of the same pairs gives the same, and what is bad in each is named and counted.

use altclip_encoder::images::{DecodeOptions, IMAGE_ENDINGS};
use embedding_index::readers::{ImagePairs, TextTable};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::error::Error;
use std::fs::{self, File};
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

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

/// What is wrong with each of the images that cannot be read.
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

/// A column of optional bytes, and the level of those that are there.
type Column = (Vec<Option<Vec<u8>>>, i16);

/// Writes the columns in groups of two rows, without compression.
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

fn caption_columns() -> [Column; 2] {
    [0, 1].map(|i| column(CAPTIONS.map(|captions| captions[i]), 1))
}

/// The pairs as files: an image, a text in English, and an object with one in Chinese.
fn members() -> Vec<(String, Vec<u8>)> {
    let of = |(i, [en, zh]): (usize, [&str; 2])| {
        let object = format!("{{\"zh\": \"{zh}\", \"width\": 9}}");
        [(format!("{i}.png"), png(i)), (format!("{i}.txt"), en.into()), (format!("{i}.json"), object.into())]
    };
    (0..).zip(CAPTIONS).flat_map(of).collect()
}

fn lines(line: impl Fn(usize, [&str; 2]) -> String) -> String {
    (0..).zip(CAPTIONS).map(|(i, captions)| line(i, captions) + "\n").collect()
}

/// A path in a folder, the setting `image`, and the columns of the captions.
type Form = (&'static str, Option<&'static str>, [&'static str; 2]);

/// Writes the pairs in every form.
fn write_forms(root: &Path) -> TestResult<Vec<Form>> {
    for folder in ["images", "jsonl", "csv", "beside", "shards", "tables"] {
        fs::create_dir(root.join(folder))?;
    }
    for i in 0..CAPTIONS.len() {
        for folder in ["images", "jsonl", "csv"] {
            fs::write(root.join(format!("{folder}/{i}.png")), png(i))?;
        }
    }
    let object = |i, [en, zh]: [&str; 2]| {
        format!(r#"{{"image": "images/{i}.png", "file_name": "{i}.png", "en": "{en}", "zh": "{zh}"}}"#)
    };
    fs::write(root.join("a.jsonl"), lines(object))?;
    fs::write(root.join("jsonl/metadata.jsonl"), lines(object))?;
    let csv = lines(|i, [en, zh]| format!("{en},images/{i}.png,{zh},{i}.png"));
    let csv = format!("en,image,zh,file_name\n{csv}");
    fs::write(root.join("a.csv"), &csv)?;
    fs::write(root.join("csv/metadata.csv"), &csv)?;
    fs::write(root.join("a.tsv"), csv.replace(',', "\t"))?;

    let captions = caption_columns();
    let paths = column((0..4).map(|i| format!("images/{i}.png")), 1);
    write_parquet(&root.join("paths.parquet"), OF_PATHS, &[&[paths], &captions[..]].concat())?;
    let bytes = column((0..4).map(png), 1);
    write_parquet(&root.join("bytes.parquet"), OF_BYTES, &[&[bytes], &captions[..]].concat())?;
    // One of them is not in the table, and one has no name.
    let mut bytes = column((0..4).map(png), 2);
    let mut paths = column((0..4).map(|i| format!("images/{i}.png")), 2);
    (bytes.0[1], paths.0[2]) = (None, None);
    write_parquet(&root.join("groups.parquet"), OF_GROUPS, &[&[bytes, paths], &captions[..]].concat())?;
    for half in 0..2 {
        let part = |(values, level): &Column| (values[2 * half..2 * half + 2].to_vec(), *level);
        let columns = [column((0..4).map(png), 1), captions[0].clone(), captions[1].clone()];
        let path = root.join(format!("tables/train-{half}.parquet"));
        write_parquet(&path, OF_BYTES, &columns.each_ref().map(part))?;
    }

    let members = members();
    for (name, bytes) in &members {
        fs::write(root.join("beside").join(name), bytes)?;
    }
    let mut members: Vec<(&str, &[u8])> =
        members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    for (shard, members) in members.chunks(6).enumerate() {
        write_tar(&root.join(format!("shards/s-{shard:02}.tar")), members)?;
    }
    // All images first, and a member that belongs to no sample.
    members.sort_by_key(|(name, _)| !name.ends_with("png"));
    members.insert(3, ("._0.png", b"of another system"));
    write_tar(&root.join("a.tar"), &members)?;

    let (table, files) = (["en", "zh"], ["txt", "zh"]);
    Ok(vec![
        ("a.jsonl", Some("image"), table),
        ("a.csv", None, table),
        ("a.tsv", None, table),
        ("jsonl", None, table),
        ("csv", Some("file_name"), table),
        ("paths.parquet", None, table),
        ("bytes.parquet", Some("image"), table),
        ("groups.parquet", None, table),
        ("tables", None, table),
        ("tables/train-{0..1}.parquet", None, table),
        ("a.tar", None, files),
        ("a.tar", Some("jpg; .PNG"), files),
        ("shards", None, files),
        ("shards/s-{00..01}.tar", Some("png"), files),
        ("beside", None, files),
    ])
}

#[test]
fn every_form_of_the_same_pairs_gives_the_same() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    for (name, setting, columns) in write_forms(root)? {
        let pairs = read(root, name, setting, &columns)?;
        assert_eq!(pairs.captions, CAPTIONS, "{name}");
        assert_eq!(pairs.skipped.count, 0, "{name}");
        let images = pairs.images().map(|image| Ok(image.decode(DecodeOptions::default())?.into_rgb8()));
        let images = images.collect::<TestResult<Vec<_>>>()?;
        assert!(images == [0, 1, 2, 3].map(image), "{name}");
        // In another order, and not at all.
        let pairs = read(root, name, setting, &[columns[1]])?;
        assert_eq!(pairs.captions, CAPTIONS.map(|captions| [captions[1]]), "{name}");
        let pairs = read(root, name, setting, &[])?;
        assert_eq!(pairs.captions, [const { Vec::<String>::new() }; 4], "{name}");
        assert!(problems(root, &pairs).is_empty(), "{name}");
    }
    let table = TextTable::read(&root.join("bytes.parquet"), &["zh", "en"])?;
    assert_eq!(table.rows, CAPTIONS.map(|[en, zh]| [zh, en]));
    Ok(())
}

#[test]
fn a_key_changes_when_the_images_do() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    let forms = write_forms(root)?;
    let changes: [(&str, &[&str]); 7] = [
        ("images/2.png", &["a.jsonl", "a.csv", "a.tsv", "paths.parquet"]),
        ("jsonl/2.png", &["jsonl"]),
        ("groups.parquet", &["groups.parquet"]),
        ("tables/train-1.parquet", &["tables", "tables/train-{0..1}.parquet"]),
        ("a.tar", &["a.tar", "a.tar"]),
        ("shards/s-01.tar", &["shards", "shards/s-{00..01}.tar"]),
        ("beside/2.png", &["beside"]),
    ];
    for (file, expected) in changes {
        let keys = || -> TestResult<Vec<u64>> {
            let key = |&(name, setting, columns): &Form| Ok(read(root, name, setting, &columns)?.key);
            forms.iter().map(key).collect()
        };
        let before = keys()?;
        assert_eq!(before, keys()?);
        let later = SystemTime::now() + Duration::from_secs(5);
        File::options().append(true).open(root.join(file))?.set_modified(later)?;
        let after = keys()?;
        let changed = forms.iter().enumerate().filter(|(i, _)| before[*i] != after[*i]);
        let changed: Vec<&str> = changed.map(|(_, form)| form.0).collect();
        assert_eq!(changed, expected, "{file}");
    }
    // Which rows are taken is a part of it.
    let mut captions = caption_columns();
    captions[0].0[3] = None;
    let bytes = column((0..4).map(png), 1);
    write_parquet(&root.join("bytes.parquet"), OF_BYTES, &[&[bytes], &captions[..]].concat())?;
    let key = |column: &str| read(root, "bytes.parquet", None, &[column]).map(|pairs| pairs.key);
    assert_ne!(key("en")?, key("zh")?);
    Ok(())
}

#[test]
fn of_an_archive_what_is_bad_is_skipped_and_named() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    let (zero, one) = (png(0), png(1));
    let members: &[(&str, &[u8])] = &[
        ("good.png", &zero),
        ("good.jpg", b"not looked at, for .png stands first"),
        ("good.txt", b"\xef\xbb\xbf a cat\n"),
        ("good.json", b"{\"txt\": \"of a file of its own first\"}"),
        ("alone.txt", b"a dog"),
        ("blank.png", &one),
        ("blank.txt", b" \n"),
        ("latin.png", &one),
        ("latin.txt", b"caf\xe9"),
        ("object.png", &one),
        ("object.json", b"{\"txt\": "),
        ("field.png", &one),
        ("field.json", b"{\"txt\": \"from a field\"}"),
        ("damaged.png", &one[..30]),
        ("damaged.txt", b"half an image"),
        ("long.png", &one),
        ("long.txt", &[b'a'; (1 << 20) + 1]),
        ("whole.jpg", &one),
        ("whole.json", b"no object, but it is not needed"),
        ("whole.txt", b"a PNG image, whatever it is called"),
    ];
    write_tar(&root.join("a.tar"), members)?;
    let pairs = read(root, "a.tar", None, &["txt"])?;
    let expected = [["a cat"], ["from a field"], ["half an image"], ["a PNG image, whatever it is called"]];
    assert_eq!(pairs.captions, expected);
    let expected = "skipped 5: a.tar: alone: it has no image; a.tar: blank: `txt` is empty; a.tar: latin: txt: \
                    line 1: expected text in UTF-8, found the byte 0xe9; and 2 more";
    assert_eq!(skipped(root, &pairs), expected);
    let found = problems(root, &pairs);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("a.tar: damaged.png: a damaged or unusual PNG image"), "{found:?}");

    write_tar(&root.join("b.tar"), &members[9..11])?;
    let error = read(root, "b.tar", None, &["txt"]).err().unwrap_or_default();
    assert_eq!(error, "b.tar: expected a column `txt`, found json, png");
    write_tar(&root.join("b.tar"), &[&members[9..13], &members[15..17]].concat())?;
    let pairs = read(root, "b.tar", None, &["txt"])?;
    let expected = "skipped 2: b.tar: object: json: expected a JSON object: EOF while parsing a value at byte 8; \
                    b.tar: long: txt: expected a text of at most 1048576 bytes, found more";
    assert_eq!(skipped(root, &pairs), expected);
    Ok(())
}

#[test]
fn sizes_in_archives_are_not_believed() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    let whole = root.join("whole.tar");
    write_tar(&whole, &[("a.png", &png(0)), ("a.txt", b"a cat"), ("b.txt", b"a dog"), ("b.png", &png(1))])?;
    let bytes = fs::read(&whole)?;
    let last = bytes.windows(5).position(|name| name == b"b.png").ok_or("a header")?;
    let size = |bytes: &mut [u8], size: u64| {
        let mut header = tar::Header::from_byte_slice(&bytes[last..last + 512]).clone();
        header.set_size(size);
        header.set_cksum();
        bytes[last..last + 512].copy_from_slice(header.as_bytes());
    };
    let read = |name: &str| -> TestResult<(usize, String)> {
        let pairs = read(root, name, None, &["txt"])?;
        assert_eq!(pairs.captions[0], ["a cat"]);
        Ok((pairs.captions.len(), skipped(root, &pairs)))
    };
    assert_eq!(read("whole.tar")?, (2, "skipped 0: ".to_owned()));

    fs::write(root.join("cut.tar"), &bytes[..last + 512 + 9])?;
    let expected = format!(
        "skipped 1: cut.tar: b: png: cut short, for the archive ends before its {} bytes do",
        png(1).len()
    );
    assert_eq!(read("cut.tar")?, (1, expected));

    fs::write(root.join("header.tar"), &bytes[..last + 9])?;
    let (count, why) = read("header.tar")?;
    assert_eq!(count, 1);
    assert!(why.starts_with("skipped 2: header.tar: its rest cannot be read: "), "{why}");
    assert!(why.ends_with("; header.tar: b: it has no image"), "{why}");

    let mut damaged = bytes.clone();
    damaged[last] = b'c';
    fs::write(root.join("header.tar"), damaged)?;
    assert_eq!(
        read("header.tar")?,
        (count, why.replace("failed to read entire block", "archive header checksum mismatch"))
    );

    for huge in [u64::MAX, 1 << 63, (1 << 30) + 1] {
        let mut claimed = bytes.clone();
        size(&mut claimed, huge);
        fs::write(root.join("huge.tar"), claimed)?;
        let (count, why) = read("huge.tar")?;
        let expected = format!("huge.tar: b: png: expected at most 1073741824 bytes, found {huge}");
        assert!(count == 1 && (why.contains(&expected) || why.contains("size overflow")), "{why}");
    }

    // What comes after a member that is really so large is found, and a second member of a name is taken like any last one.
    let mut claimed = bytes[..last + 512].to_vec();
    size(&mut claimed, (1 << 30) + 512);
    let mut file = File::create(root.join("sparse.tar"))?;
    file.write_all(&claimed)?;
    file.seek(SeekFrom::Current((1 << 30) + 512))?;
    file.write_all(&bytes)?;
    drop(file);
    let (count, why) = read("sparse.tar")?;
    assert_eq!((count, why.as_str()), (2, "skipped 0: "));
    Ok(())
}

#[test]
fn of_a_folder_what_is_bad_is_skipped_and_named() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    let files: [(&str, &[u8]); 9] = [
        // Both of one name are there, for a folder's images are files of their own.
        ("a cat. 1.png", &png(0)),
        ("a cat. 1.JPG", &png(1)),
        ("a cat. 1.txt", b"a cat"),
        ("b.png", &png(1)),
        ("c.png", b"no image"),
        ("c.txt", b"nothing"),
        ("d.png", &png(1)),
        ("d.txt", b"\xff"),
        ("notes.txt", b"of no image"),
    ];
    for (name, bytes) in files {
        fs::write(root.join(name), bytes)?;
    }
    fs::create_dir(root.join("b.txt"))?;
    let pairs = read(root, "", None, &["txt"])?;
    assert_eq!(pairs.captions, [["a cat"], ["a cat"], ["nothing"]]);
    assert_eq!(
        problems(root, &pairs),
        ["c.png: not an image: expected PNG, JPEG, WebP, GIF, BMP, TIFF, ICO, PNM, QOI or TGA"]
    );
    let found = skipped(root, &pairs);
    assert!(found.starts_with("skipped 2: b.png: txt: ") && !found.contains("more"), "{found}");
    assert!(found.ends_with("; d.png: txt: line 1: expected text in UTF-8, found the byte 0xff"), "{found}");
    assert_eq!(read(root, "", Some("jpg"), &[])?.captions.len(), 1);
    for strange in ["../txt", "/", ""] {
        let error = read(root, "", None, &[strange]).err().unwrap_or_default();
        assert!(error.ends_with(&format!("expected a column `{strange}`, found jpg, png, txt")), "{error}");
    }
    Ok(())
}

#[test]
fn of_a_parquet_file_what_is_bad_is_skipped_and_named() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    let captions = caption_columns();
    // Of the first image nothing is there, and the second is a file that is not.
    let mut bytes = column((0..4).map(png), 2);
    let mut paths = column((0..4).map(|i| format!("{i}.png")), 2);
    (bytes.0[0], paths.0[0], bytes.0[1]) = (None, None, None);
    let mut columns = [bytes, paths, captions[0].clone(), captions[1].clone()];
    write_parquet(&root.join("a.parquet"), OF_GROUPS, &columns)?;
    let pairs = read(root, "a.parquet", None, &["en", "zh"])?;
    let found = problems(root, &pairs);
    assert_eq!(found[0], "a.parquet: row 1: the file is empty, expected an image");
    assert!(found.len() == 2 && found[1].starts_with("1.png: "), "{found:?}");

    (columns[2].0[1], columns[3].0[2]) = (None, Some(b" ".to_vec()));
    write_parquet(&root.join("a.parquet"), OF_GROUPS, &columns)?;
    fs::create_dir(root.join("shards"))?;
    for shard in ["shards/0.parquet", "shards/1.parquet"] {
        fs::copy(root.join("a.parquet"), root.join(shard))?;
    }
    let pairs = read(root, "a.parquet", None, &["en", "zh"])?;
    assert_eq!(skipped(root, &pairs), "skipped 2: row 2: `en` is empty; row 3: `zh` is empty");
    assert_eq!(pairs.captions, [CAPTIONS[0], CAPTIONS[3]]);
    let last = pairs.images().last().ok_or("an image")?;
    assert_eq!(last.name().display().to_string(), format!("{}: 3.png", root.join("a.parquet").display()));
    assert!(last.decode(DecodeOptions::default())?.into_rgb8() == image(3));
    let pairs = read(root, "shards", None, &["en", "zh"])?;
    let expected = "skipped 4: shards/0.parquet: row 2: `en` is empty; shards/0.parquet: row 3: `zh` is empty; \
                    shards/1.parquet: row 2: `en` is empty; and 1 more";
    assert_eq!(skipped(root, &pairs), expected);

    // A length in the second group of rows that goes beyond it: of that group nothing can be read, whatever is asked for.
    let columns = [column((0..4).map(png), 1), captions[0].clone(), captions[1].clone()];
    write_parquet(&root.join("b.parquet"), OF_BYTES, &columns)?;
    let mut damaged = fs::read(root.join("b.parquet"))?;
    let third = damaged.windows(png(2).len()).position(|bytes| bytes == png(2)).ok_or("an image")?;
    damaged[third - 4..third].fill(0xff);
    fs::write(root.join("b.parquet"), damaged)?;
    let pairs = read(root, "b.parquet", None, &["en"])?;
    assert_eq!(pairs.captions, CAPTIONS.map(|captions| [captions[0]]));
    let found = problems(root, &pairs);
    assert!(found.len() == 2 && found[0].starts_with("b.parquet: row 3: row 3: "), "{found:?}");
    assert!(found[1].starts_with("b.parquet: row 4: row 3: "), "{found:?}");
    fs::remove_file(root.join("b.parquet"))?;
    assert_eq!(problems(root, &pairs).len(), 4);
    Ok(())
}

#[test]
fn what_cannot_be_used_at_all_is_one_error() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    write_forms(root)?;
    fs::create_dir(root.join("empty"))?;
    fs::write(
        root.join("text.tar"),
        "no archive, but a text that is longer than a header of one. ".repeat(20),
    )?;
    fs::write(root.join("nothing.tar"), "")?;
    fs::write(root.join("text.parquet"), "no Parquet file")?;
    write_tar(&root.join("texts.tar"), &[("a.txt", b"a cat"), ("b.cls", b"3")])?;
    write_tar(&root.join("blank.tar"), &[("a.txt", b""), ("a.png", &png(0))])?;
    let endings = IMAGE_ENDINGS.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(", ");
    let endings = format!("expected images that end in {endings}, found");
    let cases: [(Form, &str); 16] = [
        (("a.jsonl", None, ["en", "fr"]), "a.jsonl: expected a column `fr`, found en, file_name, image, zh"),
        (("a.csv", Some("x"), ["en", "zh"]), "a.csv: expected a column `x`, found en, image, zh, file_name"),
        (("jsonl", Some("x"), ["en", "zh"]), "jsonl/metadata.jsonl: expected a column `x`, found "),
        (("paths.parquet", None, ["en", "fr"]), r#"no column "fr", there are "image", "en", "zh""#),
        (("bytes.parquet", None, ["en", "fr"]), r#"no column "fr", there are "image", "en", "zh""#),
        (("bytes.parquet", Some("x"), ["en", "zh"]), r#"no column "x", there are "image", "en", "zh""#),
        (("bytes.parquet", None, ["en", "image"]), r#"column "image": expected text in UTF-8, found other"#),
        (("a.tar", None, ["txt", "fr"]), "a.tar: expected a column `fr`, found json, png, txt, width, zh"),
        (
            ("shards", Some("jpg"), ["txt", "zh"]),
            "shards: expected images that end in .jpg, found json, png,",
        ),
        (("beside", None, ["txt", "fr"]), "beside: expected a column `fr`, found json, png, txt, width, zh"),
        (("empty", None, ["txt", "zh"]), &format!("empty: {endings} none")),
        (("nothing.tar", None, ["txt", "zh"]), &format!("nothing.tar: {endings} none")),
        (
            ("text.tar", None, ["txt", "zh"]),
            &format!("{endings} none: skipped 1: text.tar: its rest cannot be"),
        ),
        (("texts.tar", None, ["txt", "zh"]), &format!("texts.tar: {endings} cls, txt")),
        (
            ("blank.tar", None, ["txt", "txt"]),
            "expected images with captions: skipped 1: blank.tar: a: `txt` is",
        ),
        (("shards/s-{00..02}.tar", None, ["txt", "zh"]), "shards/s-02.tar: No such file"),
    ];
    for ((name, setting, columns), expected) in cases {
        let error = read(root, name, setting, &columns).err().unwrap_or_default();
        assert!(error.contains(expected) && !error.contains('\n'), "{name}, {columns:?}: {error}");
    }
    for name in ["text.parquet", "missing.jsonl", "missing.tar"] {
        let error = read(root, name, None, &["en"]).err().unwrap_or_default();
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
    }
    for name in ["missing", "images/0.png", "a.tar.gz"] {
        let error = read(root, name, None, &[]).err().unwrap_or_default();
        let expected = "expected a folder, or a file that ends in .jsonl, .csv, .tsv, .parquet or .tar";
        assert_eq!(error, format!("{name}: {expected}"));
    }
    Ok(())
}
