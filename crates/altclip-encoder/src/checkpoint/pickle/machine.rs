//! The stack machine that a pickle is a program for, with no more operations than `torch.save` emits (protocol 2).
//!
//! Objects live in one list and refer to each other by their places in it, because a pickle can build cycles and nest
//! without bound; so nothing here recurses, and memory grows no faster than the pickle is long. For the operations see
//! `pickletools.py` in Python's library.

use std::collections::HashMap;

use safetensors::Dtype;

use super::Result;

/// The most objects that a pickle may make. A checkpoint of a thousand tensors makes about thirty thousand.
const MOST_OBJECTS: usize = 1 << 20;
/// The most dimensions that a tensor may have.
const MOST_DIMENSIONS: usize = 16;
const PROTOCOL: u8 = 2;

/// The place of an object in [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

/// An object, as far as reading tensors needs it. Text is borrowed from the pickle.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Int(i64),
    Text(&'a str),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(Box<TensorView<'a>>),
    /// A value that no tensor is made of: a float, a boolean, something of a training framework.
    Other,
}

/// A memory area that tensors view parts of.
#[derive(Clone, Debug)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub dtype: Dtype,
    pub elements: usize,
}

/// What `torch._utils._rebuild_tensor_v2` is called with. Nothing in it has been checked yet.
#[derive(Clone, Debug)]
pub(super) struct TensorView<'a> {
    pub storage: Storage<'a>,
    /// The first element in the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// As many as the shape has sizes.
    pub strides: Vec<usize>,
}

/// The names that a pickle may refer to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    StorageType(Dtype),
    /// Found beside the weights in checkpoints of a training run. What it makes is ignored.
    Ignored,
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        let global = match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "DoubleStorage") => Self::StorageType(Dtype::F64),
            ("torch", "FloatStorage") => Self::StorageType(Dtype::F32),
            ("torch", "HalfStorage") => Self::StorageType(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::StorageType(Dtype::BF16),
            ("torch", "LongStorage") => Self::StorageType(Dtype::I64),
            ("torch", "IntStorage") => Self::StorageType(Dtype::I32),
            ("torch", "ShortStorage") => Self::StorageType(Dtype::I16),
            ("torch", "CharStorage") => Self::StorageType(Dtype::I8),
            ("torch", "ByteStorage") => Self::StorageType(Dtype::U8),
            ("torch", "BoolStorage") => Self::StorageType(Dtype::BOOL),
            ("torch", "Size" | "device" | "float32" | "float16" | "bfloat16" | "int64")
            | ("argparse", "Namespace")
            | ("_codecs", "encode") => Self::Ignored,
            _ => match module.split('.').next() {
                Some("pytorch_lightning" | "lightning" | "lightning_fabric" | "numpy") => Self::Ignored,
                _ => return None,
            },
        };
        Some(global)
    }
}

/// The objects that a pickle made.
pub(super) struct Objects<'a> {
    nodes: Vec<Node<'a>>,
    root: NodeId,
    storages: HashMap<&'a str, Storage<'a>>,
}

impl<'a> Objects<'a> {
    /// The object that was saved.
    pub(super) fn root(&self) -> &Node<'a> {
        self.node(self.root)
    }

    pub(super) fn node(&self, id: NodeId) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::Other)
    }

    /// The storage of this key, if the pickle refers to it.
    pub(super) fn storage(&self, key: &str) -> Option<&Storage<'a>> {
        self.storages.get(key)
    }
}

pub(super) struct Machine<'a> {
    pickle: &'a [u8],
    position: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<NodeId>,
    /// How high the stack was at each mark that is still open.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    storages: HashMap<&'a str, Storage<'a>>,
}

impl<'a> Machine<'a> {
    /// Runs the pickle that `bytes` starts with. Also returns how long it is.
    pub(super) fn run(bytes: &'a [u8]) -> Result<(Objects<'a>, usize)> {
        let mut machine = Self {
            pickle: bytes,
            position: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: HashMap::new(),
        };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok((Objects { nodes: machine.nodes, root, storages: machine.storages }, machine.position))
    }

