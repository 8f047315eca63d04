//! Tests `altdiffusion embed`.

#[path = "../common/mod.rs"]
mod common;
mod destinations;
mod parquet_files;
mod resume;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Output;

use candle_core::{DType, Device, Tensor};
use common::{EMOJI, emoji, failed, run, run_with_input, succeeded, tensor, tensors};
use image::{Rgb, RgbImage};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{ListAccessor, RowAccessor};
use parquet_files::{write_parquet_column, write_parquet_images};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{TestResult, copy_directory, golden, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of vectors: other batches may change the last bits.
const TOLERANCE: f64 = 1e-5;
const WIDTH: usize = 128;

/// A unique image per number.
fn image(number: u32) -> RgbImage {
    RgbImage::from_fn(40, 30, |x, y| {
        Rgb([(7 * x + 31 * number) as u8, (8 * y) as u8, (x * y * number) as u8])
    })
}

fn draw(directory: &Path, name: &str, number: u32) -> TestResult<PathBuf> {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().ok_or("a name")?)?;
    image(number).save(&path)?;
    Ok(path)
}

fn unit_rows(tensor: &Tensor) -> TestResult<Tensor> {
    Ok(tensor.broadcast_div(&tensor.sqr()?.sum_keepdim(1)?.sqrt()?)?)
}

/// The items that a file has vectors for.
fn items(path: &Path, name: &str) -> TestResult<Vec<String>> {
    let lines = String::from_utf8(tensor(path, name)?.to_vec1()?)?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn embed(directory: &Path, arguments: &[&str]) -> TestResult<Output> {
    Ok(run(directory, &[&["embed"], arguments].concat())?)
}

/// The single error line of a run.
#[track_caller]
fn failure(directory: &Path, arguments: &[&str]) -> TestResult<String> {
    failed(embed(directory, arguments)?)
}

fn names_in(directory: &Path) -> TestResult<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().display().to_string()));
    let mut names = names.collect::<TestResult<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn vectors_are_those_of_the_library_in_order() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    for (name, number) in [("photos/b/2.png", 2), ("photos/1.png", 1), ("3.webp", 3)] {
        draw(root, name, number)?;
    }
    let texts = ["a red apple in a basket, and two more beside it", "", "一只猫"];
    let images = ["3.webp", "photos/1.png", "photos/b/2.png"];
    fs::write(root.join("more.txt"), "\n一只猫\n")?;
    let arguments =
        ["--model", EMOJI, "--text", texts[0], "--texts", "more.txt", "--image", "3.webp", "--image"];
    let arguments = [&arguments[..], &["photos", "--output"]].concat();
    let printed = succeeded(&embed(root, &[&arguments[..], &["unit.safetensors"]].concat())?);
    assert_eq!(printed, "unit.safetensors: 3 texts, 3 images\n");
    succeeded(&embed(root, &[&arguments[..], &["raw.safetensors", "--raw"]].concat())?);
    assert_eq!(names_in(root)?, ["3.webp", "more.txt", "photos", "raw.safetensors", "unit.safetensors"]);

    let embedder = emoji()?;
    let opened = images.map(|name| image::open(root.join(name)));
    let expected = [
        ("text_embeds", embedder.embed_texts(&texts)?),
        ("image_embeds", embedder.embed_images(&opened.into_iter().collect::<Result<Vec<_>, _>>()?)?),
    ];
    let (unit, raw) = (root.join("unit.safetensors"), root.join("raw.safetensors"));
    for (name, expected) in expected {
        let found = tensor(&raw, name)?;
        assert_eq!((found.dims(), found.dtype()), ([3, WIDTH].as_slice(), DType::F32));
        let error = relative_error(&found, &expected);
        assert!(error <= TOLERANCE, "{name}: {error}");
        let found = tensor(&unit, name)?;
        let error = relative_error(&found, &unit_rows(&expected)?);
        assert!(error <= TOLERANCE, "{name}: {error}");
        for length in found.sqr()?.sum(1)?.to_vec1::<f32>()? {
            assert!((length - 1.0).abs() < 1e-6, "{name}: {length}");
        }
    }
    for path in [unit, raw] {
        assert_eq!(tensors(&path)?.len(), 4);
        assert_eq!(items(&path, "texts")?, texts);
        assert_eq!(items(&path, "images")?, images);
    }
    Ok(())
}

