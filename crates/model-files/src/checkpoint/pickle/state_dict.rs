//! Finds the named tensors among a pickle's objects.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::objects::{Node, NodeId, Objects, Storage, TensorView};
use super::place::place;
use super::reader::Result;
use crate::checkpoint::stored::Listing;

/// The key under which training frameworks store the weights, beside the optimizer's state and their own.
const STATE_DICT: &str = "state_dict";
/// Where a `torch.nn.Module` keeps its tensors and submodules, under the names of its `state_dict()`.
const MODULE_TABLES: [&str; 3] = ["_parameters", "_buffers", "_modules"];
/// The limit for nested dictionaries.
const DEEPEST: usize = 32;
/// The limit for the names of all tensors together, and the cost per name beside its letters. Dictionaries can
/// contain one another, so a few bytes can name any number of tensors.
const LONGEST_NAMES: usize = 1 << 27;
const COST_OF_ENTRY: usize = 64;

type Entries = [(NodeId, NodeId)];

/// The tensors in the saved object: a dictionary, a module, something with one under `state_dict`, or one tensor, whose
/// name is empty. `locate` finds a storage in the file.
pub(super) fn tensors<'a>(
    file: &[u8],
    objects: &Objects<'a>,
    big_endian: bool,
    locate: impl Fn(&Storage<'a>) -> Result<Range<usize>>,
) -> Result<Listing> {
    let mut tables = tables(objects, objects.root);
    if tables.is_empty() {
        return alone(file, objects, big_endian, locate);
    }
    let weights = tables.iter().flat_map(|table| table.iter()).find_map(|(key, value)| {
        let is_it = matches!(objects.node(*key), Node::Text(STATE_DICT));
        is_it.then(|| self::tables(objects, *value)).filter(|tables| !tables.is_empty())
    });
    tables = weights.unwrap_or(tables);

    let mut search = Search { objects, found: BTreeMap::new(), path: Vec::new(), budget: LONGEST_NAMES };
    tables.iter().try_for_each(|table| search.flatten(table, ""))?;

    let has_tensors = search.found.values().any(|found| matches!(found.value, Value::Tensor(_)));
    let mut listing = Listing::default();
    for (name, found) in search.found {
        let placed = match found.value {
            Value::Tensor(view) => place(file, view, big_endian, &locate),
            // Beside tensors, arrays are a training run's state.
            Value::Array(_) if has_tensors => continue,
            Value::Array(view) => place(file, view, big_endian, &locate),
            Value::Unreadable(problem) => Err(problem),
        };
        match placed {
            Ok(tensor) => listing.tensors.push((name, tensor)),
            Err(problem) => listing.unreadable.push((name, problem)),
        }
    }
    match (listing.tensors.as_slice(), listing.unreadable.first()) {
        ([], Some((name, problem))) => Err(format!("tensor {name}: {problem}")),
        ([], None) => Err("expected a dictionary of tensors, found no tensor in it".to_owned()),
        _ => Ok(listing),
    }
}

/// The tensor that was saved without a dictionary.
fn alone<'a>(
    file: &[u8],
    objects: &Objects<'a>,
    big_endian: bool,
    locate: impl Fn(&Storage<'a>) -> Result<Range<usize>>,
) -> Result<Listing> {
    let is_tensor = |id: &NodeId| matches!(objects.node(*id), Node::Tensor(_));
    match objects.node(objects.root) {
        Node::Tensor(view) => {
            let tensor = place(file, view, big_endian, locate)?;
            Ok(Listing { tensors: vec![(String::new(), tensor)], ..Listing::default() })
        }
        Node::List(items) if items.iter().any(is_tensor) => {
            let problem = "expected a dictionary of tensors, found a list of them, whose layers have no names; the first \
                           program for LoRAs of images (cloneofsimo's) writes such files: expected one that was converted \
                           to .safetensors";
            Err(problem.to_owned())
        }
        _ => Err("expected a dictionary of tensors, found something else".to_owned()),
    }
}

/// The entries of a dictionary, or of a module's tables; none for other objects.
fn tables<'o>(objects: &'o Objects, id: NodeId) -> Vec<&'o Entries> {
    let object = match objects.node(id) {
        Node::Dict(entries) => return vec![entries],
        Node::Object(object) => object,
        _ => return Vec::new(),
    };
    if let Some(Node::Dict(attributes)) = object.state.map(|state| objects.node(state)) {
        let table = |(key, value): &(NodeId, NodeId)| match (objects.node(*key), objects.node(*value)) {
            (Node::Text(key), Node::Dict(entries)) if MODULE_TABLES.contains(key) => Some(entries.as_slice()),
            _ => None,
        };
        let tables: Vec<_> = attributes.iter().filter_map(table).collect();
        if !tables.is_empty() {
            return tables;
        }
    }
    // A dictionary of an unknown class.
    if object.entries.is_empty() { Vec::new() } else { vec![&object.entries] }
}

enum Value<'o, 'a> {
    Tensor(&'o TensorView<'a>),
    Array(&'o TensorView<'a>),
    Unreadable(String),
}

struct NamedValue<'o, 'a> {
    value: Value<'o, 'a>,
    /// The length of the prefix from the enclosing dictionaries.
    prefix: usize,
}

struct Search<'o, 'a> {
    objects: &'o Objects<'a>,
    found: BTreeMap<String, NamedValue<'o, 'a>>,
    /// The chain of objects being searched.
    path: Vec<NodeId>,
    budget: usize,
}

impl<'o, 'a> Search<'o, 'a> {
    fn flatten(&mut self, entries: &'o Entries, prefix: &str) -> Result<()> {
        for (key, id) in entries {
            let Node::Text(key) = self.objects.node(*key) else {
                // An optimizer numbers its parameters; weights have names.
                continue;
            };
            let value = match self.objects.node(*id) {
                Node::Tensor(view) => Value::Tensor(view),
                Node::Array(view) => Value::Array(view),
                Node::Unreadable(problem) => Value::Unreadable(problem.to_string()),
                _ => {
                    let tables = tables(self.objects, *id);
                    if tables.is_empty() || self.path.len() == DEEPEST || self.path.contains(id) {
                        continue;
                    }
                    let prefix = self.name(prefix, key, ".")?;
                    self.path.push(*id);
                    tables.iter().try_for_each(|table| self.flatten(table, &prefix))?;
                    self.path.pop();
                    continue;
                }
            };
            let name = self.name(prefix, key, "")?;
            match self.found.entry(name) {
                // For a repeated key in one dictionary, the later counts.
                Entry::Occupied(mut other) if other.get().prefix == prefix.len() => {
                    other.insert(NamedValue { value, prefix: prefix.len() });
                }
                Entry::Occupied(mut other) => {
                    let problem = "it comes twice, as one name and in dictionaries".to_owned();
                    other.get_mut().value = Value::Unreadable(problem);
                }
                Entry::Vacant(place) => {
                    place.insert(NamedValue { value, prefix: prefix.len() });
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, prefix: &str, key: &str, end: &str) -> Result<String> {
        let name_cost = prefix.len() + key.len() + COST_OF_ENTRY;
        self.budget = self.budget.checked_sub(name_cost).ok_or_else(|| {
            format!("the names in its dictionaries take more than {LONGEST_NAMES} bytes together")
        })?;
        Ok(format!("{prefix}{key}{end}"))
    }
}
