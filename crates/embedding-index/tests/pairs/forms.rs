//! Reads the same pairs in every form.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use altclip_encoder::images::DecodeOptions;
use embedding_index::readers::TextTable;
use tempfile::TempDir;

use crate::{
    CAPTIONS, Column, OF_BYTES, OF_GROUPS, OF_PATHS, TestResult, column, image, png, problems, read,
    write_parquet, write_tar,
};

pub fn caption_columns() -> [Column; 2] {
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

/// A path in a folder, the setting `image`, and the columns of captions.
pub type Form = (&'static str, Option<&'static str>, [&'static str; 2]);

/// Writes the pairs in every form.
pub fn write_forms(root: &Path) -> TestResult<Vec<Form>> {
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
        // In another order, and left out.
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
    // It also depends on which rows are selected.
    let mut captions = caption_columns();
    captions[0].0[3] = None;
    let bytes = column((0..4).map(png), 1);
    write_parquet(&root.join("bytes.parquet"), OF_BYTES, &[&[bytes], &captions[..]].concat())?;
    let key = |column: &str| read(root, "bytes.parquet", None, &[column]).map(|pairs| pairs.key);
    assert_ne!(key("en")?, key("zh")?);
    Ok(())
}