#[test]
fn every_input_and_output_format_holds_the_same() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    let texts = ["一只猫", "two\nlines", ""];
    draw(root, "a.png", 1)?;
    draw(root, "b.png", 2)?;
    let objects = texts.map(|text| format!("{}\n", serde_json::json!({ "caption": text, "id": 7 })));
    fs::write(root.join("t.jsonl"), objects.concat())?;
    write_parquet_column(&root.join("t.parquet"), "text", &texts)?;
    let arguments =
        |texts: &[&str]| texts.iter().flat_map(|text| ["--text", *text]).map(str::to_owned).collect();
    let arguments: Vec<String> = arguments(&texts);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let of = |name: &str, arguments: &[&str]| -> TestResult<Vec<u8>> {
        succeeded(&embed(root, &[&["--output", name], arguments].concat())?);
        Ok(fs::read(root.join(name))?)
    };
    let expected = of("a.safetensors", &arguments)?;
    assert_eq!(of("b.safetensors", &["--texts", "t.jsonl", "--text-column", "caption"])?, expected);
    assert_eq!(of("c.safetensors", &["--texts", "t.parquet"])?, expected);

    let vectors = tensor(&root.join("a.safetensors"), "text_embeds")?;
    let npy = of("a.npy", &arguments)?;
    assert_eq!(Tensor::read_npy(root.join("a.npy"))?.to_vec2::<f32>()?, vectors.to_vec2::<f32>()?);
    assert_eq!((npy.len() - vectors.elem_count() * 4) % 64, 0);

    let stdin = ["embed", "--images", "-", "--text", texts[1], "--output", "both.parquet"];
    succeeded(&run_with_input(root, &stdin, b"b.png\n\na.png\n")?);
    let reader = SerializedFileReader::new(File::open(root.join("both.parquet"))?)?;
    let rows: Vec<_> = reader.get_row_iter(None)?.collect::<Result<_, _>>()?;
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].get_string(0)?.as_str(), rows[1].get_string(1)?.as_str()), (texts[1], "b.png"));
    assert!(rows[0].get_string(1).is_err() && rows[1].get_string(0).is_err(), "the other column is null");
    let numbers = rows[0].get_list(2)?;
    let numbers = (0..numbers.len()).map(|i| numbers.get_float(i)).collect::<Result<Vec<_>, _>>()?;
    let found = Tensor::from_vec(numbers, WIDTH, &Device::Cpu)?;
    assert!(relative_error(&found, &vectors.get(1)?) <= TOLERANCE);

    for (format, input) in
        [("jsonl", &b"{\"caption\": \"two\\nlines\"}\n"[..]), ("csv", &b"caption\n\"two\nlines\"\n"[..])]
    {
        let table = ["--text-column", "caption", "--input-format", format, "--output", "piped.npy"];
        succeeded(&run_with_input(root, &[&["embed", "--texts", "-"], &table[..]].concat(), input)?);
        let piped = Tensor::read_npy(root.join("piped.npy"))?;
        assert!(relative_error(&piped.get(0)?, &vectors.get(1)?) <= TOLERANCE, "{format}");
    }

    // The program reads its own output.
    fs::remove_file(root.join("b.png"))?;
    let output = embed(root, &["--texts", "both.parquet", "--output", "d.npy"])?;
    assert_eq!(String::from_utf8(output.stdout)?, "d.npy: 1 text; 2 texts skipped\n");
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.contains("skipped: --texts both.parquet: row 2: column \"text\": null\n"), "{stderr}");
    Ok(())
}

/// Rows without a text or an image are named by their line, and do not end the job.
#[test]
fn rows_without_a_value_are_skipped_and_counted() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    draw(root, "a.png", 1)?;
    fs::write(
        root.join("t.jsonl"),
        "{\"id\": 1}\n\n{\"text\": null}\n{\"text\": \"a\", \"image\": \"a.png\"}\n{\"text\": NaN}\n",
    )?;
    fs::write(root.join("t.csv"), "id,text\n1\n2,a\n")?;
    let run = |arguments: &[&str]| -> TestResult<(Value, String)> {
        let output = embed(root, &[arguments, &["--output", "o.safetensors", "--json"]].concat())?;
        let stderr = String::from_utf8(output.stderr)?;
        assert!(output.status.success(), "{stderr}");
        Ok((serde_json::from_slice(&output.stdout)?, stderr))
    };
    let lines = |name: &str, problems: &[&str]| -> String {
        problems.iter().map(|problem| format!("skipped: --texts {name}: {problem}\n")).collect()
    };
    let (report, stderr) = run(&["--texts", "t.jsonl"])?;
    assert_eq!((&report["texts"], &report["skipped_texts"]), (&1.into(), &3.into()));
    let problems = [
        "line 1: no column \"text\", there are \"id\"",
        "line 3: column \"text\": null",
        "line 5: column \"text\": null",
    ];
    assert_eq!(stderr, lines("t.jsonl", &problems));
    assert_eq!(items(&root.join("o.safetensors"), "texts")?, ["a"]);

    let (report, stderr) = run(&["--texts", "t.csv"])?;
    assert_eq!((&report["texts"], &report["skipped_texts"]), (&1.into(), &1.into()));
    assert_eq!(stderr, lines("t.csv", &["line 2: no value in column \"text\""]));

    let (report, stderr) = run(&["--images", "t.jsonl"])?;
    assert_eq!((&report["images"], &report["skipped_images"]), (&1.into(), &3.into()));
    assert!(stderr.starts_with("skipped: --images t.jsonl: line 1: no column \"image\""), "{stderr}");
    Ok(())
}

