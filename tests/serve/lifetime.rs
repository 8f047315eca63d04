//! Tests what happens when clients go, queues are full, and the server ends.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use altdiffusion_server::{EmbeddingModel, Models, Server, ServerOptions};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::server::Served;
use test_support::TestResult;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is` holds.
fn wait_for(mut is: impl FnMut() -> TestResult<bool>) -> TestResult {
    let start = Instant::now();
    while !is()? {
        if start.elapsed() > PATIENCE {
            return Err("waited in vain".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends a request for an image that would take minutes.
fn long_request(served: &Served) -> TestResult<TcpStream> {
    sent(served, "/v1/images/generations", &json!({ "prompt": "a cat", "steps": 200, "n": 16 }))
}

/// Sends a request, and does not wait for the answer.
fn sent(served: &Served, path: &str, body: &Value) -> TestResult<TcpStream> {
    sent_to(served.address.trim_start_matches("http://"), path, body)
}

fn sent_to(address: impl ToSocketAddrs, path: &str, body: &Value) -> TestResult<TcpStream> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    Ok(stream)
}

fn is_drawing(served: &Served) -> TestResult<bool> {
    Ok(served.get("/sdapi/v1/progress")?.json()?["state"]["sampling_step"].as_u64() > Some(0))
}

#[test]
fn clients_that_vanish_leave_no_work() -> TestResult {
    let served = Served::start(&[])?;
    let clients: Vec<TcpStream> = (0..20).map(|_| long_request(&served)).collect::<TestResult<_>>()?;
    wait_for(|| is_drawing(&served))?;
    drop(clients);
    wait_for(|| Ok(served.metric("altdiffusion_cancelled_total")? >= 20.0))?;
    assert!(!is_drawing(&served)?);
    let start = Instant::now();
    assert_eq!(served.post("/v1/images/generations", &json!({ "prompt": "a cat", "steps": 2 }))?.status, 200);
    assert!(start.elapsed() < PATIENCE);
    Ok(())
}

#[test]
fn large_requests_for_vectors_end_with_their_clients() -> TestResult {
    let served = Served::start(&[])?;
    assert_eq!(served.post("/v1/embeddings", &json!({ "input": "x" }))?.status, 200);
    // Seconds of work.
    let texts = vec!["一只猫在红色的沙发上睡觉，".repeat(10); 2048];
    let client = sent(&served, "/v1/embeddings", &json!({ "input": texts }))?;
    let queue = r#"altdiffusion_queue_length{kind="tokens",model="emoji"}"#;
    wait_for(|| Ok(served.metric(queue)? > 0.0))?;
    drop(client);
    wait_for(|| Ok(served.metric("altdiffusion_cancelled_total")? == 1.0))
}

#[test]
fn full_queues_say_when_to_come_again() -> TestResult {
    let served = Served::start(&["--queue-images", "2", "--queue-tokens", "100"])?;
    let running = [long_request(&served)?, long_request(&served)?];
    wait_for(|| is_drawing(&served))?;
    let refused = served.post("/v1/images/generations", &json!({ "prompt": "a cat" }))?;
    let retry: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
    assert!(refused.status == 429 && retry >= 1);
    assert_eq!(refused.json()?["error"]["code"], "queue_full");
    drop(running);
    wait_for(|| {
        Ok(served.post("/v1/images/generations", &json!({ "prompt": "a cat", "steps": 1 }))?.status == 200)
    })?;
    // One request may be larger than the whole queue, but not beside another.
    assert_eq!(served.post("/v1/embeddings", &json!({ "input": vec!["一只猫"; 200] }))?.status, 200);
    Ok(())
}

#[test]
fn late_requests_are_stopped() -> TestResult {
    let served = Served::start(&[])?;
    served.post("/v1/images/generations", &json!({ "prompt": "a cat", "steps": 1 }))?;
    let headers = [("content-type", "application/json"), ("x-request-timeout", "0.3")];
    let body = json!({ "prompt": "a cat", "steps": 200, "n": 16 }).to_string();
    let answer = served.post_with("/v1/images/generations", &headers, body.as_bytes())?;
    assert_eq!(answer.status, 504);
    wait_for(|| Ok(!is_drawing(&served)?))
}

#[cfg(unix)]
#[test]
#[allow(unsafe_code, reason = "a signal to a child process")]
fn the_end_waits_for_what_runs() -> TestResult {
    let mut served = Served::start(&[])?;
    served.post("/v1/images/generations", &json!({ "prompt": "a cat", "steps": 1 }))?;
    let pid = i32::try_from(served.child.id())?;
    let answer = thread::scope(|scope| {
        let body = json!({ "prompt": "a cat", "steps": 60, "seed": 1 });
        let served = &served;
        let drawing = scope
            .spawn(move || served.post("/v1/images/generations", &body).map_err(|error| error.to_string()));
        wait_for(|| is_drawing(served))?;
        // SAFETY: sends a signal to a child of this process.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let answer = drawing.join().map_err(|_| "the request panicked")??;
        Ok::<_, Box<dyn std::error::Error>>(answer)
    })?;
    assert_eq!(answer.status, 200);
    let status = served.child.wait()?;
    assert_eq!(status.code(), Some(0));
    assert!(served.get("/health").is_err());
    Ok(())
}

/// The head's length, and the body's that it announces.
fn announced(answer: &[u8]) -> TestResult<(usize, usize)> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("no head")? + 4;
    let text = String::from_utf8_lossy(&answer[..head]).into_owned();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
    Ok((head, length.parse()?))
}

#[test]
fn answers_that_nobody_takes_are_dropped() -> TestResult {
    let served = Served::start(&["--answer-timeout", "1s", "--max-inputs", "12000"])?;
    // Some 18 MB of answer, more than the system keeps for a client.
    let body = json!({ "input": vec!["x"; 12_000] });
    let mut idle = sent(&served, "/v1/embeddings", &body)?;
    let answered = r#"altdiffusion_requests_total{path="/v1/embeddings",status="200"}"#;
    wait_for(|| Ok(served.metric(answered).is_ok_and(|count| count == 1.0)))?;
    thread::sleep(Duration::from_secs(3));
    idle.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    // The end, or that the connection was reset.
    let _ = idle.read_to_end(&mut answer);
    let (head, length) = announced(&answer)?;
    assert!(answer.len() - head < length, "{length} bytes came");

    // One who reads on has as long as it takes.
    let mut slow = sent(&served, "/v1/embeddings", &body)?;
    slow.set_read_timeout(Some(PATIENCE))?;
    let (mut answer, mut bytes) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        match slow.read(&mut bytes)? {
            0 => return Err("the answer broke off".into()),
            count => answer.extend(&bytes[..count]),
        }
        let (head, length) = announced(&answer)?;
        if answer.len() == head + length {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn streams_that_wait_for_work_are_kept() -> TestResult {
    let served = Served::start(&["--answer-timeout", "200ms"])?;
    let running = long_request(&served)?;
    wait_for(|| is_drawing(&served))?;
    let body = json!({ "prompt": "a cat", "steps": 1, "stream": true });
    let mut waiting = sent(&served, "/v1/images/generations", &body)?;
    thread::sleep(Duration::from_secs(2));
    drop(running);
    waiting.set_read_timeout(Some(PATIENCE))?;
    let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&answer).contains("image_generation.completed") {
        match waiting.read(&mut bytes)? {
            0 => return Err("the stream broke off".into()),
            count => answer.extend(&bytes[..count]),
        }
    }
    Ok(())
}

/// Clients keep connections for a while, and a request on one that the server closes meanwhile fails.
#[test]
fn idle_connections_live_longer_than_heads_may_take() -> TestResult {
    let served = Served::start(&[])?;
    let mut stream = TcpStream::connect(served.address.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; 4096];
    for pause in [11, 0] {
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let count = stream.read(&mut bytes)?;
        let answer = String::from_utf8_lossy(&bytes[..count]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        thread::sleep(Duration::from_secs(pause));
    }
    stream.write_all(b"GET /health HTTP/1.1\r\n")?;
    let begun = Instant::now();
    // Closed, with or without an answer.
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    Ok(())
}

/// A model that could not be loaded at the start is tried again for a request, but not for one whose client has gone.
#[test]
fn nothing_is_loaded_for_clients_that_have_gone() -> TestResult {
    let ((started, starts), (allow, allowed)) = (channel(), channel::<()>());
    let allowed = Mutex::new(allowed);
    let load = move || {
        let _ = started.send(());
        if let Ok(allowed) = allowed.lock() {
            let _ = allowed.recv();
        }
        Err(altclip_encoder::Error::Input("a model for a test".to_owned()))
    };
    let mut options = ServerOptions::default();
    options.address.set_port(0);
    options.preload = true;
    let server = Server::bind(Models::new().embedding_model(EmbeddingModel::new("test", load)), options)?;
    let address = server.address();
    thread::spawn(move || {
        let _ = server.run(std::future::pending());
    });
    starts.recv_timeout(PATIENCE)?;
    let text = json!({ "input": "a cat" });
    let gone = [
        sent_to(address, "/v1/embeddings", &text)?,
        sent_to(address, "/v1/similarity", &json!({ "texts": ["a cat"], "images": [encoded_pixel()?] }))?,
    ];
    thread::sleep(Duration::from_secs(1));
    drop(gone);
    thread::sleep(Duration::from_secs(1));
    allow.send(())?;
    assert!(starts.recv_timeout(Duration::from_secs(1)).is_err());
    let mut waiting = sent_to(address, "/v1/embeddings", &text)?;
    starts.recv_timeout(PATIENCE)?;
    allow.send(())?;
    waiting.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; 12];
    waiting.read_exact(&mut bytes)?;
    assert_eq!(String::from_utf8_lossy(&bytes), "HTTP/1.1 400");
    Ok(())
}

fn encoded_pixel() -> TestResult<String> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(1, 1).write_to(&mut png, image::ImageFormat::Png)?;
    Ok(BASE64_STANDARD.encode(png.get_ref()))
}

/// Clients that send one request after the other never meet their last one in a queue.
#[test]
fn places_are_free_before_answers_come() -> TestResult {
    let served = Served::start(&["--queue-images", "1", "--queue-tokens", "1"])?;
    let compared = json!({ "texts": ["a cat"], "images": [encoded_pixel()?] });
    for _ in 0..50 {
        let refused = json!({ "prompt": "a cat", "clip_skip": 99 });
        assert_eq!(served.post("/v1/images/generations", &refused)?.status, 400);
        assert_eq!(served.post("/v1/similarity", &compared)?.status, 200);
    }
    Ok(())
}
