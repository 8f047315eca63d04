//! Emulates the functions that a pickle of tensors calls. They are recognized by name; none is ever called.

use safetensors::Dtype;

use super::names::{numpy_dtype, storage_element, torch_dtype};
use super::objects::{Bytes, Data, Element, Global, Node, NodeId, Object, Storage, TensorView, node};
use super::reader::Result;

/// The most dimensions of a tensor; PyTorch and numpy allow 64.
const MOST_DIMENSIONS: usize = 64;
/// Modules that no weight file needs to call. A file that does is made to harm whoever opens it in Python.
const HARMFUL_MODULES: [&str; 7] = ["os", "posix", "nt", "subprocess", "shutil", "runpy", "pty"];
/// Types in such modules that only hold values.
const HARMLESS: [&str; 7] = [
    "stat_result",
    "statvfs_result",
    "times_result",
    "uname_result",
    "terminal_size",
    "_Environ",
    "CompletedProcess",
];
const HARMFUL_BUILTINS: [&str; 5] = ["eval", "exec", "compile", "open", "__import__"];

/// The result of a call: an existing object, or a new one.
pub(super) enum Made<'a> {
    Known(NodeId),
    New(Node<'a>),
}

/// The name of a class or function in Python 3.
pub(super) fn global<'a>(module: &'a str, name: &'a str) -> Global<'a> {
    let module = match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        other => other,
    };
    Global { module, name }
}

/// Refuses a harmful call.
pub(super) fn check(Global { module, name }: Global) -> Result<()> {
    let is_harmful = match module {
        "builtins" => HARMFUL_BUILTINS.contains(&name),
        _ => HARMFUL_MODULES.contains(&module) && !HARMLESS.contains(&name),
    };
    if is_harmful {
        return Err(format!(
            "the pickle wants to call {module}.{name}, which is refused: no weights need it, and it would do harm in Python"
        ));
    }
    Ok(())
}

/// The result of calling `global`, or `None` if unknown.
pub(super) fn made<'a>(nodes: &[Node<'a>], global: Global, arguments: NodeId) -> Option<Made<'a>> {
    let Node::Tuple(arguments) = node(nodes, arguments) else { return None };
    let is_wrapped = global.module == "torch._tensor" || global.module == "torch.tensor";
    if is_wrapped && global.name.starts_with("_rebuild_from_type") {
        // A tensor subclass: the function, the class, and the function's arguments.
        let &[function, _class, arguments, ..] = arguments.as_slice() else { return None };
        let (Node::Global(function), Node::Tuple(arguments)) =
            (node(nodes, function), node(nodes, arguments))
        else {
            return None;
        };
        return made_of(nodes, *function, arguments);
    }
    made_of(nodes, global, arguments)
}

fn made_of<'a>(nodes: &[Node<'a>], global: Global, arguments: &[NodeId]) -> Option<Made<'a>> {
    let unreadable = |what: &str| Some(Made::New(Node::Unreadable(what.into())));
    match (global.module, global.name, arguments) {
        (
            "torch._utils",
            "_rebuild_tensor" | "_rebuild_tensor_v2",
            &[storage, offset, shape, strides, ..],
        ) => {
            let parts = [storage, offset, shape, strides];
            Some(Made::New(tensor(nodes, parts, None, arguments.get(6))))
        }
        ("torch._utils", "_rebuild_tensor_v3", &[storage, offset, shape, strides, _, _, dtype, ..]) => {
            let parts = [storage, offset, shape, strides];
            Some(Made::New(tensor(nodes, parts, Some(dtype), arguments.get(7))))
        }
        (
            "torch._utils",
            "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor",
            &[tensor, ..],
        )
        | ("torch.nn.parameter", "Parameter" | "Buffer", &[tensor, ..])
        | ("torch.autograd.variable", "Variable", &[tensor, ..]) => match node(nodes, tensor) {
            Node::Tensor(_) | Node::Unreadable(_) => Some(Made::Known(tensor)),
            _ => None,
        },
        ("torch._utils", "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor", &[array, ..]) => {
            match node(nodes, array) {
                Node::Array(view) => Some(Made::New(Node::Tensor(view.clone()))),
                _ => unreadable("it is made of an array of numpy that is not one of numbers"),
            }
        }
        ("torch._utils", "_rebuild_sparse_tensor", _) => unreadable("it is sparse, expected a dense tensor"),
        ("torch._utils", "_rebuild_qtensor", _) => {
            unreadable("it is quantized by PyTorch, expected a tensor of numbers")
        }
        ("torch._utils", "_rebuild_nested_tensor", _) => unreadable("it is nested, expected one tensor"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage", _) => {
            unreadable("it was on the device meta, and its numbers were never saved")
        }
        ("torch._utils", "_rebuild_wrapper_subclass", _) => {
            unreadable("it is of a class that wraps other tensors, expected a tensor of numbers")
        }
        ("collections", "OrderedDict", []) | ("builtins", "dict", []) => {
            Some(Made::New(Node::Dict(Vec::new())))
        }
        // With entries, as in Python 2.
        ("collections", "OrderedDict", &[entries]) => {
            Some(Made::New(Node::Dict(entry_list(nodes, entries)?)))
        }
        ("_codecs", "encode", &[text, encoding]) | ("builtins", "bytearray", &[text, encoding]) => {
            latin_1(nodes, text, encoding)
        }
        ("builtins", "bytes" | "bytearray", []) => {
            Some(Made::New(Node::Bytes(Bytes { bytes: &[], as_text: false })))
        }
        ("builtins", "bytes" | "bytearray", &[bytes]) => match node(nodes, bytes) {
            Node::Bytes(_) => Some(Made::Known(bytes)),
            _ => None,
        },
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer", &[data, dtype, shape, order]) => {
            let is_fortran = matches!(node(nodes, order), Node::Text("F"));
            let shape = sizes(nodes, shape)?;
            Some(Made::New(array(nodes, data, dtype, shape, is_fortran)?))
        }
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar", &[dtype, data]) => {
            Some(Made::New(array(nodes, data, dtype, Vec::new(), false)?))
        }
        _ => None,
    }
}

