//! Tests that bad requests are refused by name, in the form of their interface, and that the server goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::Served;
use test_support::TestResult;

#[test]
fn bad_requests_are_named() -> TestResult {
    let served = Served::start(&["--max-pixels", "1000000", "--max-body", "2000000"])?;
    let bomb = bomb()?;
    let drawing = "/v1/images/generations";
    let cases: [(&str, Value, u16, &str); 36] = [
        (drawing, json!({}), 400, "prompt"),
        (drawing, json!([]), 400, "expected a JSON object"),
        (drawing, json!({ "prompt": 1 }), 400, "prompt"),
        (drawing, json!({ "prompt": "x", "colour": 1 }), 400, "colour"),
        (drawing, json!({ "prompt": "x", "n": 0 }), 400, "n: 0, expected 1 to 16"),
        (drawing, json!({ "prompt": "x", "n": -1 }), 400, "n"),
        (drawing, json!({ "prompt": "x", "steps": 1e9 }), 400, "steps"),
        (drawing, json!({ "prompt": "x", "size": "63x64" }), 400, "size"),
        (drawing, json!({ "prompt": "x", "size": "999999999999999999999x64" }), 400, "size"),
        (drawing, json!({ "prompt": "x", "size": "large" }), 400, "size"),
        (drawing, json!({ "prompt": "x", "scale": 5 }), 400, "scale: 5, expected 1 to 4"),
        (drawing, json!({ "prompt": "x", "scale": 4, "size": "64x1024" }), 400, "at most 2048 pixels"),
        (drawing, json!({ "prompt": "x", "scheduler": "fast" }), 400, "expected one of"),
        (drawing, json!({ "prompt": "x", "guidance_scale": f64::MAX }), 400, "guidance_scale"),
        (drawing, json!({ "prompt": "x", "strength": 0.5 }), 400, "strength"),
        (drawing, json!({ "prompt": "x", "image": "http://127.0.0.1/a.png" }), 400, "URLs are not opened"),
        (drawing, json!({ "prompt": "x", "image": "/etc/passwd" }), 400, "image"),
        (drawing, json!({ "prompt": "x", "image": "AAAA" }), 400, "image"),
        (drawing, json!({ "prompt": "x", "image": bomb }), 413, "9000000 pixels"),
        (drawing, json!({ "prompt": "x", "model": "other" }), 404, "expected one of: emoji"),
        (drawing, json!({ "prompt": "x", "loras": [{ "name": "../x" }] }), 400, "loras"),
        (drawing, json!({ "prompt": "x", "clip_skip": 99 }), 400, "clip skip"),
        (drawing, json!({ "prompt": "x", "response_format": "png" }), 400, "response_format"),
        (drawing, json!({ "prompt": "x".repeat(100_000) }), 413, "prompt"),
        ("/v1/embeddings", json!({ "input": [] }), 400, "input"),
        ("/v1/embeddings", json!({ "input": { "text": "x" } }), 400, "input"),
        ("/v1/embeddings", json!({ "input": [999_999_999] }), 400, "token id"),
        ("/v1/embeddings", json!({ "input": vec![1; 5000] }), 400, "token ids"),
        ("/v1/embeddings", json!({ "input": [[]] }), 400, "0 token ids"),
        // "a", as LangChain sends it by default: ids of OpenAI's tokenizer.
        ("/v1/embeddings", json!({ "input": [[64]] }), 400, "input[0]: token ids that end with 64"),
        ("/v1/embeddings", json!({ "input": vec!["x"; 5000] }), 413, "input"),
        ("/v1/embeddings", json!({ "input": "x", "dimensions": 7 }), 400, "dimensions"),
        ("/v1/embeddings", json!({ "input": "x", "late_chunking": true }), 400, "late_chunking"),
        ("/v1/embeddings", json!({ "input": [{ "image": "AAAA" }] }), 400, "input[0]"),
        (
            "/v1/classify",
            json!({ "images": ["AAAA"], "labels": ["x"], "templates": ["x"] }),
            400,
            "templates[0]",
        ),
        ("/v1/search", json!({ "text": "x" }), 404, "index"),
    ];
    for (path, body, status, part) in cases {
        let text = body.to_string();
        let answer = served.post_with(path, &[("content-type", "application/json")], text.as_bytes())?;
        let error = answer.json()?["error"].clone();
        let message = error["message"].as_str().unwrap_or_default();
        let shown: String = text.chars().take(80).collect();
        assert!(
            answer.status == status && message.contains(part),
            "{path} {shown}: {} {message}",
            answer.status
        );
        assert!(error["type"].is_string() && message.len() < 1000, "{error}");
    }
    for text in
        ["", "{", "NaN", r#"{"prompt": "x", "guidance_scale": NaN}"#, "\"\u{0}\"", &"[".repeat(100_000)]
    {
        let answer = served.post_with(drawing, &[("content-type", "application/json")], text.as_bytes())?;
        assert_eq!(answer.status, 400, "{}", text.len());
    }
    let large = served.post_with(drawing, &[("content-type", "application/json")], &vec![b' '; 3_000_000]);
    // The server may close the connection while the body is still being sent.
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status == 413));
    let compressed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = served.post_with(drawing, &compressed, b"\x1f\x8b\x08")?;
    let error = answer.json()?["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(answer.status == 415 && error.contains("gzip"), "{error}");
    assert_eq!(served.get(drawing)?.status, 405);
    assert_eq!(served.get("/v1/nothing")?.status, 404);
    assert_eq!(served.get("/page/../Cargo.toml")?.status, 404);
    let time = [("content-type", "application/json"), ("x-request-timeout", "soon")];
    assert_eq!(served.post_with(drawing, &time, br#"{"prompt": "x"}"#)?.status, 400);
    assert_eq!(served.get("/health")?.json()?["status"], "ok");
    Ok(())
}

/// A small file of 3 000 × 3 000 pixels.
fn bomb() -> TestResult<String> {
    use base64::Engine;
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(3000, 3000).write_to(&mut png, image::ImageFormat::Png)?;
    Ok(base64::prelude::BASE64_STANDARD.encode(png.get_ref()))
}

/// Clients that speak something else, or slowly, do not hold up others.
#[test]
fn connections_that_do_not_speak_http_are_closed() -> TestResult {
    let served = Served::start(&[])?;
    let address = served.address.trim_start_matches("http://");
    let mut slow = TcpStream::connect(address)?;
    slow.write_all(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n")?;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage",
    ] {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(garbage)?;
        let mut answer = Vec::new();
        // Closed, with or without an answer.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 4096);
    }
    assert_eq!(served.post("/v1/embeddings", &json!({ "input": "x" }))?.status, 200);
    slow.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    Ok(())
}
