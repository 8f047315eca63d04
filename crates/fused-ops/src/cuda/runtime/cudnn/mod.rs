//! Convolves with cuDNN 9 through its graph API (`cudnn_graph.h`), if it is installed at run time.
//!
//! `library` declares the functions, `descriptor` the objects they work on, `graph` describes a convolution with its
//! epilogue, and `plan` how cuDNN computes it. Nothing here depends on candle's devices, and plans can be made
//! without a GPU, for one that is only [described](target::Target::Described).

pub(crate) mod descriptor;
pub(crate) mod graph;
pub(crate) mod library;
pub(crate) mod plan;
pub(crate) mod target;
