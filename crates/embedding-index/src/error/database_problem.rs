//! Says why the database of a library cannot be used.

/// Why the database of an [`ImageLibrary`](crate::library::ImageLibrary) cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseProblem {
    /// There is no such file.
    #[error("no index here, expected one that `altdiffusion index add` made")]
    Missing,
    /// It is another kind of file, or a database of another program.
    #[error("expected an index that `altdiffusion index add` made, found {0}")]
    NoIndex(String),
    /// A newer release made it.
    #[error("made by a newer release: its format is {found}, expected at most {known}")]
    Newer {
        /// The format of the file.
        found: i32,
        /// The newest format that this release knows.
        known: i32,
    },
    /// Another process is writing to it.
    #[error("another program is writing to it, wait until it is done")]
    Locked,
    /// The file or its folder cannot be written to.
    #[error("is read-only, expected a file and a folder that can be written to")]
    ReadOnly,
    /// The disk is full.
    #[error("the disk is full; everything indexed before is kept, free some space and run it again")]
    Full,
    /// The file is damaged.
    #[error("damaged ({0}); delete it and index its folders again")]
    Damaged(String),
    /// Its vectors are of another model.
    #[error("made with {made_with}, and the model given is {given}; expected the same model")]
    OtherModel {
        /// The model that made the vectors.
        made_with: String,
        /// The model of the caller.
        given: String,
    },
    /// Its vectors are of a model of the same name with other weights.
    #[error("made with other weights of {0}, or another revision of it; expected the same ones")]
    OtherWeights(String),
    /// The database failed for another reason.
    #[error("{0}")]
    Other(String),
}
