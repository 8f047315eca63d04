//! Reads textual inversions: embeddings learned for new words of the text encoder.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;

use super::adapter_file::{self, Found};
use crate::latents::all_finite;
use crate::{Error, Result};

/// The file names of a textual inversion in a directory or repository.
const FILE_NAMES: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds.bin"];

/// Tensor names that web interfaces, the original program of textual inversion, and diffusers' first script for pivotal
/// tuning use for every word; the word is then the file's name. The last is that of a tensor without a name.
const WEBUI_TENSORS: [&str; 5] = ["emb_params", "clip_l", "*", "text_encoders_0", ""];
const WEBUI_PARAMETERS: &str = "string_to_param.";
/// The tensor for the second text encoder of Stable Diffusion XL, in web interfaces and that script.
const OF_SDXL: [&str; 2] = ["clip_g", "text_encoders_1"];

/// The prefix of words that come in a LoRA's file: `bundle_emb.NAME.…`.
const BUNDLE: &str = "bundle_emb.";

/// The most vectors per word: a prompt's number of tokens.
const MOST_VECTORS: usize = 75;

/// A textual inversion (Gal et al. 2022, <https://arxiv.org/abs/2208.01618>): a word and the embeddings that replace
/// its tokens before the text encoder's first layer.
#[derive(Debug, Clone)]
pub struct TextualInversion {
    word: String,
    /// (vectors, hidden_size), f32.
    vectors: Tensor,
    file: String,
}

/// A word and the name of the tensor that holds its vectors.
type WordTensor = (String, String);

impl TextualInversion {
    /// Reads the textual inversion called `name`: a `.safetensors` file or a pickle; a directory or hub repository
    /// that holds one, as `learned_embeds` or as its only file; or a file in a repository,
    /// `org/name/file.safetensors`. diffusers' files name the word; in a web interface's, the file name is the word.
    ///
    /// # Errors
    /// If there is none, or it holds anything but the vectors of one word.
    pub fn open(name: &str) -> Result<Self> {
        let mut words = Self::open_all(name)?.into_iter();
        match (words.next(), words.next()) {
            (Some(word), None) => Ok(word),
            (first, second) => {
                let words: Vec<String> =
                    first.into_iter().chain(second).chain(words).map(|word| word.word).collect();
                Err(Error::content(
                    name,
                    format!("expected a textual inversion of one word, found {words:?}"),
                ))
            }
        }
    }

    /// Like [`open`](Self::open), for a file that may hold several words.
    ///
    /// # Errors
    /// If there is none, or it holds anything but the vectors of words.
    pub fn open_all(name: &str) -> Result<Vec<Self>> {
        let Found { file, stem, .. } = adapter_file::open(name, &FILE_NAMES, "a learned word")?;
        let tensors = file.names().map(|tensor| (tensor.to_owned(), tensor.to_owned())).collect();
        let words = words_of(&stem, &tensors).map_err(|problem| Error::content(name, problem))?;
        words.into_iter().map(|(word, tensor)| Self::read(name, &word, &file, &tensor)).collect()
    }

    /// Reads the vectors of a word, after checking their shape, since the file may be anything.
    fn read(file: &str, word: &str, checkpoint: &Checkpoint, tensor: &str) -> Result<Self> {
        if let Some(shape) = checkpoint.shape(tensor).filter(|shape| !is_word_shape(shape)) {
            return Err(Error::content(file, misshapen(word, shape)));
        }
        let vectors = checkpoint.tensor(tensor, DType::F32, &Device::Cpu)?;
        let vectors = if vectors.rank() == 1 { vectors.unsqueeze(0)? } else { vectors };
        Self::new(word, vectors, file)
    }

    /// Makes `word` stand for `vectors`, (vectors, hidden_size); errors name `file`.
    ///
    /// # Errors
    /// If the word is empty, there are no vectors or too many, or they are not finite.
    pub fn new(word: &str, vectors: Tensor, file: &str) -> Result<Self> {
        if word.trim().is_empty() {
            return Err(Error::content(file, "expected the name of a learned word, found none"));
        }
        if vectors.rank() != 2 || !is_word_shape(vectors.dims()) {
            return Err(Error::content(file, misshapen(word, vectors.dims())));
        }
        if !all_finite(&vectors)? {
            return Err(Error::content(file, "holds NaN or infinity, expected numbers"));
        }
        Ok(Self { word: word.to_owned(), vectors: vectors.to_dtype(DType::F32)?, file: file.to_owned() })
    }

