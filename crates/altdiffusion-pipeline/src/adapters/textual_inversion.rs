//! Words that were learned: embeddings of their own for the text encoder.

use std::path::Path;

use altclip_encoder::checkpoint::Checkpoint;
use candle_core::{DType, Device, Tensor};

use super::small_file;
use crate::latents::all_finite;
use crate::{Error, Result};

/// The names that a learned word has in a directory or a repository.
const FILE_NAMES: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds.bin"];

/// What stable-diffusion-webui calls the vectors in its files; the word is then the file's own name.
const WEBUI_TENSORS: [&str; 3] = ["emb_params", "string_to_param.*", "*"];

/// The most vectors that one word may have: as many as a prompt has tokens.
const MOST_VECTORS: usize = 75;

/// A textual inversion (Gal et al. 2022, <https://arxiv.org/abs/2208.01618>): a word and the vectors that stand in its place
/// before the first layer of the text encoder.
#[derive(Debug, Clone)]
pub struct TextualInversion {
    word: String,
    /// (vectors, hidden_size), f32.
    vectors: Tensor,
    file: String,
}

impl TextualInversion {
    /// Reads a learned word called `name`: a file, `.safetensors` or a pickle, or a directory or a repository on the hub
    /// that holds `learned_embeds`. Files of diffusers name the word themselves; one of stable-diffusion-webui is called as
    /// the word.
    ///
    /// # Errors
    /// When there is none, or it holds anything but one word's vectors.
    pub fn open(name: &str) -> Result<Self> {
        let (file, _) = small_file::open(name, &FILE_NAMES, "a learned word")?;
        let word = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
        Self::read(name, word, &file)
    }

    fn read(file: &str, file_word: &str, checkpoint: &Checkpoint) -> Result<Self> {
        let names: Vec<&str> = checkpoint.names().collect();
        let (tensor, word) = match names.iter().find(|name| WEBUI_TENSORS.contains(name)) {
            Some(name) => (*name, file_word),
            None => match names.as_slice() {
                [name] => (*name, *name),
                names => {
                    let problem =
                        format!("expected a textual inversion of one word, found the tensors {names:?}");
                    return Err(Error::content(file, problem));
                }
            },
        };
        let vectors = checkpoint.tensor(tensor, DType::F32, &Device::Cpu)?;
        let vectors = if vectors.rank() == 1 { vectors.unsqueeze(0)? } else { vectors };
        Self::new(word, vectors, file)
    }

    /// The `word` that stands for `vectors`, (vectors, hidden_size); errors call it after `file`.
    ///
    /// # Errors
    /// When the word is empty, or there are no vectors or too many, or they hold anything but numbers.
    pub fn new(word: &str, vectors: Tensor, file: &str) -> Result<Self> {
        if word.trim().is_empty() {
            return Err(Error::content(file, "expected the name of a learned word, found none"));
        }
        if vectors.rank() != 2 || !(1..=MOST_VECTORS).contains(&vectors.dim(0)?) || vectors.dim(1)? == 0 {
            let problem = format!(
                "expected 1 to {MOST_VECTORS} vectors of the text encoder's width for {word:?}, found shape {:?}",
                vectors.dims()
            );
            return Err(Error::content(file, problem));
        }
        if !all_finite(&vectors)? {
            return Err(Error::content(file, "holds NaN or infinity, expected numbers"));
        }
        Ok(Self { word: word.to_owned(), vectors: vectors.to_dtype(DType::F32)?, file: file.to_owned() })
    }

    /// The same under another name.
    ///
    /// # Errors
    /// When the name is empty.
    pub fn called(self, word: &str) -> Result<Self> {
        Self::new(word, self.vectors, &self.file)
    }

    /// What to write in a prompt.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// (vectors, hidden_size), f32.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// Its vectors are of this width.
    ///
    /// # Errors
    /// When they are of another, being for another text encoder.
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
