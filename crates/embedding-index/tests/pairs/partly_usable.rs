//! Reads folders and tables that are only partly usable, or not at all.

use std::fs;

use altclip_encoder::images::{DecodeOptions, IMAGE_ENDINGS};
use tempfile::TempDir;

use crate::forms::{Form, caption_columns, write_forms};
use crate::{
    CAPTIONS, OF_BYTES, OF_GROUPS, TestResult, column, image, png, problems, read, skipped, write_parquet,
    write_tar,
};

#[test]
fn of_a_folder_what_is_bad_is_skipped_and_named() -> TestResult {
    let folder = TempDir::new()?;
    let root = folder.path();
    let files: [(&str, &[u8]); 9] = [
        // Both of one name are present, since a folder's images are separate files.
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
    // The first image has neither bytes nor a path, and the second is a missing file.
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

    // A length in the second row group exceeds it, so nothing in that group can be read.
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
