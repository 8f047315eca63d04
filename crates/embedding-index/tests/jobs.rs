//! Runs jobs with this project's small model: they stop, resume, and write the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use altclip_encoder::embedder::Embedder;
use candle_core::{DType, Device};
use embedding_index::readers::{ImageInputs, ListFile, TextInputs};
use embedding_index::{Error, Index, ItemKind, Job, JobDifference, JobObserver, SearchOptions, unit_vector};
use image::{Rgb, RgbImage};
use test_support::TestResult;

const MODEL: &str = "models/emoji";

fn embedder() -> TestResult<Embedder> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(MODEL);
    Ok(Embedder::from_pretrained(&model.display().to_string(), DType::F32, &Device::Cpu)?)
}

fn texts(count: usize) -> TextInputs {
    (0..count).map(|number| format!("{number} cats")).collect()
}

/// A folder with twenty images, the fourth of them damaged, and a text.
fn write_images(folder: &Path) -> TestResult<String> {
    let photos = folder.join("photos");
    fs::create_dir(&photos)?;
    for number in 0..20_u8 {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([10 * number, 6 * x as u8, 8 * y as u8]));
        image.save(photos.join(format!("{number:02}.png")))?;
    }
    fs::write(photos.join("03.png"), "no image")?;
    fs::write(photos.join("notes.txt"), "no image")?;
    Ok(photos.display().to_string())
}

/// Records what a job reports, and stops it after a number of items of a kind.
#[derive(Default)]
struct Watch {
    stop_at: Option<(ItemKind, usize)>,
    seen: Vec<(ItemKind, usize, usize)>,
    skipped: Vec<String>,
}

impl JobObserver for Watch {
    fn progress(&mut self, kind: ItemKind, done: usize, total: usize) {
        self.seen.push((kind, done, total));
    }

    fn skipped(&mut self, error: &Error) {
        self.skipped.push(error.to_string());
    }

    fn should_stop(&mut self) -> bool {
        let last = self.seen.last().map(|&(kind, done, _)| (kind, done));
        self.stop_at
            .is_some_and(|(kind, count)| last.is_some_and(|(seen, done)| seen == kind && done >= count))
    }
}

#[test]
fn stopped_jobs_go_on_to_the_same_bytes() -> TestResult {
    let folder = tempfile::tempdir()?;
    let photos = write_images(folder.path())?;
    let embedder = embedder()?;
    let job =
        |output: &Path| Job::new(output).texts(texts(1100)).images(ImageInputs::from_iter([photos.as_str()]));
    let path = |name: &str| folder.path().join(name);

    let mut watch = Watch::default();
    let summary = job(&path("whole.safetensors")).run(&embedder, MODEL, &mut watch)?;
    assert_eq!((summary.texts, summary.images, summary.skipped_images), (1100, 19, 1));
    assert_eq!(summary.ignored_files.by_ending().collect::<Vec<_>>(), [("txt", 1)]);
    assert_eq!(watch.skipped.len(), 1);
    assert!(watch.skipped[0].contains("03.png: not an image"), "{:?}", watch.skipped);
    let expected = [
        (ItemKind::Text, 0, 1100),
        (ItemKind::Text, 1024, 1100),
        (ItemKind::Text, 1100, 1100),
        (ItemKind::Image, 0, 20),
        (ItemKind::Image, 16, 20),
    ];
    assert_eq!(watch.seen, expected);
    let whole = fs::read(path("whole.safetensors"))?;

    let parts = path("parts.safetensors");
    let partial = Job::partial_folder(&parts);
    for (stop_at, begin) in
        [((ItemKind::Text, 1024), (ItemKind::Text, 0)), ((ItemKind::Image, 16), (ItemKind::Text, 1024))]
    {
        let mut watch = Watch { stop_at: Some(stop_at), ..Watch::default() };
        let stopped = job(&parts).run(&embedder, MODEL, &mut watch);
        assert!(matches!(stopped, Err(Error::Stopped { folder }) if folder == partial));
        assert_eq!(watch.seen.first().map(|&(kind, done, _)| (kind, done)), Some(begin));
        assert!(partial.is_dir() && !parts.exists());
    }

    // Another job neither resumes nor harms it.
    let differences = [
        (job(&parts).normalize(false), MODEL, JobDifference::Normalization),
        (job(&parts), "another name", JobDifference::Model),
        (job(&parts).texts(texts(7)), MODEL, JobDifference::Texts),
        (job(&parts).images(ImageInputs::default()), MODEL, JobDifference::Images),
    ];
    for (other, model, expected) in differences {
        let error = other.run(&embedder, model, &mut ());
        assert!(
            matches!(error, Err(Error::OtherJob { difference, .. }) if difference == expected),
            "{expected}: {error:?}"
        );
    }
    let mut watch = Watch::default();
    let summary = job(&parts).run(&embedder, MODEL, &mut watch)?;
    assert_eq!(watch.seen, [(ItemKind::Image, 16, 20)]);
    assert_eq!((summary.texts, summary.images, summary.skipped_images), (1100, 19, 1));
    assert!(fs::read(&parts)? == whole);
    assert!(!partial.exists());

    // Without the folder, everything starts again.
    let mut watch = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
    assert!(job(&parts).run(&embedder, "another name", &mut watch).is_err());
    job(&parts).resume(false).run(&embedder, MODEL, &mut ())?;
    assert!(fs::read(&parts)? == whole);
    Ok(())
}

