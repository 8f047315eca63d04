//! Says how rows fall into sequences.

use candle_core::{DType, Device, Result, Tensor};

/// How rows fall into sequences, of which each attends to itself alone.
#[derive(Debug, Clone)]
pub struct Sequences {
    lengths: Vec<usize>,
    /// (rows), f32
    key_bias: Option<Tensor>,
    /// The first row of each sequence, and where the last one ends: (sequences + 1), i32.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a CUDA kernel reads it"))]
    pub(crate) offsets: Tensor,
}

impl Sequences {
    /// Sequences of these lengths, whose rows are on `device`.
    ///
    /// `key_bias`, of as many values as there are rows, is added to every score of a key, as in
    /// [`attention`](crate::attention()).
    ///
    /// # Errors
    /// If there are more or fewer values in `key_bias`, or 2³¹ rows or more.
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

    /// The rows of each.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The rows of all together.
    pub fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// What is added to the scores of each key, if anything: (rows), f32.
    pub fn key_bias(&self) -> Option<&Tensor> {
        self.key_bias.as_ref()
    }
}