#[test]
fn parquet_may_hold_the_images_themselves() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    let (a, b) = (fs::read(draw(root, "a.png", 1)?)?, fs::read(draw(root, "b.png", 2)?)?);
    let rows: [(Option<&[u8]>, Option<&str>); 4] =
        [(Some(&b), Some("gone.png")), (None, Some("a.png")), (Some(&b[..30]), None), (Some(&a), None)];
    write_parquet_images(&root.join("p.parquet"), &rows)?;
    let output = embed(root, &["--images", "p.parquet", "--output", "p.safetensors"])?;
    let skipped = String::from_utf8(output.stderr)?;
    assert!(skipped.contains("skipped: row 3: "), "{skipped}");
    assert_eq!(String::from_utf8(output.stdout)?, "p.safetensors: 3 images; 1 image skipped\n");
    succeeded(&embed(root, &["--image", "b.png", "--image", "a.png", "--output", "f.safetensors"])?);
    let found = tensor(&root.join("p.safetensors"), "image_embeds")?;
    let files = tensor(&root.join("f.safetensors"), "image_embeds")?;
    let same = Tensor::stack(&[files.get(0)?, files.get(1)?, files.get(1)?], 0)?;
    assert!(relative_error(&found, &same) <= TOLERANCE);
    let names: Vec<u8> = tensor(&root.join("p.safetensors"), "images")?.to_vec1()?;
    assert_eq!(String::from_utf8(names)?, "\"gone.png\"\n\"a.png\"\n\"row 4\"\n");

    write_parquet_images(&root.join("none.parquet"), &[(None, None)])?;
    let output = embed(root, &["--images", "none.parquet", "--output", "n.safetensors"])?;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.contains("skipped: row 1: "), "{stderr}");
    assert!(
        stderr.ends_with("error: n.safetensors: not written, for the image cannot be read\n"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn bad_images_are_skipped_and_counted() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    draw(root, "in/good.png", 1)?;
    let png = fs::read(draw(root, "in/also good.png", 2)?)?;
    fs::write(root.join("in/cut.png"), &png[..png.len() / 2])?;
    fs::write(root.join("in/text.jpg"), "no image")?;
    fs::write(root.join("in/bomb.png"), bomb(png))?;
    let output = embed(root, &["--image", "in", "--image", "missing.png", "--output", "out.safetensors"])?;
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout)?, "out.safetensors: 2 images; 4 images skipped\n");
    let stderr = String::from_utf8(output.stderr)?;
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{stderr}");
    for (line, name) in lines.iter().zip(["in/bomb.png", "in/cut.png", "in/text.jpg", "missing.png"]) {
        assert!(line.starts_with(&format!("skipped: {name}: ")), "{line}");
    }
    let path = root.join("out.safetensors");
    assert_eq!(items(&path, "images")?, ["in/also good.png", "in/good.png"]);
    assert_eq!(tensor(&path, "image_embeds")?.dims(), [2, WIDTH]);
    assert_eq!(tensor(&path, "text_embeds")?.dims(), [0, WIDTH]);

    // If nothing can be embedded, the run fails and leaves nothing.
    let output = embed(root, &["--image", "missing.png", "--image", "in/cut.png", "--output", "none.npy"])?;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr)?;
    assert!(
        stderr.ends_with("error: none.npy: not written, for none of the 2 images can be read\n"),
        "{stderr}"
    );
    assert_eq!(names_in(root)?, ["in", "out.safetensors"]);
    Ok(())
}

/// A PNG that claims to be 60000 pixels wide and high.
fn bomb(mut png: Vec<u8>) -> Vec<u8> {
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    png
}