/// Rows without a text are skipped, in a run that was stopped as in one that was not.
#[test]
fn rows_without_a_text_are_skipped_and_counted() -> TestResult {
    let folder = tempfile::tempdir()?;
    let embedder = embedder()?;
    let path = |name: &str| folder.path().join(name);
    let line = |number: usize| match number {
        // The second batch has no text.
        0..2060 | 2501 => "{\"text\": null}\n".to_owned(),
        2500 => "{\"id\": 2500}\n".to_owned(),
        number => format!("{{\"text\": \"{number} cats\"}}\n"),
    };
    fs::write(path("rows.jsonl"), (0..3000).map(line).collect::<String>())?;
    let job = |output: &str| -> TestResult<Job> {
        let list = ListFile::open(&path("rows.jsonl"), None)?.with_name("rows.jsonl");
        Ok(Job::new(path(output)).texts(TextInputs::new(vec!["own".to_owned()], Some(list))))
    };
    let mut whole = Watch::default();
    let summary = job("whole.safetensors")?.run(&embedder, MODEL, &mut whole)?;
    assert_eq!((summary.texts, summary.skipped_texts, summary.skipped_images), (939, 2062, 0));
    let (first, last) = (&whole.skipped[0], &whole.skipped[2060..]);
    assert_eq!(first, "rows.jsonl: line 1: column \"text\": null");
    assert_eq!(
        last,
        [
            "rows.jsonl: line 2501: no column \"text\", there are \"id\"",
            "rows.jsonl: line 2502: column \"text\": null"
        ]
    );

    let mut parts = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
    assert!(job("parts.safetensors")?.run(&embedder, MODEL, &mut parts).is_err());
    let before = parts.skipped.len();
    let mut parts = Watch::default();
    let resumed = job("parts.safetensors")?.run(&embedder, MODEL, &mut parts)?;
    assert_eq!((resumed.texts, resumed.skipped_texts), (939, 2062));
    assert_eq!((before, parts.skipped.len()), (1023, 1039));
    assert!(fs::read(path("parts.safetensors"))? == fs::read(path("whole.safetensors"))?);

    fs::write(path("rows.jsonl"), "{\"text\": null}\n{\"text\": null}\n")?;
    let list = ListFile::open(&path("rows.jsonl"), None)?;
    let none = Job::new(path("none.npy")).texts(TextInputs::new(Vec::new(), Some(list)));
    let error = none.run(&embedder, MODEL, &mut ()).err().ok_or("no error")?.to_string();
    assert!(error.ends_with("none.npy: not written, for none of the 2 rows has a text"), "{error}");
    Ok(())
}

