//! Tests the log, which programs read.

use std::fs;

use serde_json::{Value, json};

use test_support::TestResult;

use crate::common::EMOJI;
use crate::server::Served;

/// The name could turn the text of a terminal around; and in a Chinese locale, messages are translated elsewhere.
#[test]
fn each_line_of_a_json_log_is_json_in_any_locale() -> TestResult {
    const NAME: &str = "\u{202e}emoji";
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    let embedder = format!("{NAME}={EMOJI}");
    let options = ["--embedder", embedder.as_str(), "--log-format", "json"];
    let served = Served::start_logged(&log, &options, &[("LC_ALL", "zh_CN.UTF-8")])?;
    assert_eq!(served.post("/v1/embeddings", &json!({ "input": "a cat" }))?.status, 200);
    let refused = json!({ "input": "a cat", "model": "error: left out: a.png" });
    assert_eq!(served.post("/v1/embeddings", &refused)?.status, 404);
    drop(served);
    let lines = fs::read_to_string(&log)?;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}").into()))
        .collect::<TestResult<_>>()?;
    let loaded = lines.iter().find(|line| line["message"] == "loaded").ok_or("no line about loading")?;
    assert_eq!(loaded["model"], NAME);
    let answered = lines.iter().filter(|line| line["message"] == "answered");
    assert_eq!(answered.map(|line| &line["status"]).collect::<Vec<_>>(), [&json!(200), &json!(404)]);
    let problem = lines.iter().find_map(|line| line["problem"].as_str()).ok_or("no problem")?;
    assert!(problem.starts_with("no embedding model \"error: left out: a.png\" here"), "{problem}");
    Ok(())
}
