//! Computes losses and gradients, summed over parts of a batch.

use crate::error::Result;
use crate::hash::hash;
use crate::parallel::Communicator;
use crate::workers::Workers;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, TensorId, Var};
use rayon::prelude::*;
use std::collections::HashMap;

/// The losses of parts of a batch, with the sums of their gradients.
pub struct Gradients {
    /// The sum of the parts' losses.
    loss: f64,
    parts: usize,
    of: HashMap<TensorId, Tensor>,
}

impl Gradients {
    /// Differentiates a scalar loss.
    ///
    /// # Errors
    /// If the loss is not a scalar, or an operation has no gradient.
    pub fn of(loss: &Tensor) -> Result<Self> {
        Ok(Self { loss: scalar(loss)?, parts: 1, of: by_tensor(&loss.backward()?) })
    }

    /// Differentiates a loss over all rows of a batch that come from `chunks` passes through a model, in the memory
    /// of one pass: gradient caching (Gao et al., arXiv 2101.06983, section 3).
    ///
    /// `encode` returns the rows of a chunk, (n, width). The `workers` call it twice per chunk, and it must return
    /// the same rows again. `loss` takes all of them, (rows, width), in the order of the chunks. The result is the
    /// gradient of the whole batch, up to rounding.
    ///
    /// # Errors
    /// The errors of `encode` and `loss`; also if the loss does not depend on the rows.
    pub fn cached(
        workers: &Workers,
        chunks: usize,
        encode: impl Fn(usize) -> Result<Tensor> + Sync,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let rows = workers.map((0..chunks).collect(), |chunk| Ok(encode(chunk)?.detach()));
        let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
        Self::through(workers, &rows, loss, |chunk, _| encode(chunk))
    }

    /// Like [`cached`](Self::cached), but calls `encode` once per chunk, in the memory of all passes: the price of
    /// computing chunks at the same time.
    ///
    /// # Errors
    /// Like `cached`.
    pub fn joined(
        workers: &Workers,
        chunks: usize,
        encode: impl Fn(usize) -> Result<Tensor> + Sync,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let rows = workers.map((0..chunks).collect(), encode).into_iter().collect::<Result<Vec<_>>>()?;
        Self::through(workers, &rows, loss, |_, rows| Ok(rows.clone()))
    }

    /// Differentiates the loss by all `rows`, and then by each chunk, whose rows `differentiable` returns again.
    fn through(
        workers: &Workers,
        rows: &[Tensor],
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
        differentiable: impl Fn(usize, &Tensor) -> Result<Tensor> + Sync,
    ) -> Result<Self> {
        let all = Var::from_tensor(&Tensor::cat(rows, 0)?.detach())?;
        let mut gradients = Self::of(&loss(&all)?)?;
        let Some(of_rows) = gradients.of.remove(&all.id()) else {
            return Err(candle_core::Error::Msg("the loss does not depend on the rows".to_owned()).into());
        };
        let mut parts = Vec::with_capacity(rows.len());
        let mut first = 0;
        for (chunk, rows) in rows.iter().enumerate() {
            parts.push((chunk, rows, of_rows.narrow(0, first, rows.dim(0)?)?));
            first += rows.dim(0)?;
        }
        // By the chain rule, the inner product with the rows' gradient has the gradient of the loss.
        let stores = workers.map(parts, |(chunk, rows, of_rows)| {
            Ok(by_tensor(&(differentiable(chunk, rows)? * of_rows)?.sum_all()?.backward()?))
        });
        for store in stores {
            let store: Result<HashMap<TensorId, Tensor>> = store;
            gradients.extend(store?)?;
        }
        Ok(gradients)
    }

    /// Adds another part of the same batch.
    ///
    /// # Errors
    /// If a gradient has another shape.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.loss += other.loss;
        self.parts += other.parts;
        self.extend(other.of)
    }

    fn extend(&mut self, mut others: HashMap<TensorId, Tensor>) -> Result<()> {
        // Detached, since the sum would remember what it was made of.
        let add = |(id, sum): (&TensorId, &mut Tensor)| -> candle_core::Result<()> {
            if let Some(other) = others.get(id) {
                *sum = (&*sum + other)?.detach();
            }
            Ok(())
        };
        if self.of.values().all(|sum| sum.device().is_cpu()) {
            self.of.par_iter_mut().try_for_each(add)?;
        } else {
            self.of.iter_mut().try_for_each(add)?;
        }
        others.retain(|id, _| !self.of.contains_key(id));
        self.of.extend(others);
        Ok(())
    }

    /// Forgets the gradients of everything but these weights. The others are of a batch's own inputs, so a sum over
    /// batches would hold those of all batches.
    #[must_use]
    pub fn of_weights<'a>(mut self, weights: impl IntoIterator<Item = &'a Var>) -> Self {
        let kept = weights.into_iter().map(|weight| weight.id());
        self.of = kept.filter_map(|id| self.of.remove_entry(&id)).collect();
        self
    }

    /// Sums at least one part.
    ///
    /// # Errors
    /// If there are none, or their gradients have different shapes.
    pub fn sum(parts: impl IntoIterator<Item = Result<Self>>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else {
            return Err(candle_core::Error::Msg("a batch of no parts has no gradient".to_owned()).into());
        };
        let mut sum = first?;
        for part in parts {
            sum.add(part?)?;
        }
        Ok(sum)
    }

    /// Averages over all ranks, which must have gradients for the same `weights`.
    ///
    /// # Errors
    /// If a rank is lost, or has gradients for other weights.
    pub fn over_ranks<'a>(
        mut self,
        ranks: &dyn Communicator,
        weights: impl IntoIterator<Item = &'a Var>,
    ) -> Result<Self> {
        if ranks.ranks() == 1 {
            return Ok(self);
        }
        let loss = ranks.mean(self.loss())?;
        let (places, weights): (Vec<u64>, Vec<&Var>) =
            (0..).zip(weights).filter(|(_, weight)| self.of.contains_key(&weight.id())).unzip();
        // Zeros instead of a missing gradient would be another step than none: weight decay also moves weights.
        ranks.agree("weights with a gradient", hash(places.into_iter().flat_map(u64::to_le_bytes)))?;
        let own = weights.iter().filter_map(|weight| self.of_weight(weight).transpose());
        let means = ranks.means(own.map(|gradient| Ok(gradient?)))?;
        for (weight, mean) in weights.into_iter().zip(means) {
            self.of.insert(weight.id(), mean);
        }
        Ok(Self { loss, parts: 1, of: self.of })
    }

    /// The mean loss of the parts.
    pub fn loss(&self) -> f64 {
        self.loss / self.parts as f64
    }

    /// The mean gradient of the parts, in f32; `None` if the losses do not depend on the weight.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn of_weight(&self, weight: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(sum) = self.of.get(&weight.id()) else { return Ok(None) };
        let sum = sum.to_dtype(DType::F32)?;
        if self.parts > 1 { (sum / self.parts as f64).map(Some) } else { Ok(Some(sum)) }
    }
}

