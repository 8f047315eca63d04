//! Combines a file's tensors for one layer into the change they make.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::change::{Change, Magnitude, ScaledProduct, Side, StrengthOf};
use super::input_rotation::InputRotation;
use super::names::TensorRole;
use super::peft_config::{LARGEST_RANK, PeftConfig};
use super::product::{Factor, LowRank, Product};
use super::rotation::Rotation;
use crate::latents::all_finite;
use crate::{Error, Result};

/// The tensors of one layer, collected until all have been read.
#[derive(Default)]
pub(super) struct LayerTensors {
    /// The layer's path as the file has it.
    path: String,
    /// With their names in the file.
    tensors: BTreeMap<TensorRole, (String, Tensor)>,
}

/// What an adapter changes in one layer.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerChanges {
    pub weight: Vec<Change>,
    pub bias: Vec<Change>,
    /// Whether the change is meaningless for a layer without a bias.
    pub needs_bias: bool,
}

/// A parameter of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Parameter {
    Weight,
    Bias,
}

impl LayerChanges {
    pub(super) fn of(&self, kind: Parameter) -> &[Change] {
        match kind {
            Parameter::Weight => &self.weight,
            Parameter::Bias => &self.bias,
        }
    }
}

/// On error, why the tensors make no change; the caller adds the file and the layer.
type Problem<T> = std::result::Result<T, String>;

impl LayerTensors {
    /// Adds the tensor called `name`, of the layer at `path`.
    ///
    /// # Errors
    /// If it holds NaN or infinity, or a tensor with the same role was already added.
    pub(super) fn add(
        &mut self,
        path: &str,
        role: TensorRole,
        name: &str,
        tensor: Tensor,
    ) -> Result<Problem<()>> {
        if !all_finite(&tensor)? {
            return Ok(Err(format!("the tensor {name} holds NaN or infinity, expected numbers")));
        }
        if self.path.is_empty() {
            path.clone_into(&mut self.path);
        }
        Ok(match self.tensors.insert(role, (name.to_owned(), tensor)) {
            Some((other, _)) => {
                Err(format!("the tensors {other} and {name} mean the same, expected one of them"))
            }
            None => Ok(()),
        })
    }

    /// Combines the tensors; `file` is named in errors.
    ///
    /// # Errors
    /// If one is missing, or does not fit the others.
    pub(super) fn combine(mut self, file: &str, config: Option<&PeftConfig>) -> Result<LayerChanges> {
        let path = std::mem::take(&mut self.path);
        let error = |problem: String| Error::content(file, format!("layer {path}: {problem}"));
        let mut changes = LayerChanges::default();
        changes.weight.extend(self.rotation().map_err(error)?.map(Change::Rotation));
        changes.weight.extend(self.input_rotation(config).map_err(error)?.map(Change::InputRotation));
        if let Some(product) = self.product().map_err(error)? {
            let product_rank = product.rank();
            if product_rank.is_some_and(|rank| rank > LARGEST_RANK) {
                return Err(error(format!(
                    "expected a rank of at most {LARGEST_RANK}, found {}",
                    product_rank.unwrap_or(0)
                )));
            }
            let alpha = self.take(TensorRole::Alpha).map(|alpha| single(&alpha)).transpose()?;
            let scale = match (alpha, config) {
                (Some(Err(problem)), _) => return Err(error(problem)),
                // Without a rank, LyCORIS scales by 1, whatever the alpha.
                (Some(Ok(alpha)), _) => product_rank.map_or(1.0, |rank| alpha / rank as f64),
                (None, Some(config)) => config.scale(&path, product_rank)?,
                (None, None) => 1.0,
            };
            if let Some(bias) = self.take(TensorRole::LoraUpBias) {
                changes.bias.push(Change::Difference { values: bias, scale });
            }
            let magnitude = self.magnitude();
            if magnitude.is_none() && config.is_some_and(|config| config.uses_dora) {
                return Err(error("expected DoRA's magnitudes (`use_dora`), found none".to_owned()));
            }
            changes.weight.push(Change::Product(ScaledProduct { product, scale, magnitude }));
        }
        self.differences(&mut changes);
        self.whole(&mut changes, config.is_some_and(|config| config.has_whole_weights));
        changes.needs_bias = !changes.bias.is_empty();
        self.factors(&mut changes, &path, config).map_err(error)?;
        match self.tensors.into_values().next() {
            Some((name, _)) => {
                Err(error(format!("found the tensor {name} without the others that it belongs to")))
            }
            None => Ok(changes),
        }
    }