    /// Executes one operation. Whether there are more.
    fn step(&mut self) -> Result<bool> {
        let [operation] = self.take()?;
        match operation {
            // PROTO
            0x80 => match self.take()? {
                [PROTOCOL] => {}
                [other] => {
                    return Err(format!(
                        "expected pickle protocol {PROTOCOL}, which torch.save uses, found {other}"
                    ));
                }
            },
            // STOP
            b'.' => return Ok(false),
            // MARK
            b'(' => self.marks.push(self.stack.len()),
            // NONE
            b'N' => self.push(Node::None)?,
            // NEWTRUE, NEWFALSE
            0x88 | 0x89 => self.push(Node::Other)?,
            // BININT
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Node::Int(value.into()))?;
            }
            // BININT1
            b'K' => {
                let [value] = self.take()?;
                self.push(Node::Int(value.into()))?;
            }
            // BININT2
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Node::Int(value.into()))?;
            }
            // LONG1
            0x8a => {
                let [length] = self.take()?;
                let node = integer(self.take_slice(length.into())?).map_or(Node::Other, Node::Int);
                self.push(node)?;
            }
            // BINFLOAT
            b'G' => {
                self.take::<8>()?;
                self.push(Node::Other)?;
            }
            // BINUNICODE
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                let text = self.take_text(length as usize)?;
                self.push(Node::Text(text))?;
            }
            // SHORT_BINSTRING, BINSTRING: text of Python 2, of which torch's own names are ASCII.
            b'U' => {
                let [length] = self.take()?;
                let text = self.take_text(length.into())?;
                self.push(Node::Text(text))?;
            }
            b'T' => {
                let length = u32::from_le_bytes(self.take()?);
                let text = self.take_text(length as usize)?;
                self.push(Node::Text(text))?;
            }
            // EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            // TUPLE
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            // TUPLE1, TUPLE2, TUPLE3
            count @ 0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Tuple(items))?;
            }
            // APPEND, APPENDS
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            // BUILD gives an object its attributes. Those of an OrderedDict of weights are versions of its modules.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            // BINPUT, LONG_BINPUT
            b'q' => {
                let [key] = self.take()?;
                self.memo.insert(key.into(), self.top()?);
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
                self.memo.insert(key, self.top()?);
            }
            // BINGET, LONG_BINGET
            b'h' => {
                let [key] = self.take()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            // GLOBAL
            b'c' => {
                let (module, name) = (self.take_line()?, self.take_line()?);
                let global = Global::find(module, name).ok_or_else(|| refusal(module, name))?;
                self.push(Node::Global(global))?;
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Node::Storage(storage))?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?;
            }
            other => {
                let at = self.position - 1;
                return Err(format!(
                    "operation {other:#04x} at byte {at} of the pickle is not one that torch.save writes"
                ));
            }
        }
        Ok(true)
    }

    /// Does what calling `callable` would do, if it is one of the known constructors.
    fn call(&mut self, callable: NodeId, arguments: NodeId) -> Result<()> {
        let Node::Global(global) = *self.node(callable) else {
            return Err("the pickle calls something that is not a function".to_owned());
        };
        let Node::Tuple(arguments) = self.node(arguments) else {
            return Err("the pickle calls a function without a tuple of arguments".to_owned());
        };
        match (global, arguments.as_slice()) {
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                let view = self.tensor(storage, offset, shape, strides)?;
                self.push(Node::Tensor(Box::new(view)))
            }
            (Global::RebuildParameter, &[tensor, ..]) if matches!(self.node(tensor), Node::Tensor(_)) => {
                self.stack.push(tensor);
                Ok(())
            }
            (Global::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Global::Ignored, _) => self.push(Node::Other),
            (global, _) => {
                Err(format!("the pickle calls {global:?} with other arguments than torch.save does"))
            }
        }
    }

    fn tensor(
        &self,
        storage: NodeId,
        offset: NodeId,
        shape: NodeId,
        strides: NodeId,
    ) -> Result<TensorView<'a>> {
        let Node::Storage(storage) = self.node(storage) else {
            return Err("a tensor is not made of a storage".to_owned());
        };
        let (offset, shape, strides) = (self.size(offset)?, self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor has {} sizes and {} strides", shape.len(), strides.len()));
        }
        Ok(TensorView { storage: storage.clone(), offset, shape, strides })
    }

    /// The storage that the persistent id `("storage", type, key, location, elements)` stands for. The older container
    /// adds what part of another storage it is, which is `None` in all but the oldest files.
    fn storage(&mut self, id: NodeId) -> Result<Storage<'a>> {
        let unexpected = || "expected the persistent id of a storage, found something else".to_owned();
        let Node::Tuple(parts) = self.node(id) else { return Err(unexpected()) };
        let (&[tag, kind, key, _location, elements] | &[tag, kind, key, _location, elements, _]) =
            parts.as_slice()
        else {
            return Err(unexpected());
        };
        if let Some(view) = parts.get(5)
            && !matches!(self.node(*view), Node::None)
        {
            return Err("a storage is a part of another one, which is not supported (saving it again helps)"
                .to_owned());
        }
        let (Node::Text("storage"), Node::Global(Global::StorageType(dtype)), Node::Text(key)) =
            (self.node(tag), self.node(kind), self.node(key))
        else {
            return Err(unexpected());
        };
        let storage = Storage { key, dtype: *dtype, elements: self.size(elements)? };
        self.storages.insert(storage.key, storage.clone());
        Ok(storage)
    }

    fn size(&self, id: NodeId) -> Result<usize> {
        match self.node(id) {
            Node::Int(value) => {
                usize::try_from(*value).map_err(|_| format!("expected a size, found {value}"))
            }
            _ => Err("expected a size, found something that is not a number".to_owned()),
        }
    }

    fn sizes(&self, id: NodeId) -> Result<Vec<usize>> {
        let Node::Tuple(sizes) = self.node(id) else {
            return Err("expected a tuple of sizes, found something else".to_owned());
        };
        sizes.iter().map(|size| self.size(*size)).collect()
    }

    fn append(&mut self, items: &[NodeId]) -> Result<()> {
        if let Node::List(list) = self.top_node()? {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[NodeId]) -> Result<()> {
        let (pairs, []) = items.as_chunks() else {
            return Err("a dictionary has a key without a value".to_owned());
        };
        if let Node::Dict(dict) = self.top_node()? {
            dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let id = self
            .memo
            .get(&key)
            .ok_or_else(|| format!("the pickle refers to object {key} before making it"))?;
        self.stack.push(*id);
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) -> Result<()> {
        if self.nodes.len() >= MOST_OBJECTS {
            return Err(format!("the pickle makes more than {MOST_OBJECTS} objects"));
        }
        self.stack.push(NodeId(self.nodes.len() as u32));
        self.nodes.push(node);
        Ok(())
    }

    fn node(&self, id: NodeId) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::Other)
    }

    fn top(&self) -> Result<NodeId> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[NodeId]>::last).copied().ok_or_else(empty_stack)
    }

    fn top_node(&mut self) -> Result<&mut Node<'a>> {
        let id = self.top()?;
        self.nodes.get_mut(id.0 as usize).ok_or_else(empty_stack)
    }

    fn pop(&mut self) -> Result<NodeId> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<NodeId>> {
        // The stack never shrinks below its last mark, so the split is in range.
        let mark = self.marks.pop().ok_or_else(empty_stack)?;
        Ok(self.stack.split_off(mark))
    }

    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let rest = self.pickle.get(self.position..).unwrap_or_default();
        let bytes = rest.first_chunk().ok_or_else(truncated)?;
        self.position += LENGTH;
        Ok(*bytes)
    }

    fn take_slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = self.pickle.get(self.position..).unwrap_or_default();
        let (bytes, _) = rest.split_at_checked(length).ok_or_else(truncated)?;
        self.position += length;
        Ok(bytes)
    }

    fn take_text(&mut self, length: usize) -> Result<&'a str> {
        std::str::from_utf8(self.take_slice(length)?)
            .map_err(|error| format!("a name in the pickle is not text: {error}"))
    }

    /// The text up to the end of the line, which is stepped over.
    fn take_line(&mut self) -> Result<&'a str> {
        let rest = self.pickle.get(self.position..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(truncated)?;
        let line = self.take_text(length)?;
        self.position += 1;
        Ok(line)
    }
}

