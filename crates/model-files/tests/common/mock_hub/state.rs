//! Holds what a mock hub serves, how it answers, and what it was asked.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use super::manner::{Fault, Manner};
use super::request::Request;

pub struct State {
    pub root: PathBuf,
    pub port: u16,
    pub scheme: &'static str,
    pub manner: Mutex<Manner>,
    pub faults: Mutex<VecDeque<Fault>>,
    pub requests: Mutex<Vec<Request>>,
    /// The required header, such as `Bearer hf_right`.
    pub authorization: Mutex<Option<String>>,
}

impl State {
    /// The commit of a branch, a tag, or a commit's prefix.
    pub fn commit(&self, repository: &str, revision: &str) -> Option<String> {
        let refs = fs::read(self.root.join("refs.json")).unwrap_or_default();
        let refs: serde_json::Value = serde_json::from_slice(&refs).unwrap_or_default();
        if let Some(commit) = refs[repository][revision].as_str() {
            return Some(commit.to_owned());
        }
        let names = fs::read_dir(self.root.join(repository)).ok()?.flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).find(|name| name.starts_with(revision))
    }
}
