//! Tests the requests for images beside the command.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use test_support::TestResult;

use crate::common::{run, succeeded};
use crate::server::{Answer, Served, decoded, encoded};

/// What `altdiffusion generate` draws.
fn generated(directory: &Path, arguments: &[&str]) -> TestResult<Vec<u8>> {
    let output = directory.join("expected.png");
    let options = ["--output", "expected.png", "--device", "cpu"];
    succeeded(&run(directory, &[&["generate"], arguments, &options[..]].concat())?);
    Ok(std::fs::read(output)?)
}

#[test]
fn images_are_those_of_generate_to_the_byte() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    let request = json!({
        "prompt": "一只猫", "negative_prompt": "blue", "seed": 7, "steps": 5, "guidance_scale": 2.0,
        "scheduler": "DPM++ 2M Karras", "size": "64x72", "prompt_weights": true, "scale": 2,
    });
    let answer = served.post("/v1/images/generations", &request)?.json()?;
    let expected = generated(
        directory.path(),
        &[
            "一只猫",
            "--negative-prompt",
            "blue",
            "--seed",
            "7",
            "--steps",
            "5",
            "--guidance-scale",
            "2",
            "--scheduler",
            "DPM++ 2M Karras",
            "--width",
            "64",
            "--height",
            "72",
            "--prompt-weights",
            "--scale",
            "2",
        ],
    )?;
    let item = &answer["data"][0];
    assert_eq!(decoded(&item["b64_json"])?, expected);
    assert_eq!((&item["seed"], &item["width"], &item["height"]), (&json!(7), &json!(128), &json!(144)));

    // Several have consecutive seeds, and each is the image of its seed.
    let answer = served
        .post("/v1/images/generations", &json!({ "prompt": "a cat", "n": 2, "seed": 3, "steps": 4 }))?;
    let answer = answer.json()?;
    assert_eq!((&answer["data"][0]["seed"], &answer["data"][1]["seed"]), (&json!(3), &json!(4)));
    let second = generated(directory.path(), &["a cat", "--seed", "4", "--steps", "4"])?;
    assert_eq!(decoded(&answer["data"][1]["b64_json"])?, second);

    // Also in the size that it has by default, which is asked for by its name or in pixels.
    for size in ["auto", "256x256"] {
        let request = json!({ "prompt": "a cat", "seed": 4, "steps": 4, "size": size });
        let answer = served.post("/v1/images/generations", &request)?.json()?;
        assert_eq!(decoded(&answer["data"][0]["b64_json"])?, second, "{size}");
    }
    // Another size is exact, and a scale is said beside what is drawn.
    let drawn = |size: &str, scale: Option<usize>| -> TestResult<Value> {
        let request = json!({ "prompt": "a cat", "steps": 1, "size": size, "scale": scale });
        let item = served.post("/v1/images/generations", &request)?.json()?["data"][0].clone();
        Ok(json!([item["width"], item["height"]]))
    };
    assert_eq!(drawn("64x64", None)?, json!([64, 64]));
    assert_eq!(drawn("192x128", None)?, json!([192, 128]));
    assert_eq!(drawn("64x72", Some(3))?, json!([192, 216]));
    assert_eq!(drawn("auto", Some(1))?, json!([64, 64]));

    // Other formats, and a data URI.
    let request = json!({ "prompt": "a cat", "steps": 2, "output_format": "jpeg", "response_format": "url" });
    let answer = served.post("/v1/images/generations", &request)?.json()?;
    let url = answer["data"][0]["url"].as_str().unwrap_or_default();
    assert!(url.starts_with("data:image/jpeg;base64,/9j/"), "{answer}");
    Ok(())
}

