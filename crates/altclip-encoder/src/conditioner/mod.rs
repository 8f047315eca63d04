//! Encodes prompts to the hidden states that a UNet attends to: the text side of diffusion models of every supported
//! family.
//!
//! | family | `text_encoder/config.json` | hidden states | padding |
//! |---|---|---|---|
//! | AltDiffusion, -m9, -m18 | `RobertaSeriesModelWithTransformation` | projected, of the last or second-to-last layer | equal rows, computed once |
//! | Stable Diffusion 1 and 2, PAI-Diffusion, Wukong-Huahua | `CLIPTextModel` | of the last layer, after the final norm | every row computed |
//! | Taiyi-Stable-Diffusion | `BertModel` | of the last layer | every row computed |
//!
//! [`ConditionerConfig`] recognizes the family and builds a [`Conditioner`]. The tokenizer is independent of it: its
//! files decide.
//!
//! Padding rows are equal only in XLM-R, where all have the same position. In CLIP and BERT each has its own, and in
//! CLIP, which is causal, its own keys as well. So they cannot be merged, and a UNet attends to every one of them.

mod alt_diffusion;
mod bert;
mod clip;
mod config;
mod states;

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::Error;

pub use self::alt_diffusion::{TextEncoder, TextEncoderConfig};
pub use self::bert::{BertConditioner, BertConditionerConfig};
pub use self::clip::{ClipConditioner, ClipConditionerConfig};
pub use self::config::ConditionerConfig;
pub use self::states::CompactHiddenStates;

/// The sizes of a [`Conditioner`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionerSpec {
    /// Width of the hidden states: the UNet's `cross_attention_dim`.
    pub width: usize,
    /// Width of the word embeddings, which textual inversion learns.
    pub embedding_width: usize,
    /// Rows of the word embedding; all ids are smaller.
    pub vocab_size: usize,
    /// The longest prompt in tokens, including special ones.
    pub max_tokens: usize,
}

/// The text side of a diffusion model: token ids to hidden states. Clones made by its methods share their weights.
pub trait Conditioner: Debug + Send + Sync {
    /// The sizes.
    fn spec(&self) -> ConditionerSpec;

    /// Encodes prompts, calling `proceed` before each layer, whose error ends the work.
    ///
    /// * `input_ids` (batch, tokens), u32; diffusion prompts are padded to 77 tokens
    /// * `attention_mask` (batch, tokens), u32, 0 at padding; whether it is used is the model's to say
    ///
    /// # Errors
    /// If the shapes differ, an id is outside the vocabulary, a prompt has more tokens than the model has positions,
    /// or the mask hides a whole prompt; also those of `proceed`.
    fn encode_compact_while(
        &self,
        input_ids: &Tensor,
        attention_mask: &Tensor,
        proceed: &dyn Fn() -> Result<()>,
    ) -> Result<CompactHiddenStates>;

    /// The embeddings of tokens, (ids, embedding_width), for example to initialise a new word.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    fn word_embeddings(&self, ids: &[u32]) -> Result<Tensor>;

    /// Adds `rows` (added, embedding_width) as embeddings of the ids from `first` on, for words added by
    /// [`Tokenizer::add_word`](crate::tokenizer::Tokenizer::add_word).
    ///
    /// # Errors
    /// If the rows have another width.
    fn with_added_embeddings(&self, first: u32, rows: &Tensor) -> Result<Arc<dyn Conditioner>>;

    /// Takes the hidden states from `count` layers before the one used in training ("clip skip").
    ///
    /// # Errors
    /// [`Error::Input`] if fewer than one layer would be left.
    fn skipping_layers(&self, count: usize) -> std::result::Result<Arc<dyn Conditioner>, Error>;

    /// Encodes prompts, with equal rows of padding as one.
    ///
    /// # Errors
    /// Like [`encode_compact_while`](Self::encode_compact_while).
    fn encode_compact(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<CompactHiddenStates> {
        self.encode_compact_while(input_ids, attention_mask, &|| Ok(()))
    }

    /// The hidden states of every row: (batch, tokens, width).
    ///
    /// # Errors
    /// Like [`encode_compact_while`](Self::encode_compact_while).
    fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.encode_compact(input_ids, attention_mask)?.expand()
    }
}

/// Checks that skipping `count` of `layers` layers leaves one.
fn check_skipped(count: usize, layers: usize) -> std::result::Result<(), Error> {
    if count < layers {
        return Ok(());
    }
    Err(Error::Input(format!(
        "expected to skip fewer than the {layers} layers of the text encoder, found {count}"
    )))
}
