//! Builds a graph, node by node.
//!
//! A value is known by its name. The nodes compute in f32, whatever the weights are stored in.

use candle_core::{DType, Tensor};

use super::Precision;
use super::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, GraphProto, NodeProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::weights::Weights;
use crate::error::{Error, Result};

/// The input of a text tower, (texts, tokens) i32.
pub(super) const TEXT: &str = "text";
/// The input of an image tower, (images, channels, side, side) f32.
pub(super) const IMAGE: &str = "image";
/// The output of both.
const EMBEDDING: &str = "embedding";
/// The first dimension of inputs and output.
const BATCH: &str = "batch";
/// Elements that are written at a time.
const ELEMENTS_AT_A_TIME: usize = 1 << 20;

/// A tower, as far as it has been built.
pub(crate) struct Graph {
    precision: Precision,
    input: ValueInfoProto,
    output: Option<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    constants: Vec<Constant>,
}

/// A setting of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Setting<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
}

/// A constant of a graph.
pub(super) struct Constant {
    pub name: String,
    pub shape: Vec<usize>,
    pub data_type: DataType,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    /// A weight, transposed if the graph has its columns as rows.
    Weight {
        weights: Weights,
        name: String,
        is_transposed: bool,
    },
}

impl Graph {
    /// A text tower for texts of any length, or of exactly this many tokens.
    pub(crate) fn of_texts(tokens: Option<usize>, precision: Precision) -> Self {
        let tokens = tokens.map_or_else(|| named("tokens"), sized);
        Self::new(value(TEXT, DataType::Int32, vec![named(BATCH), tokens]), precision)
    }

    /// An image tower for images of this many channels and pixels per side.
    pub(crate) fn of_images(channels: usize, side: usize, precision: Precision) -> Self {
        let shape = vec![named(BATCH), sized(channels), sized(side), sized(side)];
        Self::new(value(IMAGE, DataType::Float, shape), precision)
    }

    fn new(input: ValueInfoProto, precision: Precision) -> Self {
        Self { precision, input, output: None, nodes: Vec::new(), constants: Vec::new() }
    }

    /// Adds a node with one result, and returns that.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], settings: &[(&str, Setting)]) -> String {
        let result = format!("{op}_{}", self.nodes.len());
        self.named_node(op, inputs, settings, &result);
        result
    }

    fn named_node(&mut self, op: &str, inputs: &[&str], settings: &[(&str, Setting)], result: &str) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![result.to_owned()],
            name: Some(result.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: settings.iter().map(|&(name, setting)| attribute(name, setting)).collect(),
        });
    }

    /// A weight of this shape, as f32.
    ///
    /// # Errors
    /// If it is missing, or has another shape.
    pub(super) fn weight(&mut self, weights: &Weights, name: &str, shape: &[usize]) -> Result<String> {
        let stored = self.stored(weights, name, shape)?;
        Ok(self.as_f32(stored))
    }

    /// The transposed of a weight of this shape, as f32.
    ///
    /// # Errors
    /// Like [`weight`](Self::weight).
    pub(super) fn transposed(&mut self, weights: &Weights, name: &str, shape: [usize; 2]) -> Result<String> {
        weights.check(name, &shape)?;
        let [rows, columns] = shape;
        let stored = self.add_weight(weights, name, vec![columns, rows], true);
        Ok(self.as_f32(stored))
    }

    /// A weight of this shape, as it is stored in the file.
    ///
    /// # Errors
    /// Like [`weight`](Self::weight).
    fn stored(&mut self, weights: &Weights, name: &str, shape: &[usize]) -> Result<String> {
        weights.check(name, shape)?;
        Ok(self.add_weight(weights, name, shape.to_vec(), false))
    }

    fn add_weight(
        &mut self,
        weights: &Weights,
        name: &str,
        shape: Vec<usize>,
        is_transposed: bool,
    ) -> String {
        let data_type = match self.precision {
            Precision::F32 => DataType::Float,
            Precision::F16 => DataType::Float16,
        };
        let content = Content::Weight { weights: weights.clone(), name: name.to_owned(), is_transposed };
        let name = weights.name(name);
        self.constants.push(Constant { name: name.clone(), shape, data_type, content });
        name
    }

    fn as_f32(&mut self, stored: String) -> String {
        match self.precision {
            Precision::F32 => stored,
            Precision::F16 => self.cast(&stored, DataType::Float),
        }
    }

    /// The rows of a table `name` of this shape that `ids` name, as f32. Only they are converted.
    ///
    /// # Errors
    /// Like [`weight`](Self::weight).
    pub(super) fn rows(
        &mut self,
        weights: &Weights,
        name: &str,
        shape: [usize; 2],
        ids: &str,
    ) -> Result<String> {
        let table = self.stored(weights, name, &shape)?;
        let rows = self.node("Gather", &[&table, ids], &[("axis", Setting::Int(0))]);
        Ok(self.as_f32(rows))
    }

    /// Whole numbers in a row.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        self.small(DataType::Int64, vec![values.len()], values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// One whole number.
    pub(super) fn integer(&mut self, value: i64) -> String {
        self.small(DataType::Int64, Vec::new(), value.to_le_bytes().to_vec())
    }

    /// One number.
    pub(super) fn float(&mut self, value: f32) -> String {
        self.small(DataType::Float, Vec::new(), value.to_le_bytes().to_vec())
    }

    fn small(&mut self, data_type: DataType, shape: Vec<usize>, bytes: Vec<u8>) -> String {
        let name = format!("constant_{}", self.constants.len());
        let content = Content::Bytes(bytes);
        self.constants.push(Constant { name: name.clone(), shape, data_type, content });
        name
    }

    /// Converts elements to another type.
    pub(super) fn cast(&mut self, x: &str, to: DataType) -> String {
        self.node("Cast", &[x], &[("to", Setting::Int(i64::from(to as i32)))])
    }

    /// Ends the graph with `x` (batch, width), each row divided by its length.
    pub(crate) fn finish(mut self, x: &str, width: usize) -> Self {
        let settings = [("axes", Setting::Ints(&[-1])), ("keepdims", Setting::Int(1))];
        let length = self.node("ReduceL2", &[x], &settings);
        self.named_node("Div", &[x, &length], &[], EMBEDDING);
        self.output = Some(value(EMBEDDING, DataType::Float, vec![named(BATCH), sized(width)]));
        self
    }

    /// The graph without its constants, which are written one by one.
    pub(super) fn without_constants(&self) -> GraphProto {
        GraphProto {
            node: self.nodes.clone(),
            name: self.input.name.clone(),
            initializer: Vec::new(),
            input: vec![self.input.clone()],
            output: self.output.iter().cloned().collect(),
        }
    }

    pub(super) fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// The number of constants that are weights.
    pub(super) fn weights(&self) -> usize {
        self.constants.iter().filter(|constant| matches!(constant.content, Content::Weight { .. })).count()
    }
}

