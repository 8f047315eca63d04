//! Looks up word embeddings: the checkpoint's, and those of words that were added to it.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use fused_ops::Embedding;

use crate::layer_shape::INITIALIZER_RANGE;

/// The word embeddings of a text tower.
#[derive(Debug, Clone)]
pub(crate) struct WordTable {
    table: Embedding, // (rows, width)
    added: Option<AddedEmbeddings>,
    /// The largest id + 1, with added words.
    vocab_size: usize,
    width: usize,
}

/// Embeddings of words that were added to the vocabulary.
#[derive(Debug, Clone)]
struct AddedEmbeddings {
    /// The id of the first; the table's ids are all smaller.
    first: u32,
    rows: Tensor, // (added, width)
}

impl WordTable {
    /// Reads `weight` (vocab_size, width) under `vb`.
    pub(crate) fn new(vocab_size: usize, width: usize, vb: VarBuilder) -> Result<Self> {
        let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        Ok(Self { table: Embedding::new(vocab_size, width, init, vb)?, added: None, vocab_size, width })
    }

    /// Adds `rows` (added, width) for the ids from `first` on, replacing what the table has there.
    ///
    /// # Errors
    /// If the rows have another width.
    pub(crate) fn with_added(self, first: u32, rows: &Tensor) -> Result<Self> {
        let (added, width) = rows.dims2()?;
        if width != self.width {
            bail!("the added embeddings have {width} values, and the text encoder's have {}", self.width)
        }
        let rows = rows.to_device(self.table.device())?;
        Ok(Self { added: Some(AddedEmbeddings { first, rows }), vocab_size: first as usize + added, ..self })
    }

    /// The embeddings of `ids`, (ids, width), on the weights' device.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub(crate) fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        self.check(ids)?;
        match &self.added {
            Some(added) => added.words(&self.table, ids),
            None => self.table.forward(&Tensor::new(ids, self.table.device())?),
        }
    }

    /// Checks that `ids` are in the vocabulary.
    fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => bail!("token id {id} is outside the vocabulary of {} tokens", self.vocab_size),
            None => Ok(()),
        }
    }
}

impl AddedEmbeddings {
    /// The embeddings (ids, width) of ids in `table` and added ones.
    fn words(&self, table: &Embedding, ids: &[u32]) -> Result<Tensor> {
        // First the table's rows for all ids, then the added ones, so that only a prompt's worth of the table is
        // copied.
        let of_table: Vec<u32> = ids.iter().map(|&id| if id < self.first { id } else { 0 }).collect();
        let places = ids.iter().zip(0..).map(|(&id, place)| match id.checked_sub(self.first) {
            Some(added) => ids.len() as u32 + added,
            None => place,
        });
        let places = Tensor::from_iter(places, table.device())?;
        let words = table.forward(&Tensor::new(of_table, table.device())?)?;
        Tensor::cat(&[&words, &self.rows.to_dtype(words.dtype())?], 0)?.index_select(&places, 0)
    }
}