    /// Renames the word.
    ///
    /// # Errors
    /// If the name is empty.
    pub fn called(self, word: &str) -> Result<Self> {
        Self::new(word, self.vectors, &self.file)
    }

    /// The word to write in a prompt.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// (vectors, hidden_size), f32.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// Checks that its vectors have this width.
    ///
    /// # Errors
    /// If they have another width, since they belong to another text encoder.
    pub(crate) fn check_width(&self, width: usize) -> Result<()> {
        let found = self.vectors.dim(1)?;
        if found != width {
            let problem = format!(
                "its vectors have {found} values, where those of this model's text encoder have {width}: it was learned for \
                 another text encoder"
            );
            return Err(Error::content(&self.file, problem));
        }
        Ok(())
    }
}

/// Whether a tensor can hold a word's vectors: (vectors, width) or (width).
fn is_word_shape(shape: &[usize]) -> bool {
    match shape {
        [width] => *width > 0,
        [vectors, width] => (1..=MOST_VECTORS).contains(vectors) && *width > 0,
        _ => false,
    }
}

fn misshapen(word: &str, shape: &[usize]) -> String {
    format!(
        "expected 1 to {MOST_VECTORS} vectors of the text encoder's width for {word:?}, found shape {shape:?}"
    )
}

/// Finds the words among `tensors`, which maps normalised names to the names in the file; `file_word` is the word if
/// none is named.
fn words_of(
    file_word: &str,
    tensors: &BTreeMap<String, String>,
) -> std::result::Result<Vec<WordTensor>, String> {
    if let Some(second) = OF_SDXL.iter().find(|second| tensors.contains_key(**second)) {
        return Err(format!(
            "it was learned for the two text encoders of Stable Diffusion XL (the tensor {second}), expected one for a single \
             text encoder"
        ));
    }
    let nameless = |tensor: &String| Ok(vec![(file_word.to_owned(), tensor.clone())]);
    if let Some(tensor) = WEBUI_TENSORS.iter().find_map(|name| tensors.get(*name)) {
        return nameless(tensor);
    }
    let parameters: Vec<(&str, &String)> = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(WEBUI_PARAMETERS)?, tensor)))
        .collect();
    match parameters.as_slice() {
        [(_, tensor)] => nameless(tensor),
        // Each tensor is a word, as in diffusers' files.
        [] if tensors.is_empty() => Err("expected a textual inversion, found no tensors".to_owned()),
        [] => Ok(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()),
        several => {
            let keys: Vec<&str> = several.iter().map(|(key, _)| *key).collect();
            Err(format!("expected a textual inversion of one word, found the keys {keys:?}"))
        }
    }
}

/// Whether a tensor of a LoRA's file belongs to a word.
pub(super) fn is_bundled(tensor: &str) -> bool {
    tensor.starts_with(BUNDLE)
}

/// Reads the words in a LoRA's file, `bundle_emb.NAME.emb_params` or `bundle_emb.NAME.string_to_param.*`, like
/// stable-diffusion-webui.
pub(super) fn in_bundle(name: &str, file: &Checkpoint) -> Result<Vec<TextualInversion>> {
    let mut bundle: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for tensor in file.names() {
        if let Some((word, role)) = tensor.strip_prefix(BUNDLE).and_then(|rest| rest.split_once('.')) {
            bundle.entry(word).or_default().insert(role.to_owned(), tensor.to_owned());
        }
    }
    let mut words = Vec::new();
    for (word, tensors) in bundle {
        let error = |problem: String| Error::content(name, format!("{BUNDLE}{word}: {problem}"));
        let found = words_of(word, &tensors).map_err(error)?;
        let [(word, tensor)] = found.as_slice() else {
            return Err(error(format!("expected one tensor, found {:?}", tensors.keys())));
        };
        words.push(TextualInversion::read(name, word, file, tensor)?);
    }
    Ok(words)
}
