//! Reads the header of a safetensors file: eight bytes of length, then JSON with each tensor's type, shape and
//! offsets.
//!
//! By the format's specification, tensors follow each other without gaps or overlaps and fill the file. This is
//! checked per tensor, so that errors can name one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde_json::Value;

use super::element::{ElementType, element_count};
use super::stored::{Listing, StoredTensor};

/// Bytes of the header's length.
const LENGTH: usize = size_of::<u64>();
/// The limit in the format's specification.
const LONGEST_HEADER: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

/// Reads the header, and checks it against the file's length. An error says what is wrong with the file.
pub(super) fn read(file: &[u8]) -> Result<Listing, String> {
    let (length, rest) = file.split_first_chunk::<LENGTH>().ok_or_else(|| {
        format!("expected a safetensors file, found {} bytes, too few for a header", file.len())
    })?;
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(format!(
            "expected a safetensors file, found a header length of {length} bytes, where {LONGEST_HEADER} are allowed"
        ));
    }
    let (header, data) =
        usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)).ok_or_else(|| {
            format!("the file is truncated: its header takes {length} bytes, but only {} follow", rest.len())
        })?;
    let Header(mut tensors) = serde_json::from_slice(header)
        .map_err(|error| format!("expected a safetensors header, found something else: {error}"))?;

    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let data_start = file.len() - data.len();
    let mut end = 0;
    let mut listing = Listing::default();
    for (name, info) in tensors {
        let (from, to) = info.data_offsets;
        if from != end || to < from {
            return Err(format!(
                "tensor {name}: its data_offsets are {:?}, where data that follows what precedes starts at {end}",
                [from, to]
            ));
        }
        end = to;
        let Some(dtype) = info.dtype() else {
            let problem = format!("its elements are of type {}, which is not known", info.dtype);
            listing.unreadable.push((name, problem));
            continue;
        };
        let dtype = ElementType::Plain(dtype);
        let size =
            element_count(&info.shape).and_then(|elements| dtype.bytes_of(elements)).ok_or_else(|| {
                format!("tensor {name}: shape {:?} of {} is no whole number of bytes", info.shape, info.dtype)
            })?;
        if size != to - from {
            return Err(format!(
                "tensor {name}: shape {:?} of {} takes {size} bytes, but its data_offsets {:?} span {}",
                info.shape,
                info.dtype,
                [from, to],
                to - from
            ));
        }
        // Overflow is caught below, when `end` is compared with the length of the data.
        let bytes = data_start.saturating_add(from)..data_start.saturating_add(to);
        listing.tensors.push((name, StoredTensor::plain(dtype, info.shape, bytes)));
    }
    if end > data.len() {
        return Err(format!(
            "the file is truncated: its tensors take {end} bytes, but only {} are there",
            data.len()
        ));
    }
    if end < data.len() {
        return Err(format!("its tensors take {end} bytes, but {} are there", data.len()));
    }
    Ok(listing)
}

/// Whether `file` starts like a safetensors file.
pub(super) fn recognises(file: &[u8]) -> bool {
    let header = file.split_first_chunk::<LENGTH>().filter(|(length, rest)| {
        let length = u64::from_le_bytes(**length);
        length <= LONGEST_HEADER && length <= rest.len() as u64
    });
    header.is_some_and(|(_, rest)| rest.trim_ascii_start().first() == Some(&b'{'))
}

/// The file's metadata as strings; other values as JSON. The header must have been validated.
pub(super) fn metadata(file: &[u8]) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "__metadata__", default)]
        metadata: Value,
    }

    let header = file.split_first_chunk::<LENGTH>().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        serde_json::from_slice::<Metadata>(rest.get(..length)?).ok()
    });
    let Some(Metadata { metadata: Value::Object(entries) }) = header else { return BTreeMap::new() };
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    entries.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// A tensor's entry in the header.
#[derive(PartialEq, Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl TensorInfo {
    /// The element type, if the format has it today.
    fn dtype(&self) -> Option<Dtype> {
        let name: StrDeserializer<'_, serde::de::value::Error> = self.dtype.as_str().into_deserializer();
        Dtype::deserialize(name).ok()
    }
}

/// The tensors in a header. Unlike a `HashMap`, it rejects a name used for two different tensors.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tensor names to their dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                // Some files have null and numbers there, and no tensor needs it.
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map
                .next_value::<TensorInfo>()
                .map_err(|error| A::Error::custom(format!("tensor {name}: {error}")))?;
            // An exact duplicate is harmless.
            if tensors.get(&name).is_some_and(|other| *other != info) {
                return Err(A::Error::custom(format!("tensor {name} comes twice")));
            }
            tensors.insert(name, info);
        }
        Ok(Header(tensors.into_iter().collect()))
    }
}
