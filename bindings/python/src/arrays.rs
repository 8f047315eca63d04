//! Converts between NumPy's arrays and tensors.

use candle_core::{DType, Device, Tensor};
use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::Result;

/// Numbers with their shape, on their way to or from Python.
#[derive(Debug)]
pub(crate) struct Numbers<T = f32> {
    pub(crate) values: Vec<T>,
    pub(crate) shape: Vec<usize>,
}

impl Numbers {
    /// The numbers of a tensor, from any device.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { values, shape: tensor.dims().to_vec() })
    }

    /// A tensor on the CPU.
    pub(crate) fn tensor(self) -> candle_core::Result<Tensor> {
        Tensor::from_vec(self.values, self.shape, &Device::Cpu)
    }
}

/// A type of numbers that arrays have here.
pub(crate) trait Number: Element {
    /// NumPy's name for it.
    const NAME: &'static str;
}

impl Number for f32 {
    const NAME: &'static str = "float32";
}

impl Number for u8 {
    const NAME: &'static str = "uint8";
}

impl<T: Number> Numbers<T> {
    /// An array of NumPy.
    pub(crate) fn array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shape = PyTuple::new(py, &self.shape)?;
        let array = py.import("numpy")?.call_method1("empty", (shape, T::NAME))?;
        PyBuffer::<T>::get(&array)?.copy_from_slice(py, &self.values)?;
        Ok(array)
    }
}

/// From an array of f32.
impl<'py> FromPyObject<'_, 'py> for Numbers {
    type Error = PyErr;

    fn extract(array: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<f32>::get(&array)?;
        Ok(Self { values: buffer.to_vec(array.py())?, shape: buffer.shape().to_vec() })
    }
}
