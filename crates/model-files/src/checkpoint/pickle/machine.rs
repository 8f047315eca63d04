//! Runs a pickle, which is a program for a stack machine, in protocols 0 to 5.
//!
//! Objects live in one list and refer to each other by index, because a pickle can build cycles and nest without
//! limit. So nothing recurses, and memory is bounded by the pickle's length. `pickletools.py` in Python's library
//! documents the operations. [`calls`](super::calls) emulates calls.

use std::collections::HashMap;

use super::calls::{self, Made};
use super::objects::{Node, NodeId, Object, Objects, Storage, node};
use super::reader::{Reader, Result, integer};

/// The limit for objects, and for stack and memo. A checkpoint of a thousand tensors makes about thirty thousand.
const MOST_OBJECTS: usize = 1 << 22;
const NEWEST_PROTOCOL: u8 = 5;

/// The first objects of every list, shared because one of each is enough.
const NONE: NodeId = NodeId(0);
const FALSE: NodeId = NodeId(1);
const TRUE: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const EMPTY_TUPLE: NodeId = NodeId(4);

pub(super) struct Machine<'a> {
    reader: Reader<'a>,
    nodes: Vec<Node<'a>>,
    stack: Vec<NodeId>,
    /// The stack height at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    storages: HashMap<&'a str, Storage<'a>>,
}

impl<'a> Machine<'a> {
    /// Runs the pickle at the start of `bytes`. Also returns its length.
    pub(super) fn run(bytes: &'a [u8]) -> Result<(Objects<'a>, usize)> {
        let fixed =
            vec![Node::None, Node::Bool(false), Node::Bool(true), Node::Other, Node::Tuple(Vec::new())];
        let mut machine = Self {
            reader: Reader::new(bytes),
            nodes: fixed,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: HashMap::new(),
        };
        while machine.step()? {}
        let root = machine.pop()?;
        let objects = Objects { nodes: machine.nodes, root, storages: machine.storages };
        Ok((objects, machine.reader.position))
    }

