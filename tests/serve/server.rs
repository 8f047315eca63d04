//! Starts a server for a test, and speaks to it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

use test_support::TestResult;

use crate::common::{altdiffusion, obeying_signals};

/// A server, which ends with the test.
pub struct Served {
    pub address: String,
    pub child: Child,
    agent: Agent,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> TestResult<Value> {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {} {text}", self.status).into())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Served {
    /// Starts a server on a free port.
    pub fn start(options: &[&str]) -> TestResult<Self> {
        Self::start_in(Path::new("."), options, &[])
    }

    /// The same in a directory, with these variables.
    pub fn start_in(directory: &Path, options: &[&str], variables: &[(&str, &str)]) -> TestResult<Self> {
        Self::start_with_log(directory, options, variables, Stdio::null())
    }

    /// The same, with the log in a file.
    pub fn start_logged(log: &Path, options: &[&str], variables: &[(&str, &str)]) -> TestResult<Self> {
        Self::start_with_log(Path::new("."), options, variables, File::create(log)?.into())
    }

    fn start_with_log(
        directory: &Path,
        options: &[&str],
        variables: &[(&str, &str)],
        log: Stdio,
    ) -> TestResult<Self> {
        let mut command = altdiffusion(directory);
        command.args(["serve", "--port", "0", "--json"]).args(options);
        command.envs(variables.iter().copied());
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = obeying_signals(&mut command).spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut address = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(found) = line.trim().strip_prefix("\"address\": \"") {
                address = found.trim_end_matches('"').to_owned();
            }
            if line == "}" {
                break;
            }
        }
        if address.is_empty() {
            return Err("the server did not start".into());
        }
        // A whole image is waited for.
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(300)))
            .build()
            .into();
        Ok(Self { address, child, agent })
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> TestResult<Answer> {
        self.get_with(path, &[])
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> TestResult<Answer> {
        let request = self.agent.get(self.url(path));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        answer(request.call()?)
    }

    /// Asks what the path takes, as browsers do before requests of other pages.
    pub fn options(&self, path: &str, headers: &[(&str, &str)]) -> TestResult<Answer> {
        let request = self.agent.options(self.url(path));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        answer(request.call()?)
    }

    pub fn post(&self, path: &str, body: &Value) -> TestResult<Answer> {
        self.post_with(path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TestResult<Answer> {
        let request = self.agent.post(self.url(path));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        answer(request.send(body)?)
    }

    /// Posts a form of (name, file name, content).
    pub fn post_form(&self, path: &str, fields: &[(&str, Option<&str>, &[u8])]) -> TestResult<Answer> {
        const BOUNDARY: &str = "boundary-of-the-test";
        let mut body = Vec::new();
        for (name, file, content) in fields {
            let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
            let head =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
            body.extend([head.as_bytes(), content, b"\r\n"].concat());
        }
        body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        let form = format!("multipart/form-data; boundary={BOUNDARY}");
        self.post_with(path, &[("content-type", &form)], &body)
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> TestResult<f64> {
        let text = String::from_utf8(self.get("/metrics")?.body)?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        Ok(line.ok_or_else(|| format!("no metric {name} in {text}"))?.parse()?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut response: Response<ureq::Body>) -> TestResult<Answer> {
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let headers = headers.collect();
    let mut body = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut body)?;
    Ok(Answer { status: response.status().as_u16(), headers, body })
}

/// The bytes of base64.
pub fn decoded(value: &Value) -> TestResult<Vec<u8>> {
    Ok(BASE64_STANDARD.decode(value.as_str().ok_or("expected base64")?)?)
}

/// Base64 of a file.
pub fn encoded(path: &Path) -> TestResult<String> {
    Ok(BASE64_STANDARD.encode(std::fs::read(path)?))
}
