//! The header of a safetensors file: eight bytes of length, then JSON that tells each tensor's type, shape and place.
//!
//! The rules are those of the format's specification: tensors follow each other without gaps or overlaps and fill the
//! file. They are checked here one tensor at a time, because an error should name the tensor.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::StoredTensor;
use super::element::{ElementType, element_count};

/// The bytes that hold the length of the header.
const LENGTH: usize = size_of::<u64>();
/// The limit in the format's specification.
const LONGEST_HEADER: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

/// Reads the header, and checks it against the length of the file. An error is what is wrong with the file.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, StoredTensor)>, String> {
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
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let (from, to) = info.data_offsets;
        if from != end || to < from {
            return Err(format!(
                "tensor {name}: its data_offsets are {:?}, where data that follows what precedes starts at {end}",
                [from, to]
            ));
        }
        let size = byte_size(&info).ok_or_else(|| {
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
        end = to;
        // Whether the sums stay in range is known once `end` is compared with the length of the data, below.
        let bytes = data_start.saturating_add(from)..data_start.saturating_add(to);
        let dtype = ElementType::Plain(info.dtype);
        stored.push((name, StoredTensor { dtype, shape: info.shape, strides: None, bytes }));
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
    Ok(stored)
}

/// What the file says about itself. It has been read once, so that its header is whole.
pub(super) fn metadata(file: &[u8]) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "__metadata__", default)]
        metadata: BTreeMap<String, String>,
    }

    let header = file.split_first_chunk::<LENGTH>().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        serde_json::from_slice::<Metadata>(rest.get(..length)?).ok()
    });
    header.map(|header| header.metadata).unwrap_or_default()
}

/// The bytes that a tensor takes, or `None` if the number overflows or is not whole.
fn byte_size(info: &TensorInfo) -> Option<usize> {
    ElementType::Plain(info.dtype).bytes_of(element_count(&info.shape)?)
}

/// The tensors that a header lists. Unlike a `HashMap`, it refuses a name that comes twice.
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
                map.next_value::<HashMap<String, String>>()?;
                continue;
            }
            let info = map
                .next_value::<TensorInfo>()
                .map_err(|error| A::Error::custom(format!("tensor {name}: {error}")))?;
            if tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor {name} comes twice")));
            }
            tensors.insert(name, info);
        }
        Ok(Header(tensors.into_iter().collect()))
    }
}
