//! Records what a model asks its checkpoints for, by loading it without reading weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Records which tensors the loading of a model asks for, and with which shapes.
///
/// A model loaded from [`ModelSource::surveyed`](crate::source::ModelSource::surveyed) gets placeholders without
/// memory instead of weights, so this is fast for any size. Such a model cannot compute.
#[derive(Clone, Default)]
pub struct Survey(Arc<Mutex<BTreeMap<(Folder, FileName), Watched>>>);

type Folder = String;
/// Several parts can share a file.
type FileName = String;

/// The content of a checkpoint, compared with what loading asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// The folder in the model, "" for its root.
    pub folder: String,
    /// The file, or the index of the shards.
    pub file: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Values in all tensors together.
    pub parameters: u64,
    /// Bytes of all tensors together in the files.
    pub bytes: u64,
    /// The number of tensors of each type, by safetensors' name for it.
    pub dtypes: BTreeMap<String, usize>,
    /// Tensors asked for but missing.
    pub missing: Vec<Missing>,
    /// Tensors with another shape.
    pub misshapen: Vec<Misshapen>,
    /// Tensors asked for that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Names of tensors that were not asked for.
    pub unexpected: Vec<String>,
}

/// A missing tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The expected shape.
    pub expected: Vec<usize>,
}

/// A tensor of another shape than the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// The expected shape.
    pub expected: Vec<usize>,
    /// Its shape in the file.
    pub found: Vec<usize>,
}

/// A tensor that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name.
    pub name: String,
    /// Why, such as an element type without conversion.
    pub problem: String,
}

impl Survey {
    /// Starts recording for a checkpoint, described by `contents`; if it was opened before, continues its record.
    pub(crate) fn watch(&self, folder: &str, file: &str, contents: impl FnOnce() -> Watched) -> Watched {
        lock(&self.0).entry((folder.to_owned(), file.to_owned())).or_insert_with(contents).clone()
    }

    /// The findings so far, a report per checkpoint.
    pub fn reports(&self) -> Vec<PartReport> {
        lock(&self.0).values().map(Watched::report).collect()
    }
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

/// An opened checkpoint: its content, and what was asked of it.
#[derive(Clone)]
pub(crate) struct Watched {
    /// The report if nothing was asked for; all tensors are unexpected.
    contents: Arc<PartReport>,
    /// By requested name.
    questions: Arc<Mutex<BTreeMap<String, Question>>>,
}

/// A requested tensor.
pub(crate) struct Question {
    /// The expected shape.
    pub expected: Vec<usize>,
    pub answer: Availability,
}

/// What the checkpoint has for a request.
pub(crate) enum Availability {
    Missing,
    /// A tensor of this name and shape in the file.
    Found {
        stored: String,
        shape: Vec<usize>,
    },
    /// One that cannot be read; the file may not list it among its tensors.
    Unreadable {
        stored: Option<String>,
        problem: String,
    },
}

impl Watched {
    pub(crate) fn new(contents: PartReport) -> Self {
        Self { contents: Arc::new(contents), questions: Arc::default() }
    }

    /// Records a request for the tensor `name`, unless `most` others were recorded already. Returns whether it did.
    pub(crate) fn note(&self, name: &str, question: Question, most: usize) -> bool {
        let mut questions = lock(&self.questions);
        let has_room = questions.len() <= most;
        if has_room {
            questions.insert(name.to_owned(), question);
        }
        has_room
    }

    fn report(&self) -> PartReport {
        let mut report = (*self.contents).clone();
        let mut used = BTreeSet::new();
        let questions = lock(&self.questions);
        for (name, Question { expected, answer }) in questions.iter() {
            let (name, expected) = (name.clone(), expected.clone());
            match answer {
                Availability::Missing => report.missing.push(Missing { name, expected }),
                Availability::Unreadable { stored, problem } => {
                    used.extend(stored);
                    report.unreadable.push(Unreadable { name, problem: problem.clone() });
                }
                Availability::Found { stored, shape } => {
                    used.insert(stored);
                    if *shape != expected {
                        report.misshapen.push(Misshapen { name, expected, found: shape.clone() });
                    }
                }
            }
        }
        report.unexpected.retain(|name| !used.contains(name));
        report
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