/// What an opaque object becomes when given attributes, if known.
pub(super) fn built<'a>(nodes: &[Node<'a>], object: &Object<'a>, state: NodeId) -> Option<Node<'a>> {
    let Global { module, name } = object.made_by?;
    let Node::Tuple(state) = node(nodes, state) else { return None };
    match (module, name, state.as_slice()) {
        (
            "numpy.core.multiarray" | "numpy._core.multiarray",
            "_reconstruct",
            &[_, shape, dtype, is_fortran, data],
        ) => {
            let is_fortran = matches!(node(nodes, is_fortran), Node::Bool(true) | Node::Int(1));
            array(nodes, data, dtype, sizes(nodes, shape)?, is_fortran)
        }
        // Tensors of early PyTorch versions.
        ("torch" | "torch.cuda", _, &[storage, offset, shape, strides]) if name.ends_with("Tensor") => {
            Some(tensor(nodes, [storage, offset, shape, strides], None, None))
        }
        _ => None,
    }
}

/// Resolves the persistent id on the stack: a storage, or the class of a module.
///
/// Storages are `("storage", type, key, location, elements)`. The older container adds a view of another storage,
/// which is `None` in all but the oldest files, and also has classes, `("module", class, file, source)`.
pub(super) fn persistent<'a>(nodes: &[Node<'a>], id: NodeId) -> Result<Made<'a>> {
    let unexpected = || "expected the persistent id of a storage, found something else".to_owned();
    let Node::Tuple(parts) = node(nodes, id) else { return Err(unexpected()) };
    match (parts.first().map(|tag| node(nodes, *tag)), parts.as_slice()) {
        (Some(Node::Text("module")), &[_, class, ..]) => Ok(Made::Known(class)),
        (Some(Node::Text("storage")), &[_, kind, key, _location, elements, ref rest @ ..]) => {
            let (Node::Global(kind), Node::Text(key)) = (node(nodes, kind), node(nodes, key)) else {
                return Err(unexpected());
            };
            let element = storage_element(*kind);
            let whole = size(nodes, elements).ok_or_else(unexpected)?;
            let part = rest.first().map(|part| node(nodes, *part));
            let (start, elements) = match part {
                None | Some(Node::None) => (0, whole),
                Some(Node::Tuple(part)) => part_of_storage(nodes, part).ok_or_else(unexpected)?,
                Some(_) => return Err(unexpected()),
            };
            let storage = Storage { key, element, start, elements };
            Ok(Made::New(Node::Storage(Box::new(storage))))
        }
        _ => Err(unexpected()),
    }
}

/// The first element and the number of elements of a view `(key, first, elements)` of a storage.
fn part_of_storage(nodes: &[Node], part: &[NodeId]) -> Option<(usize, usize)> {
    let &[_key_of_part, start, elements] = part else { return None };
    Some((size(nodes, start)?, size(nodes, elements)?))
}