    /// Executes one operation; false at the end.
    fn step(&mut self) -> Result<bool> {
        let [operation] = self.reader.take()?;
        match operation {
            // STOP
            b'.' => return Ok(false),
            // PROTO
            0x80 => match self.reader.take()? {
                [protocol] if protocol <= NEWEST_PROTOCOL => {}
                [other] => {
                    return Err(format!(
                        "expected a pickle of protocol {NEWEST_PROTOCOL} or older, found {other}"
                    ));
                }
            },
            // FRAME: only relevant when reading streams.
            0x95 => drop(self.reader.take::<8>()?),
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                bounded(self.marks.len())?;
                self.marks.push(self.stack.len());
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.push_id(self.top()?)?,
            // MEMOIZE; BINPUT, LONG_BINPUT, PUT; BINGET, LONG_BINGET, GET
            0x94 => self.remember(u32::try_from(self.memo.len()).unwrap_or(u32::MAX))?,
            b'q' => {
                let [key] = self.reader.take()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.reader.take()?);
                self.remember(key)?;
            }
            b'p' => {
                let key = self.reader.number_line()?;
                self.remember(key)?;
            }
            b'h' => {
                let [key] = self.reader.take()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.reader.take()?);
                self.recall(key)?;
            }
            b'g' => {
                let key = self.reader.number_line()?;
                self.recall(key)?;
            }
            // APPEND, APPENDS, ADDITEMS (of sets), SETITEM, SETITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            // BUILD
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            // REDUCE, NEWOBJ; NEWOBJ_EX, which also has keyword arguments
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?;
            }
            0x92 => {
                let _named = self.pop()?;
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?;
            }
            // INST, OBJ
            b'i' => {
                let global = self.global_lines()?;
                let arguments = self.pop_to_mark()?;
                let (callable, arguments) = (self.add(global)?, self.add(Node::Tuple(arguments))?);
                self.call(callable, arguments)?;
            }
            b'o' => {
                let mut items = self.pop_to_mark()?;
                if items.is_empty() {
                    return Err(empty_stack());
                }
                let callable = items.remove(0);
                let arguments = self.add(Node::Tuple(items))?;
                self.call(callable, arguments)?;
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                match calls::persistent(&self.nodes, id)? {
                    Made::Known(id) => self.push_id(id)?,
                    Made::New(made) => {
                        if let Node::Storage(storage) = &made {
                            self.storages.insert(storage.key, (**storage).clone());
                        }
                        self.push(made)?;
                    }
                }
            }
            // READONLY_BUFFER
            0x98 => drop(self.top()?),
            other => return self.literal(other).map(|()| true),
        }
        Ok(true)
    }

    /// Executes an operation that makes an object from its argument or the stack.
    fn literal(&mut self, operation: u8) -> Result<()> {
        let made = match operation {
            // NONE, NEWTRUE, NEWFALSE, EMPTY_TUPLE, EMPTY_SET
            b'N' => return self.push_id(NONE),
            0x88 => return self.push_id(TRUE),
            0x89 => return self.push_id(FALSE),
            b')' => return self.push_id(EMPTY_TUPLE),
            0x8f => return self.push_id(OTHER),
            // FROZENSET
            0x91 => {
                self.pop_to_mark()?;
                return self.push_id(OTHER);
            }
            // BINFLOAT, FLOAT
            b'G' => {
                self.reader.take::<8>()?;
                return self.push_id(OTHER);
            }
            b'F' => {
                self.reader.line()?;
                return self.push_id(OTHER);
            }
            // BININT, BININT1, BININT2, LONG1, LONG4, INT, LONG
            b'J' => Node::Int(i32::from_le_bytes(self.reader.take()?).into()),
            b'K' => Node::Int(u8::from_le_bytes(self.reader.take()?).into()),
            b'M' => Node::Int(u16::from_le_bytes(self.reader.take()?).into()),
            0x8a => integer(self.reader.counted::<1>()?).map_or(Node::Other, Node::Int),
            0x8b => integer(self.reader.counted::<4>()?).map_or(Node::Other, Node::Int),
            b'I' => match self.reader.text_line()? {
                "00" => return self.push_id(FALSE),
                "01" => return self.push_id(TRUE),
                line => line.parse().map_or(Node::Other, Node::Int),
            },
            b'L' => self.reader.text_line()?.trim_end_matches('L').parse().map_or(Node::Other, Node::Int),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; SHORT_BINSTRING, BINSTRING of Python 2
            0x8c | b'U' => Node::text(self.reader.counted::<1>()?),
            b'X' | b'T' => Node::text(self.reader.counted::<4>()?),
            0x8d => Node::text(self.reader.counted::<8>()?),
            // UNICODE, STRING: may have escapes, but tensor names never do.
            b'V' => Node::line(self.reader.line()?),
            b'S' => Node::quoted(self.reader.line()?),
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => Node::bytes(self.reader.counted::<1>()?),
            b'B' => Node::bytes(self.reader.counted::<4>()?),
            0x8e | 0x96 => Node::bytes(self.reader.counted::<8>()?),
            // EMPTY_LIST, EMPTY_DICT; LIST, DICT, TUPLE; TUPLE1, TUPLE2, TUPLE3
            b']' => Node::List(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b'l' => Node::List(self.pop_to_mark()?),
            b'd' => Node::Dict(pairs(&self.pop_to_mark()?)?),
            b't' => Node::Tuple(self.pop_to_mark()?),
            count @ 0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                Node::Tuple(items)
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => self.global_lines()?,
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Node::Text(module), Node::Text(name)) = (self.node(module), self.node(name)) else {
                    return Err("the pickle names a function by something that is not text".to_owned());
                };
                Node::Global(calls::global(module, name))
            }
            other => return Err(refused_operation(other, self.reader.position.saturating_sub(1))),
        };
        self.push(made)
    }

    /// Emulates a call, if `callable` is a known constructor; otherwise the result is opaque.
    fn call(&mut self, callable: NodeId, arguments: NodeId) -> Result<()> {
        let made_by = match self.node(callable) {
            Node::Global(global) => Some(*global),
            _ => None,
        };
        if let Some(global) = made_by {
            calls::check(global)?;
            if let Some(made) = calls::made(&self.nodes, global, arguments) {
                return match made {
                    Made::Known(id) => self.push_id(id),
                    Made::New(made) => self.push(made),
                };
            }
        }
        self.push(Node::Object(Box::new(Object { made_by, arguments, state: None, entries: Vec::new() })))
    }

    /// Sets the attributes of the object on the stack.
    fn build(&mut self, state: NodeId) -> Result<()> {
        let id = self.top()?;
        let Node::Object(object) = self.node(id) else {
            // Attributes of an OrderedDict of weights are module versions, and those of a tensor its hooks.
            return Ok(());
        };
        let built = calls::built(&self.nodes, object, state);
        match (self.nodes.get_mut(id.0 as usize), built) {
            (Some(place), Some(built)) => *place = built,
            (Some(Node::Object(object)), None) => object.state = Some(state),
            _ => {}
        }
        Ok(())
    }

    fn global_lines(&mut self) -> Result<Node<'a>> {
        let (module, name) = (self.reader.text_line()?, self.reader.text_line()?);
        Ok(Node::Global(calls::global(module, name)))
    }

    fn append(&mut self, items: &[NodeId]) -> Result<()> {
        if let Node::List(list) = self.top_node()? {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[NodeId]) -> Result<()> {
        let pairs = pairs(items)?;
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(pairs),
            Node::Object(object) => object.entries.extend(pairs),
            _ => {}
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        bounded(self.memo.len())?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let id = self.memo.get(&key).copied();
        let id = id.ok_or_else(|| format!("the pickle refers to object {key} before making it"))?;
        self.push_id(id)
    }

    fn add(&mut self, node: Node<'a>) -> Result<NodeId> {
        bounded(self.nodes.len())?;
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| "too many objects".to_owned())?);
        self.nodes.push(node);
        Ok(id)
    }

    fn push(&mut self, node: Node<'a>) -> Result<()> {
        let id = self.add(node)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: NodeId) -> Result<()> {
        bounded(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    fn node(&self, id: NodeId) -> &Node<'a> {
        node(&self.nodes, id)
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
}

fn pairs(items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => Err("a dictionary has a key without a value".to_owned()),
    }
}

fn bounded(count: usize) -> Result<()> {
    if count < MOST_OBJECTS {
        Ok(())
    } else {
        Err(format!("the pickle makes more than {MOST_OBJECTS} objects"))
    }
}

/// Why an operation is not executed.
fn refused_operation(operation: u8, at: usize) -> String {
    let what = match operation {
        b'P' => "PERSID, a storage by a line of text, as protocol 0 has it and torch.load cannot read either",
        0x82..=0x84 => "EXT, an object by a number of a registry that is not in the file",
        0x97 => "NEXT_BUFFER, bytes that are not in the file",
        _ => return format!("operation {operation:#04x} at byte {at} of the pickle is none that Python has"),
    };
    format!("operation {operation:#04x} at byte {at} of the pickle is {what}")
}

fn empty_stack() -> String {
    "the pickle takes more from its stack than it put there".to_owned()
}

#[cfg(test)]
mod tests;
