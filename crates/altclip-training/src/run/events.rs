//! Writes TensorBoard's event files: TFRecord frames around protocol buffers.
//!
//! The framing is that of `tensorflow/core/lib/io/record_writer.h`; the messages are a subset of
//! `tensorflow/core/util/event.proto` and `tensorflow/core/framework/summary.proto`.

use model_files::write_whole;

use crate::error::{Error, Result};
use prost::Message;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// TensorBoard reads every file with `tfevents` in its name.
const EVENTS_FILE: &str = "events.out.tfevents.run";
/// The version in a file's first event.
const FILE_VERSION: &str = "brain.Event:2";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file, open for appending.
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Opens a folder's event file, truncated to the steps before `step`.
    pub(super) fn open(folder: &Path, step: usize) -> Result<Self> {
        let path = folder.join(EVENTS_FILE);
        let old = if path.exists() { fs::read(&path).map_err(Error::io(&path))? } else { Vec::new() };
        let mut kept = frame(&version_event().encode_to_vec());
        for record in records(&old) {
            let event = Event::decode(record).ok().filter(|event| event.summary.is_some());
            if event.is_some_and(|event| usize::try_from(event.step).is_ok_and(|at| at < step)) {
                kept.extend(frame(record));
            }
        }
        write_whole(&path, |temporary| fs::write(temporary, &kept))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, file })
    }

    /// Appends a step's values.
    pub(super) fn add(&mut self, step: usize, scalars: &[(&str, f64)]) -> Result<()> {
        let value = |&(tag, value): &(&str, f64)| SummaryValue {
            tag: tag.to_owned(),
            simple_value: Some(value as f32),
        };
        let summary = Summary { value: scalars.iter().map(value).collect() };
        let event = Event { wall_time: now(), step: step as i64, file_version: None, summary: Some(summary) };
        self.file.write_all(&frame(&event.encode_to_vec())).map_err(Error::io(&self.path))
    }
}

fn version_event() -> Event {
    Event { wall_time: now(), step: 0, file_version: Some(FILE_VERSION.to_owned()), summary: None }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0., |since| since.as_secs_f64())
}

/// A record: its length, a checksum of that, the data, and a checksum of the data; little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut frame = length.to_vec();
    frame.extend(masked_crc(&length).to_le_bytes());
    frame.extend_from_slice(data);
    frame.extend(masked_crc(data).to_le_bytes());
    frame
}

/// The data of a file's records, up to the first that is damaged or incomplete.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some((record, rest)) = first_record(file) {
        records.push(record);
        file = rest;
    }
    records
}

fn first_record(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*length_crc) != masked_crc(length) {
        return None;
    }
    let (data, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == masked_crc(data)).then_some((data, rest))
}

/// CRC-32C, rotated and offset for TFRecord, so that checksums of data that contains checksums stay useful.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By definition, protocol buffers omit zeros, and write a tag, a length and a text.
    #[test]
    fn frames_are_those_of_tensorflow() {
        let event =
            Event { wall_time: 0., step: 0, file_version: Some(FILE_VERSION.to_owned()), summary: None };
        let data = event.encode_to_vec();
        assert_eq!(data, b"\x1a\x0dbrain.Event:2");
        // CRC-32C's check value (RFC 3720, appendix B.4), and its mask.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
        assert_eq!(records(&frame(&data)), [&data[..]]);
    }

    #[test]
    fn a_file_is_cut_back_and_goes_on() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("."))?;
        let mut file = EventFile::open(folder.path(), 0)?;
        for step in 0..5 {
            file.add(step, &[("loss", step as f64)])?;
        }
        let path = folder.path().join(EVENTS_FILE);
        // Half a record, left by a killed process.
        let mut bytes = fs::read(&path).map_err(Error::io(&path))?;
        bytes.extend_from_slice(&frame(b"more")[..7]);
        fs::write(&path, bytes).map_err(Error::io(&path))?;
        EventFile::open(folder.path(), 3)?.add(3, &[("loss", 30.)])?;
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        let events: Vec<Event> = records(&bytes).into_iter().filter_map(|r| Event::decode(r).ok()).collect();
        let steps: Vec<i64> = events.iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 0, 1, 2, 3]);
        let last = events.last().and_then(|event| event.summary.as_ref()).map(|summary| &summary.value);
        assert_eq!(last.and_then(|value| value.first()?.simple_value), Some(30.));
        Ok(())
    }
}
