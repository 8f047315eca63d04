//! Reads damaged and misleading archives.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use tempfile::TempDir;

use crate::{TestResult, png, problems, read, skipped, write_tar};

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

    // The data after a member that really has this size is found, and a repeated member counts like any last one.
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
