//! Tests immich's protocol, byte for byte as its server sends it.

use crate::server::Served;
use test_support::TestResult;

#[test]
fn texts_and_images_get_vectors() -> TestResult {
    let served = Served::start(&[])?;
    assert_eq!(served.get("/ping")?.body, b"pong");
    let textual = r#"{"clip": {"textual": {"modelName": "emoji", "options": {"language": "zh"}}}}"#;
    let answer = served.post_form(
        "/predict",
        &[("entries", None, textual.as_bytes()), ("text", None, "一只猫".as_bytes())],
    )?;
    let answer = answer.json()?;
    let text: Vec<f32> = serde_json::from_str(answer["clip"].as_str().ok_or("no string")?)?;
    assert!((text.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(answer.get("imageHeight").is_none());

    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(80, 60, image::Rgb([200, 30, 30]))
        .write_to(&mut png, image::ImageFormat::Png)?;
    let visual = r#"{"clip": {"visual": {"modelName": "some/emoji", "options": {}}}}"#;
    let form: [(&str, Option<&str>, &[u8]); 2] =
        [("entries", None, visual.as_bytes()), ("image", Some("preview.jpg"), png.get_ref())];
    let answer = served.post_form("/predict", &form)?.json()?;
    let image: Vec<f32> = serde_json::from_str(answer["clip"].as_str().ok_or("no string")?)?;
    assert_eq!(
        (image.len(), &answer["imageHeight"], &answer["imageWidth"]),
        (text.len(), &60.into(), &80.into())
    );
    Ok(())
}

#[test]
fn anything_else_is_refused_by_name() -> TestResult {
    let served = Served::start(&[])?;
    let entries = |entries: &str| {
        served.post_form("/predict", &[("entries", None, entries.as_bytes()), ("text", None, b"x")])
    };
    for (given, status, part) in [
        (r#"{"facial-recognition": {"detection": {"modelName": "buffalo_l"}}}"#, 422, "facial-recognition"),
        (r#"{"clip": {"textual": {"modelName": "ViT-B-32__openai"}}}"#, 404, "expected one of: emoji"),
        (r#"{"clip": {"textual": {}}}"#, 422, "modelName"),
        (r#"{"clip": {"visual": {"modelName": "emoji"}}}"#, 400, "expected an image"),
        (r#"{"clip": {}}"#, 422, "clip.textual"),
        ("[]", 422, "expected JSON"),
        ("", 422, "expected JSON"),
    ] {
        let answer = entries(given)?;
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == status && detail.contains(part), "{given}: {} {detail}", answer.status);
    }
    assert_eq!(served.post_form("/predict", &[("text", None, b"x")])?.status, 422);
    Ok(())
}
