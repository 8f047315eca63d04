//! Convolves by cuDNN 9, through its graph interface (`cudnn_graph.h`), if there is such a library when the program runs.
//!
//! `library` has the functions that are called, `descriptor` the objects that they work on, `graph` describes a convolution
//! with what follows it, and `plan` has what cuDNN would do for it. Nothing here knows of candle's devices, and descriptions
//! and plans can be made without a GPU: of one that is only [described](target::Target::Described).

pub(crate) mod descriptor;
pub(crate) mod graph;
pub(crate) mod library;
pub(crate) mod plan;
pub(crate) mod target;
