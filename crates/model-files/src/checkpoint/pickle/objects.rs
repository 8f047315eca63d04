//! Defines the objects that a pickle describes, as far as tensors need them.

use std::collections::HashMap;

use safetensors::Dtype;

/// The index of an object in [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(pub u32);

/// An object. Texts and bytes are borrowed from the pickle.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Bytes(Bytes<'a>),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    /// A Python class or function; only its name is used.
    Global(Global<'a>),
    Storage(Box<Storage<'a>>),
    Tensor(Box<TensorView<'a>>),
    /// A numpy array. It becomes a tensor if one is made from it, or if the file has no other tensors.
    Array(Box<TensorView<'a>>),
    /// A tensor that cannot be read, and why.
    Unreadable(Box<str>),
    Object(Box<Object<'a>>),
    /// A value that is not used for tensors: a float, a set.
    Other,
}

impl<'a> Node<'a> {
    /// A text, or bytes if it is a Python 2 string that is not UTF-8.
    pub(super) fn text(bytes: &'a [u8]) -> Self {
        str::from_utf8(bytes).map_or(Self::bytes(bytes), Self::Text)
    }

    pub(super) fn bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(Bytes { bytes, as_text: false })
    }

    /// A text on its own line. Escapes are kept, since tensor names never need them.
    pub(super) fn line(line: &'a [u8]) -> Self {
        if line.contains(&b'\\') { Self::Other } else { Self::text(line) }
    }

    /// A quoted text on its own line.
    pub(super) fn quoted(line: &'a [u8]) -> Self {
        match line.trim_ascii() {
            [_, text @ .., _] => Self::line(text),
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes<'a> {
    pub bytes: &'a [u8],
    /// Stored as UTF-8 with one character per byte, as in protocols before 3.
    pub as_text: bool,
}

/// `module.name`, with Python 3's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Global<'a> {
    pub module: &'a str,
    pub name: &'a str,
}

/// The result of an unknown call.
#[derive(Debug)]
pub(super) struct Object<'a> {
    /// The function called, and its arguments.
    pub made_by: Option<Global<'a>>,
    pub arguments: NodeId,
    /// Its attributes, if any were set.
    pub state: Option<NodeId>,
    /// Its entries, if it is dictionary-like.
    pub entries: Vec<(NodeId, NodeId)>,
}

/// A block of memory that tensors are views of.
#[derive(Clone, Debug)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub element: Element<'a>,
    /// Its first element; not 0 if it is a view of another storage.
    pub start: usize,
    /// The number of elements from `start` on.
    pub elements: usize,
}

/// The elements of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Number(Dtype),
    /// Bytes, with the type given by the tensor.
    Untyped,
    /// Unsupported elements of `width` bytes; 0 if unknown.
    Other {
        name: &'a str,
        width: usize,
    },
}

impl Element<'_> {
    /// In bytes.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Number(dtype) => dtype.bitsize() / 8,
            Self::Untyped => 1,
            Self::Other { width, .. } => width,
        }
    }
}

/// The parts of a tensor, still unchecked.
#[derive(Clone, Debug)]
pub(super) struct TensorView<'a> {
    pub data: Data<'a>,
    pub dtype: Dtype,
    /// The first element.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// One per dimension, in elements.
    pub strides: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Data<'a> {
    Storage(Storage<'a>),
    /// In the pickle itself.
    Inline {
        bytes: Bytes<'a>,
        big_endian: bool,
    },
}

/// The objects made by a pickle.
pub(super) struct Objects<'a> {
    pub nodes: Vec<Node<'a>>,
    pub root: NodeId,
    /// Storages by key.
    pub storages: HashMap<&'a str, Storage<'a>>,
}

impl<'a> Objects<'a> {
    pub(super) fn node(&self, id: NodeId) -> &Node<'a> {
        node(&self.nodes, id)
    }
}

pub(super) fn node<'n, 'a>(nodes: &'n [Node<'a>], id: NodeId) -> &'n Node<'a> {
    nodes.get(id.0 as usize).unwrap_or(&Node::Other)
}
