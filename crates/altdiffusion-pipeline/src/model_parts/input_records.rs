//! Records what the linear layers of a model take in.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use fused_ops::INPUT_RECORD;

use crate::Result;

/// The rows of each layer's input that are kept.
const ROWS: usize = 128;

/// Places for the inputs of layers, by the names of their weights.
pub(super) struct InputRecords(Arc<BTreeMap<String, Var>>);

impl InputRecords {
    /// Places for layers with these numbers of input channels.
    pub(super) fn new(channels: &BTreeMap<String, usize>) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (name, channels) in channels {
            places.insert(name.clone(), Var::zeros((1 + ROWS, *channels), DType::F32, &Device::Cpu)?);
        }
        Ok(Self(Arc::new(places)))
    }

    /// Wraps `weights` so that the layers that read them record their inputs.
    pub(super) fn over(&self, weights: VarBuilder<'static>) -> VarBuilder<'static> {
        let (dtype, device) = (weights.dtype(), weights.device().clone());
        VarBuilder::from_backend(Box::new(Recording { weights, places: self.0.clone() }), dtype, device)
    }

    /// The largest absolute value of each channel of a layer's input, and rows of it, (rows, channels).
    pub(super) fn of_layer(&self, weight: &str) -> Result<Option<(Vec<f32>, Tensor)>> {
        let Some(place) = self.0.get(weight) else { return Ok(None) };
        let largest = place.get(0)?.to_vec1()?;
        // A copy, since the place may be written to again.
        Ok(Some((largest, place.narrow(0, 1, ROWS)?.detach().copy()?)))
    }
}

/// A candle backend with a place beside each weight.
struct Recording {
    weights: VarBuilder<'static>,
    places: Arc<BTreeMap<String, Var>>,
}

impl Recording {
    fn place(&self, name: &str) -> Option<&Var> {
        let (weight, _) = name.rsplit_once('.').filter(|_| name.ends_with(INPUT_RECORD))?;
        self.places.get(weight)
    }
}

impl SimpleBackend for Recording {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        self.weights.get_with_hints_dtype(shape, name, init, dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.place(name) {
            Some(place) => Ok(place.as_tensor().clone()),
            None => self.weights.get_unchecked_dtype(name, dtype),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.place(name).is_some() || self.weights.contains_tensor(name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fused_ops::Linear;
    use test_support::TestResult;

    use super::*;

    #[test]
    fn layers_record_their_largest_inputs_and_rows() -> TestResult {
        let records = InputRecords::new(&BTreeMap::from([("a.b.weight".to_owned(), 2)]))?;
        let weight = Tensor::new(&[[1f32, 1.], [2., 0.], [0., 1.]], &Device::Cpu)?;
        let tensors =
            HashMap::from([("a.b.weight".to_owned(), weight.clone()), ("c.weight".to_owned(), weight)]);
        let vb = records.over(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu));
        let (recorded, other) =
            (Linear::new(2, 3, false, vb.pp("a.b"))?, Linear::new(2, 3, false, vb.pp("c"))?);
        for input in [[[1f32, -4.], [2., 3.]], [[-5., 0.], [0., 1.]]] {
            let input = Tensor::new(&input, &Device::Cpu)?;
            let (found, expected) = (recorded.forward(&input)?, other.forward(&input)?);
            assert_eq!(found.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
        }
        let (largest, rows) = records.of_layer("a.b.weight")?.ok_or("no record")?;
        assert_eq!(largest, [5., 4.]);
        let rows = rows.to_vec2::<f32>()?;
        assert_eq!(rows[..5], [[1., -4.], [2., 3.], [-5., 0.], [0., 1.], [0., 0.]]);
        assert!(records.of_layer("c.weight")?.is_none());
        Ok(())
    }
}