    fn take(&mut self, role: TensorRole) -> Option<Tensor> {
        self.tensors.remove(&role).map(|(_, tensor)| tensor)
    }

    fn has(&self, roles: &[TensorRole]) -> bool {
        roles.iter().any(|role| self.tensors.contains_key(role))
    }

    fn need(&mut self, role: TensorRole, what: &str) -> Problem<Tensor> {
        self.take(role).ok_or_else(|| format!("expected {what}, found none"))
    }

    /// The rotation of OFT, which its alpha limits.
    fn rotation(&mut self) -> Problem<Option<Rotation>> {
        let Some(blocks) = self.take(TensorRole::OftBlocks) else { return Ok(None) };
        let limit = match self.take(TensorRole::Alpha) {
            Some(alpha) => single(&alpha).map_err(|error| error.to_string())??,
            None => 0.0,
        };
        Rotation::new(&blocks, limit, self.take(TensorRole::Rescale)).map(Some)
    }

    /// The rotation of PEFT's OFT or BOFT.
    fn input_rotation(&mut self, config: Option<&PeftConfig>) -> Problem<Option<InputRotation>> {
        if let Some(triangles) = self.take(TensorRole::OftTriangles) {
            let Some(oft) = config.and_then(|config| config.oft) else {
                return Err("found an OFT of PEFT: expected adapter_config.json beside it, with `peft_type` OFT, which says how \
                            its numbers turn inputs"
                    .to_owned());
            };
            return InputRotation::oft(&triangles, oft).map(Some);
        }
        let Some(blocks) = self.take(TensorRole::BoftBlocks) else { return Ok(None) };
        let factors =
            self.need(TensorRole::BoftFactors, "BOFT's factors of outputs, boft_s, beside boft_R")?;
        InputRotation::boft(&blocks, factors).map(Some)
    }

    /// The product to add to the weight, of whichever kind.
    fn product(&mut self) -> Problem<Option<Product>> {
        use TensorRole::*;
        Ok(Some(if self.has(&[LoraDown, LoraUp]) {
            let (down, up) =
                (self.need(LoraDown, "a LoRA's down matrix")?, self.need(LoraUp, "a LoRA's up matrix")?);
            Product::LowRank(LowRank::new(down, self.take(LoraMid), up)?)
        } else if self.has(&[EmbeddingDown, EmbeddingUp]) {
            let what = "both matrices of a LoRA of embeddings";
            let (down, up) = (self.need(EmbeddingDown, what)?, self.need(EmbeddingUp, what)?);
            Product::Transposed(LowRank::new(down, None, up)?)
        } else if self.has(&[HadaW1A, HadaW1B, HadaW2A, HadaW2B]) {
            let first = self.factor(HadaW1A, HadaW1B, HadaT1)?;
            Product::Hadamard(first, self.factor(HadaW2A, HadaW2B, HadaT2)?)
        } else if self.has(&[LokrW1, LokrW1A, LokrW2, LokrW2A]) {
            let first = match self.take(LokrW1) {
                Some(whole) => Factor::Whole(matrix(whole)?),
                None => Factor::LowRank(self.low_rank(LokrW1A, LokrW1B, None)?),
            };
            let second = match self.take(LokrW2) {
                Some(whole) => Factor::Whole(matrix(whole)?),
                None => Factor::LowRank(self.factor(LokrW2A, LokrW2B, LokrT2)?),
            };
            Product::Kronecker(first, second)
        } else if self.has(&[GloraA1, GloraA2, GloraB1, GloraB2]) {
            let what = "all four of GLoRA's matrices";
            let (a1, a2) = (self.need(GloraA1, what)?, self.need(GloraA2, what)?);
            let (b1, b2) = (self.need(GloraB1, what)?, self.need(GloraB2, what)?);
            // Before 2.1, LyCORIS had these names swapped.
            let is_early = a1.dims().first() < a1.dims().get(1);
            let (a, b) = if is_early { ((a1, a2), (b1, b2)) } else { ((a2, a1), (b2, b1)) };
            Product::Generalized { a: LowRank::new(a.0, None, a.1)?, b: LowRank::new(b.0, None, b.1)? }
        } else {
            return Ok(None);
        }))
    }

    /// A low-rank matrix of LoHa or LoKr: `a` · `b`, or with a core, in which case `a` is transposed.
    fn factor(&mut self, a: TensorRole, b: TensorRole, core: TensorRole) -> Problem<LowRank> {
        let core = self.take(core);
        self.low_rank(a, b, core)
    }

