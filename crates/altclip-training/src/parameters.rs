//! Holds the weights of a model in training, by their names in its checkpoint.

use crate::hash::{BASIS, hash_from};
use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::init::{Init, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Named weights, created as a model's layers ask for them.
///
/// They come from a checkpoint, or from the seed and their name alone, so that the order of construction does not
/// matter. Trained ones are variables; the others are plain tensors without gradients.
#[derive(Clone)]
pub struct Parameters {
    seed: u64,
    dtype: DType,
    initial: Option<VarBuilder<'static>>,
    is_trained: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    weights: Arc<Mutex<Weights>>,
}

#[derive(Default)]
struct Weights {
    trained: BTreeMap<String, Var>,
    frozen: BTreeMap<String, Tensor>,
    /// Names of weights missing from the checkpoint.
    fresh: Vec<String>,
}

impl Parameters {
    /// Weights initialised from a seed, all of them trained, in f32.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            dtype: DType::F32,
            initial: None,
            is_trained: Arc::new(|_| true),
            weights: Arc::default(),
        }
    }

    /// Takes the weights that `initial` has from it.
    #[must_use]
    pub fn starting_from(mut self, initial: VarBuilder<'static>) -> Self {
        self.initial = Some(initial);
        self
    }

    /// Trains only the weights whose name `choose` accepts.
    #[must_use]
    pub fn training(mut self, choose: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.is_trained = Arc::new(choose);
        self
    }

    /// Makes the model compute in `dtype`. The optimizer keeps its own copies in f32.
    #[must_use]
    pub fn computing_in(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// A builder that creates the weights a model asks for.
    pub fn var_builder(&self, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), self.dtype, device.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Weights> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every trained weight with its name, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (String, Var)> {
        self.lock().trained.clone().into_iter()
    }

    /// The number of values of all trained weights together.
    pub fn count(&self) -> usize {
        self.lock().trained.values().map(|var| var.elem_count()).sum()
    }

    /// The names of the weights missing from the checkpoint, which were initialised from the seed.
    pub fn fresh(&self) -> Vec<String> {
        self.lock().fresh.clone()
    }

    /// Scales the trained weights whose name `choose` accepts, for residual branches that should start near zero.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scale(&self, factor: f64, choose: impl Fn(&str) -> bool) -> Result<()> {
        for (_, var) in self.iter().filter(|(name, _)| choose(name)) {
            var.set(&(var.as_tensor() * factor)?)?;
        }
        Ok(())
    }

    /// Copies of all weights, including frozen ones.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut weights = self.lock().frozen.clone();
        for (name, var) in self.iter() {
            weights.insert(name, var.as_tensor().copy()?);
        }
        Ok(weights)
    }

    /// All weights, including frozen ones, with the trained ones replaced by `trained`.
    pub fn with(&self, trained: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let mut weights = self.lock().frozen.clone();
        weights.extend(trained);
        weights
    }

    /// Sets the trained weights from tensors of the same names.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, var) in self.iter() {
            let Some(tensor) = tensors.get(&name) else {
                candle_core::bail!("no tensor `{name}` of shape {:?}", var.dims());
            };
            if tensor.dims() != var.dims() {
                candle_core::bail!(
                    "tensor `{name}` has shape {:?}, expected {:?}",
                    tensor.dims(),
                    var.dims()
                );
            }
            var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?.contiguous()?)?;
        }
        Ok(())
    }

    /// FNV-1a of the name, mixed with the seed.
    fn seed_of(&self, name: &str) -> u64 {
        hash_from(BASIS ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), name.bytes())
    }

    fn initial(&self, shape: &Shape, name: &str, init: Init) -> Vec<f32> {
        let n = shape.elem_count();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed_of(name));
        let mut uniform = |lo: f64, up: f64| (0..n).map(|_| rng.random_range(lo..=up) as f32).collect();
        match init {
            Init::Const(value) => vec![value as f32; n],
            Init::Uniform { lo, up } => uniform(lo, up),
            Init::Kaiming { dist: NormalOrUniform::Uniform, fan, non_linearity } => {
                let bound = 3f64.sqrt() * non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                uniform(-bound, bound)
            }
            Init::Kaiming { dist: NormalOrUniform::Normal, fan, non_linearity } => {
                let stdev = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                normal(&mut rng, n, 0., stdev)
            }
            Init::Randn { mean, stdev } => normal(&mut rng, n, mean, stdev),
        }
    }
}

/// A builder from weights that are no longer trained: without gradients, and in f32.
pub fn frozen(weights: &BTreeMap<String, Tensor>, device: &Device) -> VarBuilder<'static> {
    let weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
    VarBuilder::from_tensors(weights, DType::F32, device)
}

fn normal(rng: &mut ChaCha8Rng, n: usize, mean: f64, stdev: f64) -> Vec<f32> {
    (0..n).map(|_| (mean + stdev * rng.sample::<f64, _>(StandardNormal)) as f32).collect()
}

impl Parameters {
    /// A weight's initial value in a new model.
    fn create(&self, shape: Shape, name: &str, init: Init, device: &Device) -> Result<(Tensor, bool)> {
        match &self.initial {
            Some(initial) if initial.contains_tensor(name) => {
                Ok((initial.get(shape, name)?.to_device(device)?.to_dtype(self.dtype)?, false))
            }
            _ => {
                let values = self.initial(&shape, name, init);
                Ok((Tensor::from_vec(values, shape, device)?.to_dtype(self.dtype)?, self.initial.is_some()))
            }
        }
    }
}

impl SimpleBackend for Parameters {
    fn get(&self, shape: Shape, name: &str, init: Init, _: DType, device: &Device) -> Result<Tensor> {
        let mut weights = self.lock();
        let known = weights.trained.get(name).map(Var::as_tensor).or_else(|| weights.frozen.get(name));
        if let Some(known) = known {
            if known.shape() != &shape {
                candle_core::bail!("weight `{name}` is asked for as {shape:?} and as {:?}", known.shape());
            }
            return Ok(known.clone());
        }
        let (tensor, is_fresh) = self.create(shape, name, init, device)?;
        if is_fresh {
            weights.fresh.push(name.to_owned());
        }
        if !(self.is_trained)(name) {
            weights.frozen.insert(name.to_owned(), tensor.clone());
            return Ok(tensor);
        }
        let var = Var::from_tensor(&tensor.contiguous()?)?;
        let tensor = var.as_tensor().clone();
        weights.trained.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let weights = self.lock();
        match weights.trained.get(name).map(Var::as_tensor).or_else(|| weights.frozen.get(name)) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("weight `{name}` is asked for without a shape before it exists"),
        }
    }

    /// A model in training has exactly the weights of its configuration, or those of its checkpoint.
    fn contains_tensor(&self, name: &str) -> bool {
        let weights = self.lock();
        weights.trained.contains_key(name)
            || weights.frozen.contains_key(name)
            || self.initial.as_ref().is_some_and(|initial| initial.contains_tensor(name))
    }
}
