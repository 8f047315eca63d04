//! Holds the objects that a pickle describes, as far as reading tensors needs them.

use std::collections::HashMap;

use safetensors::Dtype;

/// The place of an object in [`Objects`].
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
    /// A class or a function of Python, which is a name here and nothing more.
    Global(Global<'a>),
    Storage(Box<Storage<'a>>),
    Tensor(Box<TensorView<'a>>),
    /// An array of numpy. It becomes a tensor where one is made of it, or where there is no other tensor.
    Array(Box<TensorView<'a>>),
    /// A tensor that is none to read, and why.
    Unreadable(Box<str>),
    Object(Box<Object<'a>>),
    /// A value that no tensor is made of: a float, a set.
    Other,
}

impl<'a> Node<'a> {
    /// A text, or the bytes of one of Python 2 that is none.
    pub(super) fn text(bytes: &'a [u8]) -> Self {
        str::from_utf8(bytes).map_or(Self::bytes(bytes), Self::Text)
    }

    pub(super) fn bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(Bytes { bytes, as_text: false })
    }

    /// A text on a line of its own. What it escapes is not undone: no name of a tensor needs that.
    pub(super) fn line(line: &'a [u8]) -> Self {
        if line.contains(&b'\\') { Self::Other } else { Self::text(line) }
    }

    /// A text between quotes on a line of its own.
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
    /// They are UTF-8 of one character per byte, as protocols before 3 write bytes.
    pub as_text: bool,
}

/// `module.name`, by the names of Python 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Global<'a> {
    pub module: &'a str,
    pub name: &'a str,
}

/// What a call makes of which nothing is known.
#[derive(Debug)]
pub(super) struct Object<'a> {
    /// What was called, and with which arguments.
    pub made_by: Option<Global<'a>>,
    pub arguments: NodeId,
    /// Its attributes, if it was given any.
    pub state: Option<NodeId>,
    /// Its entries, if it is a kind of dictionary.
    pub entries: Vec<(NodeId, NodeId)>,
}

/// A memory area that tensors view parts of.
#[derive(Clone, Debug)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub element: Element<'a>,
    /// The first element that belongs to it; more than 0 where it is a part of another one.
    pub start: usize,
    /// The number of elements from `start` on.
    pub elements: usize,
}

/// What the elements of a storage are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Number(Dtype),
    /// Bytes, whose type the tensor tells.
    Untyped,
    /// Something of `width` bytes that is not read; 0 where that is not known.
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

/// What a tensor is made of. Nothing in it has been checked yet.
#[derive(Clone, Debug)]
pub(super) struct TensorView<'a> {
    pub data: Data<'a>,
    pub dtype: Dtype,
    /// The first element.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// As many as the shape has sizes, in elements.
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

/// The objects that a pickle made.
pub(super) struct Objects<'a> {
    pub nodes: Vec<Node<'a>>,
    pub root: NodeId,
    /// Those that the pickle refers to, by their keys.
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