fn by_tensor(gradients: &GradStore) -> HashMap<TensorId, Tensor> {
    gradients.get_ids().filter_map(|&id| Some((id, gradients.get_id(id)?.clone()))).collect()
}

fn scalar(loss: &Tensor) -> Result<f64> {
    Ok(f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use candle_core::Device;
    use candle_nn::loss::cross_entropy;
    use fused_ops::Linear;

    /// A contrastive loss couples all rows, so wrong caching would give a wrong gradient.
    #[test]
    fn chunks_give_the_gradient_of_the_whole_batch() -> Result<()> {
        const ROWS: usize = 12;
        let device = &Device::Cpu;
        let parameters = Parameters::new(3);
        let vb = parameters.var_builder(device);
        let (first, last) =
            (Linear::new(5, 7, true, vb.pp("first"))?, Linear::new(7, 4, false, vb.pp("last"))?);
        let scale = vb.get_with_hints((), "scale", candle_nn::Init::Const(1.3))?;
        let inputs = Tensor::randn(0f32, 1., (ROWS, 5), device)?;
        let others = Tensor::randn(0f32, 1., (ROWS, 4), device)?;
        let encode = |x: &Tensor| Ok(last.forward(&first.forward(x)?.tanh()?)?);
        let loss = |rows: &Tensor| {
            let logits = rows.matmul(&others.t()?)?.broadcast_mul(&scale.exp()?)?;
            Ok(cross_entropy(&logits, &Tensor::arange(0u32, ROWS as u32, device)?)?)
        };
        let plain = Gradients::of(&loss(&encode(&inputs)?)?)?;
        // Chunks of 5, 5 and 2 rows.
        let chunk = |i: usize| encode(&inputs.narrow(0, 5 * i, 5.min(ROWS - 5 * i))?);
        let workers = Workers::new(2)?;
        let in_chunks =
            [Gradients::cached(&workers, 3, chunk, loss)?, Gradients::joined(&workers, 3, chunk, loss)?];
        for found in in_chunks {
            assert!((plain.loss() - found.loss()).abs() < 1e-6);
            for (name, weight) in parameters.iter() {
                let (Some(a), Some(b)) = (plain.of_weight(&weight)?, found.of_weight(&weight)?) else {
                    panic!("{name} has no gradient")
                };
                // Sums of 12 products of values near 1 in another order: a few units in the last place.
                let norm = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
                let error = norm(&(&a - &b)?)? / norm(&a)?;
                assert!(norm(&a)? > 1e-3 && error < 2e-6, "{name}: {error}");
            }
        }
        Ok(())
    }

    #[test]
    fn parts_are_averaged() -> Result<()> {
        let weight = Var::new(&[1f32, 2.], &Device::Cpu)?;
        let loss = |factor: f64| Gradients::of(&(weight.as_tensor() * factor)?.sum_all()?);
        let sum = Gradients::sum([loss(1.), loss(3.)])?;
        assert_eq!(sum.loss(), 6.);
        let Some(gradient) = sum.of_weight(&weight)? else { panic!("no gradient") };
        assert_eq!(gradient.to_vec1::<f32>()?, [2., 2.]);
        assert!(Gradients::sum([]).is_err());
        Ok(())
    }

    /// A batch's inputs have gradients too, which would be those of all batches in the sum.
    #[test]
    fn a_sum_over_batches_holds_the_weights_gradients_alone() -> Result<()> {
        let weight = Var::new(&[1f32, 2.], &Device::Cpu)?;
        let batch = |number: u8| {
            let input = Tensor::new(&[f32::from(number), 1.], &Device::Cpu)?;
            Ok(Gradients::of(&(weight.as_tensor() * input)?.sum_all()?)?.of_weights([&weight]))
        };
        let sum = Gradients::sum((1..=100).map(batch))?;
        assert_eq!(sum.of.len(), 1);
        let Some(gradient) = sum.of_weight(&weight)? else { panic!("no gradient") };
        assert_eq!(gradient.to_vec1::<f32>()?, [50.5, 1.]);
        Ok(())
    }
}