/// A line that is broken, and one that is not UTF-8, count as rows in a run that was stopped as in one that was not.
#[test]
fn rows_that_cannot_be_read_are_skipped_and_counted() -> TestResult {
    let folder = tempfile::tempdir()?;
    let embedder = embedder()?;
    let path = |name: &str| folder.path().join(name);
    let objects = (0..1100).map(|number| match number {
        4 => b"{\"text\": \"cut\n".to_vec(),
        1050 => b"{\"text\": \"\xc3(\"}\n".to_vec(),
        number => format!("{{\"text\": \"{number} cats\"}}\n").into_bytes(),
    });
    let records = (0..1100).map(|number| match number {
        4 | 1050 => b"\xc3(,1\n".to_vec(),
        number => format!("{number} cats,1\n").into_bytes(),
    });
    fs::write(path("rows.jsonl"), objects.collect::<Vec<_>>().concat())?;
    fs::write(
        path("rows.csv"),
        [b"text,id\n".to_vec()].into_iter().chain(records).collect::<Vec<_>>().concat(),
    )?;
    for (list, problems) in [
        (
            "rows.jsonl",
            ["line 5: expected a JSON object", "line 1051: expected text in UTF-8, found the byte 0xc3"],
        ),
        ("rows.csv", ["line 6: ", "line 1052: "]),
    ] {
        let job = |output: &str| -> TestResult<Job> {
            let list = ListFile::open(&path(list), None)?.with_name(list);
            Ok(Job::new(path(output)).texts(TextInputs::new(Vec::new(), Some(list))))
        };
        let mut whole = Watch::default();
        let summary = job("whole.safetensors")?.run(&embedder, MODEL, &mut whole)?;
        assert_eq!((summary.texts, summary.skipped_texts), (1098, 2), "{list}");
        for (skipped, problem) in whole.skipped.iter().zip(problems) {
            assert!(skipped.starts_with(&format!("{list}: {problem}")), "{skipped}");
        }
        let mut parts = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
        assert!(job("parts.safetensors")?.run(&embedder, MODEL, &mut parts).is_err());
        assert_eq!(parts.skipped.len(), 1);
        let mut parts = Watch::default();
        let resumed = job("parts.safetensors")?.run(&embedder, MODEL, &mut parts)?;
        assert_eq!((resumed.texts, resumed.skipped_texts, parts.skipped.len()), (1098, 2, 1));
        assert!(fs::read(path("parts.safetensors"))? == fs::read(path("whole.safetensors"))?);
    }
    Ok(())
}

#[test]
fn folders_appear_whole_and_replace_only_their_own() -> TestResult {
    let folder = tempfile::tempdir()?;
    let embedder = embedder()?;
    let path = |name: &str| folder.path().join(name);
    Job::new(path("whole.parquet")).texts(texts(1100)).run(&embedder, MODEL, &mut ())?;
    let output = path("vectors/");
    let mut watch = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
    assert!(Job::new(&output).texts(texts(1100)).run(&embedder, MODEL, &mut watch).is_err());
    assert!(!output.exists() && path("vectors.partial").is_dir());
    let mut watch = Watch::default();
    Job::new(&output).texts(texts(1100)).run(&embedder, MODEL, &mut watch)?;
    assert_eq!(watch.seen.first(), Some(&(ItemKind::Text, 1024, 1100)));
    let part = output.join("part-00000.parquet");
    let whole = fs::read(path("whole.parquet"))?;
    assert!(fs::read(&part)? == whole);
    assert_eq!(fs::read_dir(folder.path())?.count(), 2);

    Job::new(&output).texts(texts(3)).run(&embedder, MODEL, &mut ())?;
    assert!(fs::read(&part)?.len() < whole.len());
    assert_eq!(fs::read_dir(folder.path())?.count(), 2);
    // What came there while the job ran is not lost either.
    let mut watch = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
    assert!(Job::new(&output).texts(texts(1100)).run(&embedder, MODEL, &mut watch).is_err());
    fs::write(output.join("notes.txt"), "mine")?;
    let mut refused = Job::new(&output).texts(texts(1100));
    let error = refused.check().err().ok_or("no error")?.to_string();
    assert!(error.ends_with("found notes.txt"), "{error}");
    fs::remove_file(output.join("notes.txt"))?;
    Job::new(&output).texts(texts(1100)).run(&embedder, MODEL, &mut ())?;
    assert!(fs::read(&part)? == whole);
    Ok(())
}

/// A folder from the first release, which did not record backgrounds, with everything done except the last text.
#[test]
fn unfinished_jobs_of_earlier_releases_are_resumed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let embedder = embedder()?;
    let output = folder.path().join("a.npy");
    let mut watch = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
    assert!(Job::new(&output).texts(texts(1025)).run(&embedder, MODEL, &mut watch).is_err());
    let partial = folder.path().join("a.npy.partial");
    let mut names: Vec<PathBuf> =
        fs::read_dir(&partial)?.map(|entry| Ok(entry?.file_name().into())).collect::<TestResult<_>>()?;
    names.sort();
    let expected = ["images.f32", "images.jsonl", "lock", "state.json", "texts.f32", "texts.jsonl"];
    assert_eq!(names, expected.map(PathBuf::from));
    assert_eq!(fs::metadata(partial.join("texts.f32"))?.len(), 1024 * 128 * 4);
    assert!(fs::read_to_string(partial.join("texts.jsonl"))?.starts_with("\"0 cats\"\n\"1 cats\"\n"));

    let state: serde_json::Value = serde_json::from_slice(&fs::read(partial.join("state.json"))?)?;
    let expected = serde_json::json!({
        "settings": {
            "model": MODEL,
            "model_digest": state["settings"]["model_digest"],
            "dtype": "f32",
            "width": 128,
            "raw": false,
            "background": "white",
            "texts_digest": state["settings"]["texts_digest"],
            // The digest of nothing.
            "images_digest": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
        "texts": { "done": 1024, "rows": 1024, "item_bytes": fs::metadata(partial.join("texts.jsonl"))?.len() },
        "images": { "done": 0, "rows": 0, "item_bytes": 0 },
    });
    assert_eq!(state, expected);

    let mut watch = Watch::default();
    Job::new(&output).texts(texts(1025)).run(&embedder, MODEL, &mut watch)?;
    assert_eq!(watch.seen, [(ItemKind::Text, 1024, 1025), (ItemKind::Text, 1025, 1025)]);
    Ok(())
}

