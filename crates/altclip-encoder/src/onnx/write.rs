//! Writes a graph as a file, one constant at a time, so that no more than that is in memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use prost::{Message, encode_length_delimiter, length_delimiter_len};

use super::graph::{Constant, Graph, signed};
use super::proto::{DataLocation, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto};
use crate::error::{Error, Result};

/// The name of the file.
const MODEL: &str = "model.onnx";
/// The name of the file of constants that it has no room for.
const DATA: &str = "model.onnx.data";
/// The version of the format, and that of the operators: the first with layer norms. Both since ONNX 1.12.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
/// Constants in the other file have at least this many bytes, and begin at a multiple of the other number.
const SMALLEST_OUTSIDE: usize = 1024;
const ALIGNMENT: usize = 64;

/// The keys of protobuf fields that have a length: the field's number, and 2.
const INITIALIZER: u8 = (5 << 3) | 2;
const GRAPH: u8 = (7 << 3) | 2;
const RAW_DATA: u8 = (9 << 3) | 2;

/// The length of a field with content of this length.
fn field_length(content: usize) -> usize {
    1 + length_delimiter_len(content) + content
}

/// A constant with its place.
struct Planned<'a> {
    constant: &'a Constant,
    /// Its message without its content.
    header: Vec<u8>,
    /// Where its content begins in the other file, if it is there.
    offset: Option<usize>,
}

impl<'a> Planned<'a> {
    fn new(constant: &'a Constant, offset: Option<usize>) -> Self {
        let entries = |offset: usize| {
            let length = constant.byte_length().to_string();
            [("location", DATA.to_owned()), ("offset", offset.to_string()), ("length", length)]
                .map(|(key, value)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) })
                .to_vec()
        };
        let tensor = TensorProto {
            dims: constant.shape.iter().map(|&size| signed(size)).collect(),
            data_type: Some(constant.data_type as i32),
            name: Some(constant.name.clone()),
            raw_data: None,
            external_data: offset.map(entries).unwrap_or_default(),
            data_location: offset.map(|_| DataLocation::External as i32),
        };
        Self { constant, header: tensor.encode_to_vec(), offset }
    }

    /// All constants in the file itself.
    fn inside(constants: &'a [Constant]) -> Vec<Self> {
        constants.iter().map(|constant| Self::new(constant, None)).collect()
    }

    /// The larger constants in the other file.
    fn outside(constants: &'a [Constant]) -> Vec<Self> {
        let mut end = 0_usize;
        let place = |constant: &'a Constant| {
            let length = constant.byte_length();
            let offset = end.next_multiple_of(ALIGNMENT);
            if length < SMALLEST_OUTSIDE {
                return Self::new(constant, None);
            }
            end = offset + length;
            Self::new(constant, Some(offset))
        };
        constants.iter().map(place).collect()
    }

    /// The length of its message.
    fn length(&self) -> usize {
        let content = match self.offset {
            Some(_) => 0,
            None => field_length(self.constant.byte_length()),
        };
        self.header.len() + content
    }
}

/// Writes `model.onnx` into `folder`, which errors call `shown`. If it would have more than `largest_file` bytes, the
/// larger constants are in `model.onnx.data`. Stops where `on_constant` breaks.
///
/// # Errors
/// If a weight cannot be read, or a file not be written.
pub(super) fn write_model(
    graph: &Graph,
    (folder, shown): (&Path, &Path),
    largest_file: u64,
    mut on_constant: impl FnMut() -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("altdiffusion".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: None,
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
    };
    let (model, nodes) = (model.encode_to_vec(), graph.without_constants().encode_to_vec());
    let graph_length = |plan: &[Planned]| {
        nodes.len() + plan.iter().map(|planned| field_length(planned.length())).sum::<usize>()
    };
    let mut plan = Planned::inside(graph.constants());
    let whole = model.len() + field_length(graph_length(&plan));
    let is_whole = u64::try_from(whole).is_ok_and(|whole| whole <= largest_file);
    if !is_whole {
        plan = Planned::outside(graph.constants());
    }

    let mut file = Output::create(folder, shown, MODEL)?;
    let mut data = if is_whole { None } else { Some(Output::create(folder, shown, DATA)?) };
    file.write(&model)?;
    file.begin_field(GRAPH, graph_length(&plan))?;
    file.write(&nodes)?;
    for planned in &plan {
        file.begin_field(INITIALIZER, planned.length())?;
        file.write(&planned.header)?;
        match (planned.offset, &mut data) {
            (Some(offset), Some(data)) => {
                data.pad_to(offset)?;
                planned.constant.content(|bytes| data.write(bytes))?;
            }
            _ => {
                file.begin_field(RAW_DATA, planned.constant.byte_length())?;
                planned.constant.content(|bytes| file.write(bytes))?;
            }
        }
        if on_constant().is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    for output in [Some(file), data].into_iter().flatten() {
        output.finish()?;
    }
    Ok(ControlFlow::Continue(()))
}

/// A file that is written.
struct Output {
    file: BufWriter<File>,
    /// Its name in errors.
    name: String,
    written: usize,
}

impl Output {
    fn create(folder: &Path, shown: &Path, name: &str) -> Result<Self> {
        let shown = shown.join(name).display().to_string();
        let file = File::create(folder.join(name)).map_err(Error::io(shown.as_str()))?;
        Ok(Self { file: BufWriter::new(file), name: shown, written: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        self.file.write_all(bytes).map_err(Error::io(self.name.as_str()))
    }

    /// Writes the key of a field and the length of its content.
    fn begin_field(&mut self, key: u8, length: usize) -> Result<()> {
        let mut start = vec![key];
        let encoded = encode_length_delimiter(length, &mut start).map_err(io::Error::from);
        encoded.map_err(Error::io(self.name.as_str()))?;
        self.write(&start)
    }

    /// Writes zeros up to this many bytes.
    fn pad_to(&mut self, offset: usize) -> Result<()> {
        self.write(&vec![0; offset.saturating_sub(self.written)])
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(self.name))
    }
}