impl Constant {
    /// The length of its content, in bytes.
    pub(super) fn byte_length(&self) -> usize {
        let element = match self.data_type {
            DataType::Int64 => 8,
            DataType::Float16 => 2,
            _ => 4,
        };
        self.shape.iter().product::<usize>() * element
    }

    /// Passes its content to `write`, in parts.
    ///
    /// # Errors
    /// If the weight cannot be read, or a number is too large for f16; also those of `write`.
    pub(super) fn content(&self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (weights, name, is_transposed) = match &self.content {
            Content::Bytes(bytes) => return write(bytes),
            Content::Weight { weights, name, is_transposed } => (weights, name, *is_transposed),
        };
        let tensor = weights.read(name)?;
        let tensor = if is_transposed { tensor.t()? } else { tensor };
        let rows = tensor.dim(0)?;
        let at_a_time = (ELEMENTS_AT_A_TIME * rows / tensor.elem_count().max(1)).max(1);
        let mut bytes = Vec::new();
        for first in (0..rows).step_by(at_a_time) {
            let part = tensor.narrow(0, first, at_a_time.min(rows - first))?;
            let part = match self.data_type {
                DataType::Float16 => half(&part, &self.name)?,
                _ => part,
            };
            bytes.clear();
            part.write_bytes(&mut bytes)?;
            write(&bytes)?;
        }
        Ok(())
    }
}

/// Converts numbers to f16.
fn half(x: &Tensor, name: &str) -> Result<Tensor> {
    let largest = |x: &Tensor| x.abs()?.max_all()?.to_scalar::<f32>();
    let converted = x.to_dtype(DType::F16)?;
    if largest(&converted.to_dtype(DType::F32)?)?.is_infinite() {
        let number = largest(x)?;
        return Err(Error::Input(format!("tensor {name} holds {number}, which f16 cannot: use f32")));
    }
    Ok(converted)
}

/// A number for protobuf.
pub(super) fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn sized(size: usize) -> DimensionProto {
    DimensionProto { dim_value: Some(signed(size)), dim_param: None }
}

fn named(name: &str) -> DimensionProto {
    DimensionProto { dim_value: None, dim_param: Some(name.to_owned()) }
}

fn value(name: &str, elements: DataType, dim: Vec<DimensionProto>) -> ValueInfoProto {
    let shape = Some(TensorShapeProto { dim });
    let tensor_type = Some(TensorTypeProto { elem_type: Some(elements as i32), shape });
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type }) }
}

fn attribute(name: &str, setting: Setting) -> AttributeProto {
    let (kind, i, f, ints) = match setting {
        Setting::Int(number) => (AttributeType::Int, Some(number), None, Vec::new()),
        Setting::Float(number) => (AttributeType::Float, None, Some(number), Vec::new()),
        Setting::Ints(numbers) => (AttributeType::Ints, None, None, numbers.to_vec()),
    };
    AttributeProto { name: Some(name.to_owned()), f, i, ints, r#type: Some(kind as i32) }
}
