//! Defines how rows are split into sequences.

use candle_core::{DType, Device, Result, Tensor};

/// Rows split into sequences, each of which attends to itself.
#[derive(Debug, Clone)]
pub struct Sequences {
    lengths: Vec<usize>,
    /// (rows), f32
    key_bias: Option<Tensor>,
    /// The first row of each sequence, and the end of the last: (sequences + 1), i32.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a CUDA kernel reads it"))]
    pub(crate) offsets: Tensor,
}

impl Sequences {
    /// Sequences of these lengths, with rows on `device`.
    ///
    /// `key_bias`, one value per row, is added to every score of a key, as in [`attention`](crate::attention()).
    ///
    /// # Errors
    /// If `key_bias` has another length, or there are 2³¹ rows or more.
    pub fn new(lengths: Vec<usize>, key_bias: Option<&Tensor>, device: &Device) -> Result<Self> {
        let mut offsets = vec![0i32];
        let mut end = 0i32;
        for &length in &lengths {
            let sum = i32::try_from(length).ok().and_then(|length| end.checked_add(length));
            end = sum.ok_or_else(|| candle_core::Error::msg("sequences of more than 2³¹ rows"))?;
            offsets.push(end);
        }
        let key_bias =
            key_bias.map(|bias| bias.to_dtype(DType::F32)?.flatten_all()?.to_device(device)).transpose()?;
        let rows = lengths.iter().sum::<usize>();
        if let Some(bias) = key_bias.as_ref().filter(|bias| bias.elem_count() != rows) {
            candle_core::bail!("a key bias of {} values for sequences of {rows} rows", bias.elem_count());
        }
        Ok(Self { lengths, key_bias, offsets: Tensor::new(offsets, device)? })
    }

    /// The rows of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The rows of all sequences.
    pub fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The bias of each key's scores, if any: (rows), f32.
    pub fn key_bias(&self) -> Option<&Tensor> {
        self.key_bias.as_ref()
    }
}
