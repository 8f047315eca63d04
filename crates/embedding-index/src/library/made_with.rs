//! Records what made the vectors of a library.

use altclip_encoder::embedder::Embedder;
use altclip_encoder::images::Background;
use rusqlite::{Connection, OptionalExtension};

use super::stored_vector::Precision;
use crate::error::{DatabaseProblem, Result};
use crate::job::{vector_of_text, vectors_of_model};
use crate::vector::unit_vector;

/// Models with a smaller cosine between their vectors of the same text and image are different ones. The same one differs
/// by rounding in another dtype or on another device.
const SAME_MODEL: f32 = 0.999;

/// The model that made the vectors of a library, and how.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MadeWith {
    /// The model's name.
    pub model: String,
    /// The commit of its repository.
    pub revision: Option<String>,
    /// The background of transparent images.
    pub background: Background,
    /// The dimension of the vectors.
    pub width: usize,
    /// The numbers that they are stored as.
    pub precision: Precision,
    /// The model's vectors of a text and an image, as one of length 1.
    probe: Vec<f32>,
}

impl MadeWith {
    /// Describes the vectors that `embedder` makes, which was loaded from the model called `model`.
    ///
    /// # Errors
    /// If the model fails.
    pub fn new(
        embedder: &Embedder,
        model: impl Into<String>,
        revision: Option<&str>,
        precision: Precision,
    ) -> Result<Self> {
        Ok(Self {
            model: model.into(),
            revision: revision.map(str::to_owned),
            background: embedder.background(),
            width: embedder.projection_dim(),
            precision,
            probe: unit_vector(&vectors_of_model(embedder)?),
        })
    }

    /// Whether a model of this name can be the one, without loading it.
    ///
    /// # Errors
    /// [`DatabaseProblem::OtherModel`] if it is another.
    pub fn check_name(&self, model: &str) -> std::result::Result<(), DatabaseProblem> {
        if self.model == model {
            return Ok(());
        }
        Err(DatabaseProblem::OtherModel { made_with: self.model.clone(), given: model.to_owned() })
    }

    /// Whether `embedder` makes such vectors.
    ///
    /// # Errors
    /// [`DatabaseProblem::OtherWeights`] if it does not.
    pub(super) fn check_weights(
        &self,
        embedder: &Embedder,
    ) -> Result<std::result::Result<(), DatabaseProblem>> {
        let probe = unit_vector(&vectors_of_model(embedder)?);
        let cosine: f32 = probe.iter().zip(&self.probe).map(|(a, b)| a * b).sum();
        let is_same = probe.len() == self.probe.len() && cosine >= SAME_MODEL;
        let other = || DatabaseProblem::OtherWeights(self.model.clone());
        Ok(if is_same { Ok(()) } else { Err(other()) })
    }

    /// Whether `embedder` makes such vectors of texts, which is quicker to tell than of images.
    ///
    /// # Errors
    /// If it does not, or fails.
    pub(super) fn check_texts(
        &self,
        embedder: &Embedder,
    ) -> Result<std::result::Result<(), DatabaseProblem>> {
        let probe = unit_vector(&vector_of_text(embedder)?);
        let (text, _) = self.probe.split_at_checked(self.width).unwrap_or_default();
        let cosine: f32 = probe.iter().zip(unit_vector(text)).map(|(a, b)| a * b).sum();
        let is_same = probe.len() == text.len() && cosine >= SAME_MODEL;
        let other = || DatabaseProblem::OtherWeights(self.model.clone());
        Ok(if is_same { Ok(()) } else { Err(other()) })
    }

    /// The bytes of a stored vector.
    pub(super) fn vector_bytes(&self) -> usize {
        self.width * self.precision.numbers().bytes()
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let probe = Precision::F32.bytes_of(&self.probe).unwrap_or_default();
        connection.execute(
            "INSERT INTO model (id, name, revision, background, width, precision, probe) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
            (
                &self.model,
                &self.revision,
                self.background.to_string(),
                self.width,
                self.precision.to_string(),
                probe,
            ),
        )?;
        Ok(())
    }

    pub(super) fn read(connection: &Connection) -> std::result::Result<Self, DatabaseProblem> {
        let row = connection
            .query_row("SELECT name, revision, background, width, precision, probe FROM model", [], |row| {
                let background: String = row.get(2)?;
                let precision: String = row.get(4)?;
                Ok((row.get(0)?, row.get(1)?, background, row.get(3)?, precision, row.get::<_, Vec<u8>>(5)?))
            })
            .optional();
        let damaged = |what: String| DatabaseProblem::Damaged(what);
        let row = row.map_err(|error| damaged(error.to_string()))?;
        let (model, revision, background, width, precision, probe): (_, _, _, usize, _, _) =
            row.ok_or_else(|| damaged("it does not say what model made it".to_owned()))?;
        if width == 0 || width > 1 << 16 {
            return Err(damaged(format!("vectors of {width} numbers")));
        }
        Ok(Self {
            model,
            revision,
            background: background.parse().map_err(damaged)?,
            width,
            precision: precision.parse().map_err(damaged)?,
            probe: Precision::F32.numbers_of(&probe),
        })
    }
}