#[test]
fn images_start_from_images() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([4 * x as u8, 4 * y as u8, 90]))
        .save(root.join("a.png"))?;
    image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 255 } else { 0 }]))
        .save(root.join("m.png"))?;
    let options = ["--image", "a.png", "--mask", "m.png", "--strength", "0.7", "--seed", "5", "--steps", "6"];
    let expected = generated(root, &[&["a cat"], &options[..]].concat())?;
    let expected = image::load_from_memory(&expected)?.into_rgb8();
    let pixels = |answer: &Value| -> TestResult<_> {
        Ok(image::load_from_memory(&decoded(&answer["data"][0]["b64_json"])?)?.into_rgb8())
    };
    let request = json!({
        "prompt": "a cat", "seed": 5, "steps": 6, "strength": 0.7,
        "image": encoded(&root.join("a.png"))?, "mask": encoded(&root.join("m.png"))?,
    });
    assert!(pixels(&served.post("/v1/images/generations", &request)?.json()?)? == expected);
    let (image, mask) = (std::fs::read(root.join("a.png"))?, std::fs::read(root.join("m.png"))?);
    let form: [(&str, Option<&str>, &[u8]); 6] = [
        ("image", Some("a.png"), &image),
        ("mask", Some("m.png"), &mask),
        ("prompt", None, b"a cat"),
        ("seed", None, b"5"),
        ("steps", None, b"6"),
        ("strength", None, b"0.7"),
    ];
    assert!(pixels(&served.post_form("/v1/images/edits", &form)?.json()?)? == expected);
    // OpenAI's masks: transparent is redrawn.
    let holes =
        image::RgbaImage::from_fn(64, 64, |x, _| image::Rgba([9, 9, 9, if x < 32 { 0 } else { 255 }]));
    holes.save(root.join("h.png"))?;
    let mask = std::fs::read(root.join("h.png"))?;
    let mut form = form;
    form[1].2 = &mask;
    assert!(pixels(&served.post_form("/v1/images/edits", &form)?.json()?)? == expected);
    Ok(())
}

#[test]
fn edits_take_the_options_of_generations() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("a.png");
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([4 * x as u8, 4 * y as u8, 90])).save(&file)?;
    let image = std::fs::read(&file)?;
    let edit = |fields: &[(&str, Option<&str>, &[u8])]| {
        let drawn: [(&str, Option<&str>, &[u8]); 4] = [
            ("image", Some("a.png"), &image),
            ("prompt", None, b"a (red:1.4) cat"),
            ("seed", None, b"5"),
            ("strength", None, b"0.7"),
        ];
        served.post_form("/v1/images/edits", &[&drawn[..], fields].concat())
    };
    let options: [(&str, Option<&str>, &[u8]); 4] = [
        ("steps", None, b"4"),
        ("clip_skip", None, b"1"),
        ("prompt_weights", None, b"true"),
        ("guidance_rescale", None, b"0.5"),
    ];
    let found = edit(&options)?;
    let same = json!({
        "prompt": "a (red:1.4) cat", "image": encoded(&file)?, "seed": 5, "strength": 0.7, "steps": 4,
        "clip_skip": 1, "prompt_weights": true, "guidance_rescale": 0.5,
    });
    let same = served.post("/v1/images/generations", &same)?;
    assert_eq!((found.status, same.status), (200, 200));
    assert_eq!(found.json()?["data"][0]["b64_json"], same.json()?["data"][0]["b64_json"]);
    for (field, value, expected) in [
        ("steps", "many", "expected a whole number"),
        ("prompt_weights", "yes", "expected true or false"),
        ("guidance_rescale", "NaN", "expected 0 to 1"),
    ] {
        let answer = edit(&[(field, None, value.as_bytes())])?;
        let error = answer.json()?["error"].clone();
        let message = error["message"].as_str().unwrap_or_default();
        assert!(answer.status == 400 && error["param"] == field && message.contains(expected), "{error}");
    }
    Ok(())
}

/// The events of a stream: their names and data.
fn events_of(answer: &Answer) -> TestResult<Vec<(String, Value)>> {
    let text = std::str::from_utf8(&answer.body)?;
    let event = |text: &str| {
        let name = text.lines().find_map(|line| line.strip_prefix("event: "))?;
        let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
        Some((name.to_owned(), serde_json::from_str(data).ok()?))
    };
    Ok(text.split("\n\n").filter_map(event).collect())
}