/// A little-endian number in two's complement of any length, if it fits.
fn integer(bytes: &[u8]) -> Option<i64> {
    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut extended = [sign; size_of::<i64>()];
    extended.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(extended))
}

fn refusal(module: &str, name: &str) -> String {
    format!(
        "the pickle wants to call {module}.{name}, which is refused: only tensors are read, and nothing is executed"
    )
}

fn truncated() -> String {
    "the pickle is truncated".to_owned()
}

fn empty_stack() -> String {
    "the pickle takes more from its stack than it put there".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(pickle: &[u8]) -> String {
        Machine::run(pickle).map(|_| ()).unwrap_err()
    }

    #[test]
    fn dictionaries_filled_after_they_were_memoised_are_one_object() {
        // {"a": d, "b": d} with d = {"c": 1}
        let pickle =
            b"\x80\x02}q\x00(X\x01\x00\x00\x00a}q\x01X\x01\x00\x00\x00cK\x01sX\x01\x00\x00\x00bh\x01u.";
        let (objects, length) = Machine::run(pickle).unwrap();
        assert_eq!(length, pickle.len());
        let Node::Dict(entries) = objects.root() else { panic!("{:?}", objects.root()) };
        let [(_, first), (_, second)] = entries[..] else { panic!("{entries:?}") };
        assert_eq!(first, second);
        let Node::Dict(inner) = objects.node(first) else { panic!() };
        assert!(matches!(objects.node(inner[0].1), Node::Int(1)));
    }

    #[test]
    fn unknown_functions_are_refused_by_name() {
        let error = error_of(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.");
        assert!(error.contains("posix.system"), "{error}");
    }

    #[test]
    fn broken_programs_end_in_an_error() {
        for pickle in [
            &b""[..],
            b"\x80",
            b"\x80\x02",
            b"\x80\x02.",
            b"\x80\x02t.",
            b"\x80\x02h\x05.",
            b"\x80\x02NR.",
            b"\x80\x02(0.",
            b"\x80\x02X\xff\xff\xff\xffabc.",
            b"\x80\x02X\x01\x00\x00\x00\xff.",
            b"\x80\x02(\x85.",
            b"\x80\x02}(Nu.",
            b"\x80\x02ctorch",
            b"\x80\x02NQ.",
            b"\x80\x04N.",
        ] {
            error_of(pickle);
        }
    }

    #[test]
    fn long_numbers_are_read_in_twos_complement() {
        assert_eq!(integer(&[]), Some(0));
        assert_eq!(integer(&[0xff]), Some(-1));
        assert_eq!(integer(&[0x00, 0x80, 0x00]), Some(0x8000));
        assert_eq!(integer(&[0xff; 10]), None);
    }
}