/// PNG's checksum.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The image processor may be in `processor_config.json`, belong to another image tower, or be missing.
#[test]
fn texts_need_no_image_processor() -> TestResult {
    let directory = tempfile::tempdir()?;
    let model = directory.path().join("clip");
    copy_directory(&golden("dual_encoders/clip"), &model)?;
    draw(directory.path(), "a.png", 1)?;
    let processor = model.join("preprocessor_config.json");
    let fitting: Value = serde_json::from_slice(&fs::read(&processor)?)?;
    fs::remove_file(&processor)?;
    let mut too_large = fitting.clone();
    too_large["size"] = 224.into();
    too_large["crop_size"] = 224.into();
    let named = |fields: &Value| serde_json::json!({"image_processor": fields}).to_string();
    let text = ["embed", "--model", "clip", "--text", "a cat", "--output", "text.npy"];
    let image = ["embed", "--model", "clip", "--image", "a.png", "--output", "image.npy"];
    let mut vectors = Vec::new();
    for (content, problem) in [
        (Some(named(&fitting)), None),
        (Some(named(&too_large)), Some("makes images of shape [3, 224, 224], expected [3, 20, 20]")),
        (None, Some("no file preprocessor_config.json")),
    ] {
        let file = model.join("processor_config.json");
        match content {
            Some(content) => fs::write(file, content)?,
            None => fs::remove_file(file)?,
        }
        succeeded(&run(directory.path(), &text)?);
        vectors.push(fs::read(directory.path().join("text.npy"))?);
        let output = run(directory.path(), &image)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        match problem {
            None => assert_eq!(output.status.code(), Some(0), "{stderr}"),
            Some(problem) => {
                assert_eq!(output.status.code(), Some(1), "{stderr}");
                assert!(stderr.contains(problem), "{stderr}");
            }
        }
    }
    assert!(vectors.iter().all(|vector| *vector == vectors[0]));
    Ok(())
}

#[test]
fn what_cannot_be_embedded_is_one_clear_line() -> TestResult {
    let directory = TempDir::new()?;
    let root = directory.path();
    draw(root, "a.png", 1)?;
    fs::create_dir(root.join("empty"))?;
    fs::write(root.join("empty.txt"), "")?;
    fs::write(root.join("latin1.txt"), b"caf\xe9\n")?;
    fs::write(root.join("t.jsonl"), "{\"caption\": \"a\", \"id\": 1}\n")?;
    write_parquet_column(&root.join("t.parquet"), "caption", &["a"])?;
    fs::write(root.join("bad.parquet"), "PAR1")?;
    let out = ["--output", "out.safetensors"];
    let cases: [(&[&str], &str); 14] = [
        (&["--image", "*.jpg"], "--image *.jpg: no file fits this pattern"),
        (&["--image", "empty"], "--image empty: no images in this directory"),
        (&["--texts", "empty.txt"], "--texts empty.txt: expected at least one text, found none"),
        (&["--images", "empty.txt"], "--images empty.txt: expected at least one image, found none"),
        (&["--texts", "missing.txt"], "--texts missing.txt: No such file"),
        (
            &["--texts", "latin1.txt"],
            "--texts latin1.txt: line 1: expected text in UTF-8, found the byte 0xe9",
        ),
        (&["--texts", "t.jsonl"], "t.jsonl: line 1: no column \"text\", there are \"caption\", \"id\""),
        (&["--texts", "t.parquet"], "t.parquet: no column \"text\", there are \"id\", \"caption\""),
        (
            &["--texts", "t.parquet", "--text-column", "id"],
            "row 1: column \"id\": expected a string, found a number",
        ),
        (&["--texts", "bad.parquet"], "--texts bad.parquet: "),
        (&["--texts", "-", "--images", "-"], "only one of them can be standard input"),
        (
            &["--texts", "-", "--text-column", "a"],
            "--texts -: expected --input-format jsonl, csv, tsv or parquet for the column \"a\"",
        ),
        (
            &["--texts", "t.jsonl", "--input-format", "jsonl"],
            "--input-format: is for --texts - or --images -, for a file's format is known by its ending",
        ),
        (&["--texts", "empty.txt", "--text-column", "a"], "expected a .jsonl, .csv, .tsv or .parquet file"),
    ];
    for (arguments, expected) in cases {
        let error = failure(root, &[arguments, &out].concat())?;
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let error = failure(root, &["--text", "a", "--image", "a.png", "--output", "out.npy"])?;
    assert!(error.contains("an .npy file has one array"), "{error}");
    let error = failure(root, &["--text", "a", "--output", "out.csv"])?;
    assert!(error.contains("expected a name that ends in .safetensors, .npy or .parquet"), "{error}");
    for arguments in
        [&out[..], &["--text", "a"], &[&out[..], &["--text-column", "a", "--text", "a"]].concat()]
    {
        assert_eq!(embed(root, arguments)?.status.code(), Some(2), "{arguments:?}");
    }
    let names = ["a.png", "bad.parquet", "empty", "empty.txt", "latin1.txt", "t.jsonl", "t.parquet"];
    assert_eq!(names_in(root)?, names);
    Ok(())
}
