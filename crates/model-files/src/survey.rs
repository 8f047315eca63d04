//! Collects what a model asks its checkpoints for, which is found out by loading it without reading any weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Notes which tensors the loading of a model asks for, and with which shapes.
///
/// A model that is loaded from [`ModelSource::surveyed`](crate::source::ModelSource::surveyed) gets placeholders that
/// take no memory in place of its weights, so that this is quick however large it is. Such a model computes nothing.
#[derive(Clone, Default)]
pub struct Survey(Arc<Mutex<BTreeMap<(Folder, FileName), Watched>>>);

type Folder = String;
/// Several parts can be in one file.
type FileName = String;

/// What one checkpoint holds, beside what the loading asked of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// The folder in the model, "" for its top.
    pub folder: String,
    /// The file, or the index of the shards.
    pub file: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values of all tensors together.
    pub parameters: u64,
    /// Bytes of all tensors together in the files.
    pub bytes: u64,
    /// Number of tensors of each type, by the name that safetensors has for it.
    pub dtypes: BTreeMap<String, usize>,
    /// Tensors that were asked for and are not there.
    pub missing: Vec<Missing>,
    /// Tensors that are there with another shape.
    pub misshapen: Vec<Misshapen>,
    /// Tensors that were asked for and are there, but cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Names of tensors that nothing asked for.
    pub unexpected: Vec<String>,
}

/// A tensor that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The shape that was asked for.
    pub expected: Vec<usize>,
}

/// A tensor of another shape than the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// The shape that was asked for.
    pub expected: Vec<usize>,
    /// Its shape in the file.
    pub found: Vec<usize>,
}

/// A tensor that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its name.
    pub name: String,
    /// Why, such as a type of elements that has no conversion.
    pub problem: String,
}

impl Survey {
    /// Begins to watch a checkpoint, of which `contents` says what is in it; one that is opened again is watched on.
    pub(crate) fn watch(&self, folder: &str, file: &str, contents: impl FnOnce() -> Watched) -> Watched {
        lock(&self.0).entry((folder.to_owned(), file.to_owned())).or_insert_with(contents).clone()
    }

    /// What was found out so far, a report for each checkpoint.
    pub fn reports(&self) -> Vec<PartReport> {
        lock(&self.0).values().map(Watched::report).collect()
    }
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

/// One checkpoint that was opened: what is in it, and what was asked of it.
#[derive(Clone)]
pub(crate) struct Watched {
    /// The report of a checkpoint that was asked for nothing; all its tensors are unexpected.
    contents: Arc<PartReport>,
    /// By the names that were asked for.
    questions: Arc<Mutex<BTreeMap<String, Question>>>,
}

/// A tensor that was asked for.
pub(crate) struct Question {
    /// The shape that was asked for.
    pub expected: Vec<usize>,
    pub answer: Answer,
}

/// What there is for a question.
pub(crate) enum Answer {
    Missing,
    /// A tensor of this name in the file, and of this shape.
    Found {
        stored: String,
        shape: Vec<usize>,
    },
    /// One that cannot be read, which the file may not list among its tensors.
    Unreadable {
        stored: Option<String>,
        problem: String,
    },
}

impl Watched {
    pub(crate) fn new(contents: PartReport) -> Self {
        Self { contents: Arc::new(contents), questions: Arc::default() }
    }

    /// Notes a question for the tensor `name`, unless `most` others were noted already. Returns whether it was noted.
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
                Answer::Missing => report.missing.push(Missing { name, expected }),
                Answer::Unreadable { stored, problem } => {
                    used.extend(stored);
                    report.unreadable.push(Unreadable { name, problem: problem.clone() });
                }
                Answer::Found { stored, shape } => {
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