#[test]
fn indexes_say_how_they_were_made_and_find_what_is_in_them() -> TestResult {
    let folder = tempfile::tempdir()?;
    let photos = write_images(folder.path())?;
    let embedder = embedder()?;
    let output = folder.path().join("a.safetensors");
    let inputs = ["一只猫", "a red apple", "消防车"];
    let job = Job::new(&output).texts(TextInputs::from_iter(inputs)).images(ImageInputs::from_iter([photos]));
    job.run(&embedder, MODEL, &mut ())?;

    let index = Index::open(&output)?;
    let info = index.info().ok_or("no info")?;
    assert_eq!((info.model.as_str(), info.normalized), (MODEL, true));
    assert_eq!(info.background, Some(embedder.background()));
    assert_eq!(info.revision, None);
    assert_eq!((index.width(), index.len(ItemKind::Text), index.len(ItemKind::Image)), (128, 3, 19));
    let query: Vec<f32> = embedder.embed_texts(&["a red apple"])?.flatten_all()?.to_vec1()?;
    let hits = index.search(&query, SearchOptions { top: 1, ..SearchOptions::default() })?;
    assert_eq!((hits[0].kind, hits[0].item.as_str()), (ItemKind::Text, "a red apple"));
    assert!((hits[0].score - 1.).abs() < 1e-6);
    assert_eq!(index.search(&unit_vector(&query), SearchOptions::default())?.len(), 10);
    Ok(())
}

/// Also by a run that goes on with the work of an earlier one.
#[test]
fn the_revision_of_a_model_is_recorded() -> TestResult {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let folder = tempfile::tempdir()?;
    let embedder = embedder()?;
    let job = |name: &str| Job::new(folder.path().join(name)).texts(texts(1100)).revision(Some(COMMIT));
    job("whole.safetensors").run(&embedder, MODEL, &mut ())?;
    let mut watch = Watch { stop_at: Some((ItemKind::Text, 1024)), ..Watch::default() };
    assert!(job("parts.safetensors").run(&embedder, MODEL, &mut watch).is_err());
    job("parts.safetensors").run(&embedder, MODEL, &mut ())?;
    let index = Index::open(&folder.path().join("parts.safetensors"))?;
    let revision = index.info().and_then(|info| info.revision.as_deref());
    assert_eq!(revision, Some(COMMIT));
    let read = |name: &str| fs::read(folder.path().join(name));
    assert!(read("parts.safetensors")? == read("whole.safetensors")?);
    Ok(())
}

#[test]
fn jobs_that_cannot_be_are_refused_before_the_model() -> TestResult {
    let folder = tempfile::tempdir()?;
    let photos = write_images(folder.path())?;
    let path = |name: &str| folder.path().join(name);
    let images = || ImageInputs::from_iter([photos.as_str()]);
    let cases = [
        (Job::new(path("a.safetensors")), "expected at least one text or image to embed, found none"),
        (Job::new(path("a.txt")).texts(texts(1)), "a.txt: expected a name that ends in .safetensors, .npy"),
        (Job::new(path("a.npy")).texts(texts(1)).images(images()), "a.npy: an .npy file has one array"),
        (Job::new(path("a.npy")).images(ImageInputs::from_iter(["*.none"])), "*.none: no file fits this"),
    ];
    for (mut job, expected) in cases {
        let error = job.check().err().ok_or("no error")?.to_string();
        assert!(error.contains(expected), "{error}");
    }
    let only_damaged = ImageInputs::from_iter([path("photos/03.png").display().to_string()]);
    let error = Job::new(path("a.npy")).images(only_damaged).run(&embedder()?, MODEL, &mut ());
    assert!(matches!(&error, Err(Error::NothingEmbedded { images: 1, .. })), "{error:?}");
    assert!(
        error.is_err_and(|error| error.to_string().ends_with("not written, for the image cannot be read"))
    );
    assert!(!path("a.npy.partial").exists() && !path("a.npy").exists());
    Ok(())
}