#[test]
fn there_are_no_more_previews_than_can_be_watched() -> TestResult {
    let served = Served::start(&[])?;
    let (steps, images) = (100, 2);
    let request = json!({
        "prompt": "a cat", "seed": 1, "steps": steps, "n": images, "stream": true, "partial_images": 1,
    });
    let start = Instant::now();
    let events = events_of(&served.post("/v1/images/generations", &request)?)?;
    let tenths = start.elapsed().as_millis() as usize / 100;
    let of_kind = |kind: &str| events.iter().filter(|(name, _)| name.ends_with(kind)).count();
    assert_eq!(of_kind("progress"), images * steps);
    // Also the first of the request, and the last of each image.
    let previews = of_kind("partial_image");
    assert!((images..=tenths + 1 + images).contains(&previews), "{previews} in {tenths} tenths of a second");
    let mut next = 0;
    for (place, (name, data)) in events.iter().enumerate() {
        if name.ends_with("partial_image") {
            assert_eq!(data["partial_image_index"], next);
            next += 1;
        } else if name.ends_with("completed") {
            assert!(events[place - 1].0.ends_with("partial_image"), "the last step has a preview");
            next = 0;
        }
    }
    Ok(())
}

#[test]
fn events_tell_of_each_step() -> TestResult {
    let served = Served::start(&[])?;
    let request =
        json!({ "prompt": "a cat", "seed": 1, "steps": 3, "n": 2, "stream": true, "partial_images": 3 });
    let answer = served.post("/v1/images/generations", &request)?;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let events = events_of(&answer)?;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let (step, part) = ("image_generation.progress", "image_generation.partial_image");
    let image = [step, part, step, part, step, part, "image_generation.completed"];
    assert_eq!(names, [image, image].concat());
    let preview = image::load_from_memory(&decoded(&events[1].1["b64_json"])?)?;
    assert!(preview.width() < 64, "one pixel per latent");
    let plain = json!({ "prompt": "a cat", "seed": 1, "steps": 3, "n": 2 });
    let plain = served.post("/v1/images/generations", &plain)?.json()?;
    assert_eq!(events[6].1["b64_json"], plain["data"][0]["b64_json"]);
    assert_eq!((&events[13].1["seed"], &events[13].1["image"]), (&json!(2), &json!(1)));
    // What fails before the first event is an ordinary answer.
    assert_eq!(
        served.post("/v1/images/generations", &json!({ "prompt": "", "stream": true, "n": 0 }))?.status,
        400
    );
    Ok(())
}

#[test]
fn models_are_listed() -> TestResult {
    let served = Served::start(&[])?;
    let list = served.get("/v1/models")?.json()?;
    let model = &list["data"][0];
    assert_eq!((&list["object"], &model["id"]), (&json!("list"), &json!("emoji")));
    assert_eq!(model["capabilities"], json!(["images", "hidden_states", "embeddings"]));
    assert_eq!(
        model["defaults"],
        json!({ "steps": 6, "guidance_scale": 1.5, "width": 64, "height": 64, "scale": 4 })
    );
    assert_eq!(served.get("/v1/models/emoji")?.json()?["id"], "emoji");
    assert_eq!(served.get("/v1/models/BAAI/none")?.status, 404);
    Ok(())
}

#[test]
fn what_openai_calls_compression_is_the_quality_of_a_jpeg() -> TestResult {
    let served = Served::start(&[])?;
    let draw = |more: Value| {
        let mut request = json!({ "prompt": "a cat", "steps": 2, "seed": 1 });
        if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
            request.extend(more.clone());
        }
        served.post("/v1/images/generations", &request)
    };
    let size = |more: Value| -> TestResult<usize> {
        let file = decoded(&draw(more)?.json()?["data"][0]["b64_json"])?;
        assert_eq!(image::guess_format(&file)?, image::ImageFormat::Jpeg);
        Ok(file.len())
    };
    let least = size(json!({ "output_format": "jpeg", "output_compression": 0 }))?;
    let usual = size(json!({ "output_format": "jpeg" }))?;
    let most = size(json!({ "output_format": "jpeg", "output_compression": 100, "background": "opaque" }))?;
    assert!(least < usual && usual < most, "{least} {usual} {most}");
    assert_eq!(draw(json!({ "output_compression": 100, "background": "auto" }))?.status, 200);
    for (more, field) in [
        (json!({ "output_compression": 50 }), "output_compression"),
        (json!({ "output_format": "webp", "output_compression": 50 }), "output_compression"),
        (json!({ "output_format": "jpeg", "output_compression": 101 }), "output_compression"),
        (json!({ "background": "transparent" }), "background"),
    ] {
        let answer = draw(more)?;
        assert_eq!((answer.status, &answer.json()?["error"]["param"]), (400, &json!(field)));
    }
    Ok(())
}