    fn low_rank(&mut self, a: TensorRole, b: TensorRole, core: Option<Tensor>) -> Problem<LowRank> {
        let what = "both matrices of every factor";
        let (a, b) = (matrix(self.need(a, what)?)?, matrix(self.need(b, what)?)?);
        let up = match &core {
            Some(_) => a.t().and_then(|a| a.contiguous()).map_err(|error| error.to_string())?,
            None => a,
        };
        LowRank::new(b, core, up)
    }

    fn magnitude(&mut self) -> Option<Magnitude> {
        if let Some(values) = self.take(TensorRole::MagnitudeVector) {
            return Some(Magnitude { values, of: Side::Output, strength: StrengthOf::Product });
        }
        let values = self.take(TensorRole::DoraScale)?;
        // (out, 1, …), or (1, in, …) from early versions.
        let is_row = values.rank() > 1 && values.dims().first() == Some(&1) && values.elem_count() > 1;
        let of = if is_row { Side::Input } else { Side::Output };
        Some(Magnitude { values, of, strength: StrengthOf::Change })
    }

    /// Takes the differences that are added number by number.
    fn differences(&mut self, changes: &mut LayerChanges) {
        let mut take = |roles: [TensorRole; 2]| {
            let values = roles.map(|role| self.take(role)).into_iter().flatten();
            values.map(|values| Change::Difference { values, scale: 1.0 }).collect::<Vec<_>>()
        };
        changes.weight.extend(take([TensorRole::Difference, TensorRole::NormDifference]));
        changes.bias.extend(take([TensorRole::BiasDifference, TensorRole::NormBiasDifference]));
    }

    /// Takes weights that were trained as a whole, if the configuration says there are any.
    fn whole(&mut self, changes: &mut LayerChanges, is_said: bool) {
        if is_said && !self.has(&[TensorRole::Ia3OnInput]) {
            changes.weight.extend(self.take(TensorRole::Weight).map(Change::Replacement));
            changes.bias.extend(self.take(TensorRole::Bias).map(Change::Replacement));
        }
    }

    /// Takes the factors of (IA)³.
    fn factors(
        &mut self,
        changes: &mut LayerChanges,
        path: &str,
        config: Option<&PeftConfig>,
    ) -> Problem<()> {
        if let Some(on_input) = self.take(TensorRole::Ia3OnInput) {
            let on_input = single(&on_input).map_err(|error| error.to_string())?? != 0.0;
            let of = if on_input { Side::Input } else { Side::Output };
            // LyCORIS stores the factors minus 1.
            let factors = (self.need(TensorRole::Weight, "(IA)³'s factors")? + 1.0)
                .map_err(|error| error.to_string())?;
            changes.weight.push(Change::Factors { factors, of });
        }
        if let Some(factors) = self.take(TensorRole::Ia3Factors) {
            let of = match (factors.dims(), config) {
                ([_, 1], _) => Side::Output,
                ([1, _], _) => Side::Input,
                (_, Some(config)) if config.is_feedforward(path) => Side::Input,
                (_, Some(_)) => Side::Output,
                (found, None) => {
                    return Err(format!(
                        "(IA)³'s factors have shape {found:?}: expected adapter_config.json beside them, which says whether \
                         they are for inputs or for outputs"
                    ));
                }
            };
            if of == Side::Output {
                changes.bias.push(Change::Factors { factors: factors.clone(), of });
            }
            changes.weight.push(Change::Factors { factors, of });
        }
        Ok(())
    }
}

impl Product {
    /// The rank to divide alpha by. LoKr has several; its programs use that of the second factor.
    fn rank(&self) -> Option<usize> {
        let of = |factor: &Factor| match factor {
            Factor::Whole(_) => None,
            Factor::LowRank(low_rank) => Some(low_rank.rank()),
        };
        match self {
            Self::LowRank(one)
            | Self::Transposed(one)
            | Self::Hadamard(one, _)
            | Self::Generalized { b: one, .. } => Some(one.rank()),
            Self::Kronecker(first, second) => of(second).or(of(first)),
        }
    }
}

/// Checks that a tensor can be flattened to a matrix.
fn matrix(tensor: Tensor) -> Problem<Tensor> {
    match tensor.rank() {
        2.. if tensor.elem_count() > 0 => Ok(tensor),
        _ => Err(format!("expected a matrix, found shape {:?}", tensor.dims())),
    }
}

/// Reads a tensor with one element.
fn single(tensor: &Tensor) -> Result<Problem<f64>> {
    let value = match tensor.elem_count() {
        1 => tensor.flatten_all()?.to_vec1::<f32>()?.first().copied(),
        _ => None,
    };
    Ok(value.map(f64::from).ok_or_else(|| format!("expected one number, found shape {:?}", tensor.dims())))
}
