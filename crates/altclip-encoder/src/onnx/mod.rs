//! Writes a dual encoder as ONNX: a graph per tower, in the layout that the machine-learning server of immich loads.
//!
//! | file | |
//! |---|---|
//! | `config.json` | `embed_dim`, the side of an image, and `context_length`, to which texts are padded |
//! | `textual/model.onnx` | `text` (texts, tokens) i32 → `embedding` (texts, width) f32 |
//! | `textual/tokenizer.json`, `tokenizer_config.json` | for the `tokenizers` library |
//! | `visual/model.onnx` | `image` (images, 3, side, side) f32 → `embedding` (images, width) f32 |
//! | `visual/preprocess_cfg.json` | how an image is prepared, as open_clip writes it |
//!
//! Vectors have length 1. Weights are f32 or f16; the graphs compute in f32. A file that protobuf could not parse,
//! because it had more than 2 GiB, has its weights in `model.onnx.data` beside it.

mod folder;
mod graph;
mod image_towers;
mod layers;
pub mod proto;
mod text_towers;
mod weights;
mod write;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use model_files::Temporary;
use model_files::source::ModelSource;

use self::folder::small_files;
pub(crate) use self::graph::Graph;
pub(crate) use self::weights::Weights;
use self::write::write_model;
use crate::dual_encoder::{Family, onnx_towers};
use crate::error::{Error, Result};

/// The most bytes of a message that protobuf parses.
pub const LARGEST_FILE: u64 = (1 << 31) - 1;

/// The folders of the towers.
const TEXTUAL: &str = "textual";
const VISUAL: &str = "visual";

/// The numbers that weights are stored as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the graphs compute.
    #[default]
    F32,
    /// Half the size; vectors differ by about 10⁻³.
    F16,
}

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// The numbers that weights are stored as.
    pub precision: Precision,
    /// The most bytes of a graph with its weights, which are in a file of their own if it has more.
    pub largest_file: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, largest_file: LARGEST_FILE }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// The family of the model.
    pub family: Family,
    /// The number of weights of both towers.
    pub tensors: usize,
    /// Width of the vectors.
    pub projection_dim: usize,
    /// Side of an image, in pixels.
    pub image_size: usize,
    /// The length that texts are padded to, in tokens.
    pub context_length: usize,
}

/// Writes the dual encoder of `source` into the directory `folder`, which must not exist yet. `on_tensor` gets the number
/// of constants done and the total; where it breaks, nothing is left behind, and nothing returned.
///
/// # Errors
/// If the family has no graph here, a file is missing, is damaged or cannot be written, the images are prepared in a way
/// that `preprocess_cfg.json` cannot say, or a weight is too large for f16.
pub fn export(
    source: &ModelSource,
    folder: &Path,
    options: &ExportOptions,
    on_tensor: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<Exported>> {
    let shown = folder.display().to_string();
    if folder.exists() {
        let problem = "cannot be written: it is there already, expected the name of a new directory";
        return Err(Error::format(shown, problem));
    }
    let family = Family::of(source)?;
    let towers = onnx_towers(source, family, options.precision)?;
    let small = small_files(source, family, &towers)?;

    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let temporary = Temporary::folder(parent.unwrap_or(Path::new("."))).map_err(Error::io(shown.as_str()))?;
    let graphs = [(TEXTUAL, &towers.text), (VISUAL, &towers.image)];
    for (name, _) in graphs {
        let made = fs::create_dir(temporary.path().join(name));
        made.map_err(Error::io(folder.join(name).display().to_string()))?;
    }
    for (name, content) in small {
        let written = fs::write(temporary.path().join(name), content);
        written.map_err(Error::io(folder.join(name).display().to_string()))?;
    }
    let total = graphs.iter().map(|(_, graph)| graph.constants().len()).sum();
    let mut done = 0;
    for (name, graph) in graphs {
        let (place, shown) = (temporary.path().join(name), folder.join(name));
        let flow = write_model(graph, (place.as_path(), shown.as_path()), options.largest_file, || {
            done += 1;
            on_tensor(done, total)
        })?;
        if flow.is_break() {
            return Ok(None);
        }
    }
    temporary.persist(folder).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            Error::format(shown.as_str(), "cannot be written: another process made it in the meantime")
        }
        _ => Error::io(shown.as_str())(error),
    })?;
    Ok(Some(Exported {
        family,
        tensors: graphs.iter().map(|(_, graph)| graph.weights()).sum(),
        projection_dim: towers.projection_dim,
        image_size: towers.image_size,
        context_length: towers.context_length,
    }))
}
