//! Fuses linear layers that read the same input.

use super::linear::Linear;
use candle_core::{D, Result, Tensor};

/// Layers that read the same input, such as the projections to queries, keys and values.
///
/// On a GPU they are a single product, with their columns side by side.
#[derive(Debug, Clone)]
pub struct LinearGroup<const N: usize>(Group<N>);

#[derive(Debug, Clone)]
enum Group<const N: usize> {
    Apart([Linear; N]),
    Joined {
        layer: Linear,
        /// Columns of each layer.
        widths: [usize; N],
    },
}

impl<const N: usize> LinearGroup<N> {
    /// Groups layers, fusing them on a GPU unless they are trained or one has a LoRA.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(layers: [Linear; N]) -> Result<Self> {
        let movable: Option<Vec<_>> = layers.iter().map(Linear::movable).collect();
        match movable.map(|tensors| join(&tensors)).transpose()?.flatten() {
            Some((layer, widths)) => Ok(Self(Group::Joined { layer, widths })),
            None => Ok(Self(Group::Apart(layers))),
        }
    }

    /// `(…, in)` to `(…, out)` for each layer. The results may be views of one tensor.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<[Tensor; N]> {
        let mut results = Vec::with_capacity(N);
        match &self.0 {
            Group::Apart(layers) => {
                for layer in layers {
                    results.push(layer.forward(x)?);
                }
            }
            Group::Joined { layer, widths } => {
                let (y, mut begin) = (layer.forward(x)?, 0);
                for &width in widths {
                    results.push(y.narrow(D::Minus1, begin, width)?);
                    begin += width;
                }
            }
        }
        results.try_into().map_err(|_| candle_core::Error::msg("a group of layers lost some of them"))
    }
}

/// Fuses layers into one, with the columns of each; `None` if only some have biases, or the inputs differ.
fn join<const N: usize>(layers: &[(&Tensor, Option<&Tensor>)]) -> Result<Option<(Linear, [usize; N])>> {
    let weights: Vec<&Tensor> = layers.iter().map(|(weight, _)| *weight).collect();
    let biases: Vec<&Tensor> = layers.iter().filter_map(|(_, bias)| *bias).collect();
    let inputs = weights.iter().map(|weight| weight.dim(1)).collect::<Result<Vec<_>>>()?;
    let widths = weights.iter().map(|weight| weight.dim(0)).collect::<Result<Vec<_>>>()?;
    let alike = inputs.windows(2).all(|pair| pair[0] == pair[1]);
    let Ok(widths) = <[usize; N]>::try_from(widths) else { return Ok(None) };
    if !alike || !(biases.is_empty() || biases.len() == N) {
        return Ok(None);
    }
    let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
    Ok(Some((Linear::from_tensors(Tensor::cat(&weights, 0)?, bias)?, widths)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn joined_layers_give_what_they_give_apart() -> Result<()> {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu);
        let (x, shapes) = (random(&[2, 5, 24])?, [[16, 24], [40, 24], [8, 24]]);
        for biased in [false, true] {
            let tensors = shapes
                .iter()
                .map(|shape| Ok((random(shape)?, biased.then(|| random(&shape[..1])).transpose()?)))
                .collect::<Result<Vec<_>>>()?;
            let parts: Vec<_> = tensors.iter().map(|(weight, bias)| (weight, bias.as_ref())).collect();
            let (layer, widths) = join::<3>(&parts)?.expect("layers that can be joined");
            let joined = LinearGroup(Group::Joined { layer, widths }).forward(&x)?;
            let apart = tensors.into_iter().map(|(weight, bias)| Linear::from_tensors(weight, bias));
            let apart: [Linear; 3] = apart.collect::<Result<Vec<_>>>()?.try_into().expect("three layers");
            for (joined, apart) in joined.iter().zip(LinearGroup::new(apart)?.forward(&x)?) {
                let difference =
                    (joined - apart)?.to_dtype(DType::F64)?.abs()?.max_all()?.to_scalar::<f64>()?;
                // Sums of 24 products of values about 1.
                assert!(difference < 1e-4, "{difference}");
            }
        }
        Ok(())
    }

    #[test]
    fn only_layers_that_fit_are_joined() -> Result<()> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let (narrow, wide, bias) = (zeros(&[4, 8])?, zeros(&[4, 16])?, zeros(&[4])?);
        assert!(join::<2>(&[(&narrow, None), (&wide, None)])?.is_none());
        assert!(join::<2>(&[(&narrow, Some(&bias)), (&narrow, None)])?.is_none());
        assert!(join::<2>(&[(&narrow, Some(&bias)), (&narrow, Some(&bias))])?.is_some());
        Ok(())
    }
}