/// A tensor from a storage, an offset, a shape and strides and, for untyped storages, its type.
fn tensor<'a>(
    nodes: &[Node<'a>],
    [storage, offset, shape, strides]: [NodeId; 4],
    dtype: Option<NodeId>,
    metadata: Option<&NodeId>,
) -> Node<'a> {
    let view = || -> Result<TensorView<'a>> {
        let Node::Storage(storage) = node(nodes, storage) else {
            return Err("it is not made of a storage".to_owned());
        };
        let dtype = match (storage.element, dtype.map(|dtype| node(nodes, dtype))) {
            (Element::Number(dtype), None) => dtype,
            (Element::Untyped, None) => Dtype::U8,
            (Element::Untyped, Some(Node::Global(Global { module: "torch", name }))) => torch_dtype(name)
                .ok_or_else(|| format!("its elements are of type torch.{name}, which has no conversion"))?,
            (Element::Other { name, .. }, None) => {
                return Err(format!("its storage is a {name}, which has no conversion"));
            }
            _ => return Err("the type of its elements is not told".to_owned()),
        };
        // Deferred conjugation and negation.
        if let Some(Node::Dict(entries)) = metadata.map(|metadata| node(nodes, *metadata))
            && entries.iter().any(|(_, value)| matches!(node(nodes, *value), Node::Bool(true)))
        {
            return Err("it is the conjugate or the negation of what is stored".to_owned());
        }
        let expected = |what: &str| format!("its {what} cannot be read");
        let offset = size(nodes, offset).ok_or_else(|| expected("offset"))?;
        let shape = sizes(nodes, shape).ok_or_else(|| expected("shape"))?;
        let strides = sizes(nodes, strides).ok_or_else(|| expected("strides"))?;
        if shape.len() != strides.len() {
            return Err(format!("it has {} sizes and {} strides", shape.len(), strides.len()));
        }
        Ok(TensorView { data: Data::Storage((**storage).clone()), dtype, offset, shape, strides })
    };
    match view() {
        Ok(view) => Node::Tensor(Box::new(view)),
        Err(problem) => Node::Unreadable(problem.into()),
    }
}

/// A numpy array, if it holds numbers whose bytes are in the pickle.
fn array<'a>(
    nodes: &[Node<'a>],
    data: NodeId,
    dtype: NodeId,
    shape: Vec<usize>,
    is_fortran: bool,
) -> Option<Node<'a>> {
    let bytes = match node(nodes, data) {
        Node::Bytes(bytes) => *bytes,
        // Python 2 stores bytes only like this.
        Node::Text(text) => Bytes { bytes: text.as_bytes(), as_text: false },
        _ => return None,
    };
    // numpy.dtype("f4", False, True), then (3, "<", …) as attributes.
    let Node::Object(dtype) = node(nodes, dtype) else { return None };
    let Global { module: "numpy", name: "dtype" } = dtype.made_by? else { return None };
    let Node::Tuple(arguments) = node(nodes, dtype.arguments) else { return None };
    let Node::Text(kind) = node(nodes, *arguments.first()?) else { return None };
    let Node::Tuple(state) = node(nodes, dtype.state?) else { return None };
    let big_endian = matches!(node(nodes, *state.get(1)?), Node::Text(">"));
    let dtype = numpy_dtype(kind)?;

    let mut strides = vec![1; shape.len()];
    let mut stride = 1usize;
    for dimension in 0..shape.len() {
        let dimension = if is_fortran { dimension } else { shape.len() - 1 - dimension };
        strides[dimension] = stride;
        stride = stride.checked_mul(shape[dimension].max(1))?;
    }
    let data = Data::Inline { bytes, big_endian };
    Some(Node::Array(Box::new(TensorView { data, dtype, offset: 0, shape, strides })))
}

/// Bytes stored as text, one character each.
fn latin_1<'a>(nodes: &[Node<'a>], text: NodeId, encoding: NodeId) -> Option<Made<'a>> {
    match (node(nodes, text), node(nodes, encoding)) {
        (Node::Text(text), Node::Text("latin1" | "latin-1" | "latin_1" | "iso-8859-1")) => {
            Some(Made::New(Node::Bytes(Bytes { bytes: text.as_bytes(), as_text: true })))
        }
        _ => None,
    }
}

/// The entries of a list of pairs.
fn entry_list(nodes: &[Node], list: NodeId) -> Option<Vec<(NodeId, NodeId)>> {
    let pair = |id: &NodeId| match node(nodes, *id) {
        Node::List(pair) | Node::Tuple(pair) => match pair.as_slice() {
            &[key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    };
    match node(nodes, list) {
        Node::List(pairs) | Node::Tuple(pairs) => pairs.iter().map(pair).collect(),
        Node::Dict(entries) => Some(entries.clone()),
        _ => None,
    }
}

fn size(nodes: &[Node], id: NodeId) -> Option<usize> {
    match node(nodes, id) {
        Node::Int(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

/// A tuple of sizes, or a `torch.Size`.
fn sizes(nodes: &[Node], id: NodeId) -> Option<Vec<usize>> {
    let listed = match node(nodes, id) {
        Node::Object(object) if object.made_by.is_some_and(|by| by.name == "Size") => {
            match node(nodes, object.arguments) {
                Node::Tuple(arguments) => node(nodes, *arguments.first()?),
                _ => return None,
            }
        }
        other => other,
    };
    match listed {
        Node::Tuple(sizes) | Node::List(sizes) if sizes.len() <= MOST_DIMENSIONS => {
            sizes.iter().map(|id| size(nodes, *id)).collect()
        }
        _ => None,
    }
}
