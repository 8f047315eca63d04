//! Trains with a teacher (Chen et al., AltCLIP, arXiv 2211.06679, section 3.1; FlagAI's `AltCLIP` training): a text
//! tower learns the vectors of a frozen one, for English texts and their translations, without images.

use crate::error::Result;
use crate::gradients::Gradients;
use crate::optimizer::OptimizerConfig;
use crate::run::{Batch, Objective};
use crate::settings;
use crate::stages::by_length::{TextGroup, by_length};
use crate::text_rows::TextRows;
use crate::workers::Workers;
use altclip_encoder::altclip::AltClipTextTower;
use altclip_encoder::tokenizer::{Encoding, Tokenizer};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherStage {
    /// Texts per batch.
    pub batch_size: usize,
    /// The length that texts are truncated to, in tokens. By default that of the tokenizer.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Groups of a batch's texts computed at the same time on the CPU, each with its share of the cores.
    #[serde(default = "settings::one")]
    pub parts: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// Minimises the squared distance between a student's and its teacher's vectors.
pub struct TeacherLearning<'a> {
    /// The trained text tower.
    pub student: &'a AltClipTextTower,
    /// The tokenizer of the texts.
    pub tokenizer: &'a Tokenizer,
    /// Texts, each with the row of its teacher's vector.
    pub texts: &'a dyn TextRows,
    /// (rows, projection_dim), not normalised, on the student's device.
    pub vectors: &'a Tensor,
    /// See [`TeacherStage`].
    pub batch_size: usize,
    /// The length that texts are truncated to, in tokens.
    pub max_tokens: usize,
    /// The threads that compute it.
    pub workers: &'a Workers,
}

/// Texts of similar lengths that go through the tower together.
const GROUP: usize = 32;

/// The mean squared error of a student's vectors, over all their values; a scalar.
///
/// * `vectors` (texts, projection_dim), the teacher's, not normalised, on the student's device
///
/// # Errors
/// If the texts do not fit the student, or the vectors have another width.
pub fn teacher_loss(student: &AltClipTextTower, texts: &Encoding, vectors: &Tensor) -> Result<Tensor> {
    let device = vectors.device();
    let (ids, mask) = (texts.input_ids.to_device(device)?, texts.attention_mask.to_device(device)?);
    let found = student.forward(&ids, &mask)?.to_dtype(vectors.dtype())?;
    Ok((found - vectors)?.sqr()?.mean_all()?)
}

impl Objective for TeacherLearning<'_> {
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients> {
        let (texts, rows) = self.texts.draw(batch, self.batch_size)?;
        let vectors = self.vectors.index_select(&Tensor::new(rows, self.vectors.device())?, 0)?;
        let groups = by_length(self.tokenizer, &texts, self.max_tokens, GROUP)?;
        // So that the mean over groups is the mean over texts.
        let scale = groups.len() as f64 / texts.len() as f64;
        let gradients = |group: TextGroup| {
            let chosen = Tensor::new(group.numbers.as_slice(), vectors.device())?;
            let loss = teacher_loss(self.student, &group.texts, &vectors.index_select(&chosen, 0)?)?;
            Gradients::of(&(loss * (scale * group.numbers.len() as f64))?)
        };
        Gradients::sum(self.workers.map(groups, gradients))
    }
}
