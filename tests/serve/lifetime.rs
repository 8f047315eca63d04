//! Tests what happens when clients go, queues are full, and the server ends.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

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
    let body = body.to_string();
    let mut stream = TcpStream::connect(served.address.trim_start_matches("http://"))?;
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
