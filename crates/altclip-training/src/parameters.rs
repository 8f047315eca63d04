//! The trainable weights of a model, by the names of its checkpoint.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::init::{Init, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Named variables that a model's layers create while it is built, initialised from a seed and their name alone, so
/// that the order of construction does not matter.
#[derive(Clone)]
pub struct Parameters {
    seed: u64,
    vars: Arc<Mutex<BTreeMap<String, Var>>>,
}

impl Parameters {
    /// No weights yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, vars: Arc::default() }
    }

    /// A builder that creates the weights which a model asks for.
    pub fn var_builder(&self, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, device.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Var>> {
        self.vars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every variable with its name, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (String, Var)> {
        self.lock().clone().into_iter()
    }

    /// The number of values of all weights together.
    pub fn count(&self) -> usize {
        self.lock().values().map(|var| var.elem_count()).sum()
    }

    /// Multiplies the weights whose name `choose` accepts, as residual branches that should start near zero.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scale(&self, factor: f64, choose: impl Fn(&str) -> bool) -> Result<()> {
        for (_, var) in self.iter().filter(|(name, _)| choose(name)) {
            var.set(&(var.as_tensor() * factor)?)?;
        }
        Ok(())
    }

    /// Copies of all weights.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        self.iter().map(|(name, var)| Ok((name, var.as_tensor().copy()?))).collect()
    }

    /// Sets weights from tensors of the same names.
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
            var.set(&tensor.to_dtype(DType::F32)?.to_device(var.device())?.contiguous()?)?;
        }
        Ok(())
    }

    /// FNV-1a of the name, mixed with the seed.
    fn seed_of(&self, name: &str) -> u64 {
        name.bytes()
            .fold(0xcbf2_9ce4_8422_2325 ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
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

fn normal(rng: &mut ChaCha8Rng, n: usize, mean: f64, stdev: f64) -> Vec<f32> {
    (0..n).map(|_| (mean + stdev * rng.sample::<f64, _>(StandardNormal)) as f32).collect()
}

impl SimpleBackend for Parameters {
    fn get(&self, shape: Shape, name: &str, init: Init, _: DType, device: &Device) -> Result<Tensor> {
        let mut vars = self.lock();
        if let Some(var) = vars.get(name) {
            if var.shape() != &shape {
                candle_core::bail!("weight `{name}` is asked for as {shape:?} and as {:?}", var.shape());
            }
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_vec(self.initial(&shape, name, init), shape, device)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.lock().get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("weight `{name}` is asked for without a shape before it exists"),
        }
    }

    /// A model that is trained has exactly the weights that its configuration names.
    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}
