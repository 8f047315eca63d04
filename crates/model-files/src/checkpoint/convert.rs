//! Converts the bytes in a file to a tensor in the type that the model computes in.

use std::fmt;

use candle_core::{DType, Device, Tensor, WithDType};
use fused_ops::BlockType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::element::ElementType;
use super::float8;
use super::stored::StoredTensor;

/// Elements converted at a time, to fit the L1 cache.
const BLOCK: usize = 1024;
/// Elements worth a task of their own. Most of the time goes into page faults of the file and of new memory, which
/// threads take in parallel.
const ELEMENTS_PER_TASK: usize = 64 * BLOCK;

/// Why a tensor cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Its element type has no conversion; says which.
    Type(String),
    Candle(candle_core::Error),
}

impl From<candle_core::Error> for Unreadable {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(problem) => f.write_str(problem),
            Self::Candle(error) => error.fmt(f),
        }
    }
}

/// Why elements of a type cannot be read; `None` if they can.
pub(super) fn problem(dtype: Dtype) -> Option<String> {
    let is_read = candle_dtype(dtype).is_some()
        || matches!(dtype, Dtype::I8 | Dtype::U16 | Dtype::U64)
        || float8::values(dtype).is_some();
    (!is_read).then(|| format!("its elements are of type {dtype}, which has no conversion"))
}

/// Reads a tensor of `file`.
///
/// Floating-point elements are converted from the file directly into the tensor's memory.
///
/// # Errors
/// If its element type has no conversion.
pub(super) fn read_tensor(
    file: &[u8],
    tensor: &StoredTensor,
    dtype: DType,
    device: &Device,
) -> Result<Tensor, Unreadable> {
    let bytes = tensor.element_bytes(file);
    let shape = tensor.shape.as_slice();
    let stored = match tensor.dtype {
        ElementType::Plain(stored) => stored,
        ElementType::Quantized(kind) => {
            return Ok(match dtype {
                DType::F16 => dequantized::<f16>(kind, &bytes, shape, device),
                DType::BF16 => dequantized::<bf16>(kind, &bytes, shape, device),
                _ => dequantized::<f32>(kind, &bytes, shape, device)?.to_dtype(dtype),
            }?);
        }
    };
    if let Some(problem) = problem(stored) {
        return Err(Unreadable::Type(problem));
    }
    let small = float8::values(stored);
    Ok(match (stored, dtype) {
        (Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16, DType::F32) => {
            floats::<f32>(&bytes, stored, shape, device)
        }
        (Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16, DType::F16) => {
            floats::<f16>(&bytes, stored, shape, device)
        }
        (Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16, DType::BF16) => {
            floats::<bf16>(&bytes, stored, shape, device)
        }
        (Dtype::F64, _) => Tensor::from_vec(elements(&bytes, f64::from_le_bytes), shape, device),
        (Dtype::F32, _) => Tensor::from_vec(elements(&bytes, f32::from_le_bytes), shape, device),
        (Dtype::F16, _) => Tensor::from_vec(elements(&bytes, f16::from_le_bytes), shape, device),
        (Dtype::BF16, _) => Tensor::from_vec(elements(&bytes, bf16::from_le_bytes), shape, device),
        (Dtype::I64, _) => Tensor::from_vec(elements(&bytes, i64::from_le_bytes), shape, device),
        (Dtype::I32, _) => Tensor::from_vec(elements(&bytes, i32::from_le_bytes), shape, device),
        (Dtype::U32, _) => Tensor::from_vec(elements(&bytes, u32::from_le_bytes), shape, device),
        (Dtype::I16, _) => Tensor::from_vec(elements(&bytes, i16::from_le_bytes), shape, device),
        (Dtype::I8, _) => {
            Tensor::from_vec(elements(&bytes, |byte| i16::from(i8::from_le_bytes(byte))), shape, device)
        }
        (Dtype::U16, _) => {
            Tensor::from_vec(elements(&bytes, |bytes| i32::from(u16::from_le_bytes(bytes))), shape, device)
        }
        // The largest values, which are not ids, saturate.
        (Dtype::U64, _) => {
            let number = |bytes| i64::try_from(u64::from_le_bytes(bytes)).unwrap_or(i64::MAX);
            Tensor::from_vec(elements(&bytes, number), shape, device)
        }
        _ => match (small, dtype) {
            (Some(values), DType::F16) => looked_up::<f16>(&bytes, &values, shape, device),
            (Some(values), DType::BF16) => looked_up::<bf16>(&bytes, &values, shape, device),
            (Some(values), _) => looked_up::<f32>(&bytes, &values, shape, device),
            // Bytes and booleans, the remaining types.
            (None, _) => Tensor::from_vec(bytes.into_owned(), shape, device),
        },
    }?
    .to_dtype(dtype)?)
}

/// The type in memory for elements of type `stored`, if candle has it.
pub(super) fn candle_dtype(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::I64 => Some(DType::I64),
        Dtype::I32 => Some(DType::I32),
        Dtype::U32 => Some(DType::U32),
        Dtype::I16 => Some(DType::I16),
        Dtype::U8 | Dtype::BOOL => Some(DType::U8),
        _ => None,
    }
}

/// Reads a floating-point tensor as `T`.
#[allow(clippy::cast_possible_truncation, reason = "converts to a type of fewer bits, as asked")]
fn floats<T: Float>(
    bytes: &[u8],
    stored: Dtype,
    shape: &[usize],
    device: &Device,
) -> candle_core::Result<Tensor> {
    let values = match stored {
        dtype if dtype == T::STORED => T::decode(bytes),
        Dtype::F32 => converted(bytes, |from, to| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f32::from_le_bytes(*from);
            }
        }),
        Dtype::F64 => converted(bytes, |from, to| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f64::from_le_bytes(*from) as f32;
            }
        }),
        Dtype::F16 => converted(bytes, |from: &[[u8; 2]], to| {
            let mut halves = [f16::ZERO; BLOCK];
            for (half, from) in halves.iter_mut().zip(from) {
                *half = f16::from_le_bytes(*from);
            }
            halves[..to.len()].convert_to_f32_slice(to);
        }),
        // bf16, the remaining type.
        _ => converted(bytes, |from, to| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = bf16::from_le_bytes(*from).to_f32();
            }
        }),
    };
    Tensor::from_vec(values, shape, device)
}

/// Reads a tensor of 8-bit values as `T` through a lookup table.
fn looked_up<T: Float>(
    bytes: &[u8],
    values: &[f32; 256],
    shape: &[usize],
    device: &Device,
) -> candle_core::Result<Tensor> {
    let elements = converted::<T, 1>(bytes, |from, to| {
        for (to, [from]) in to.iter_mut().zip(from) {
            *to = values[usize::from(*from)];
        }
    });
    Tensor::from_vec(elements, shape, device)
}

/// Dequantizes a tensor to `T`, without a full copy in f32.
fn dequantized<T: Float>(
    kind: BlockType,
    bytes: &[u8],
    shape: &[usize],
    device: &Device,
) -> candle_core::Result<Tensor> {
    // A multiple of every type's block size.
    const VALUES: usize = BLOCK;
    let mut values = vec![T::zero(); bytes.len() / kind.block_bytes() * kind.block_values()];
    let tasks = values.par_chunks_mut(ELEMENTS_PER_TASK);
    let bytes = bytes.par_chunks(ELEMENTS_PER_TASK / kind.block_values() * kind.block_bytes());
    tasks.zip(bytes).try_for_each(|(values, bytes)| {
        let mut numbers = [0.0; VALUES];
        let bytes = bytes.chunks(VALUES / kind.block_values() * kind.block_bytes());
        for (values, bytes) in values.chunks_mut(VALUES).zip(bytes) {
            let numbers = &mut numbers[..values.len()];
            kind.dequantize(bytes, numbers)?;
            T::round(numbers, values);
        }
        Ok::<_, candle_core::Error>(())
    })?;
    Tensor::from_vec(values, shape, device)
}

/// A dtype that models compute in.
trait Float: WithDType {
    /// The same type in a file.
    const STORED: Dtype;

    /// Decodes elements of this type.
    fn decode(bytes: &[u8]) -> Vec<Self>;

    /// Rounds `values` to this type.
    fn round(values: &[f32], to: &mut [Self]);
}

impl Float for f32 {
    const STORED: Dtype = Dtype::F32;

    fn decode(bytes: &[u8]) -> Vec<Self> {
        elements(bytes, f32::from_le_bytes)
    }

    fn round(values: &[f32], to: &mut [Self]) {
        to.copy_from_slice(values);
    }
}

impl Float for f16 {
    const STORED: Dtype = Dtype::F16;

    fn decode(bytes: &[u8]) -> Vec<Self> {
        elements(bytes, f16::from_le_bytes)
    }

    fn round(values: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(values);
    }
}

impl Float for bf16 {
    const STORED: Dtype = Dtype::BF16;

    fn decode(bytes: &[u8]) -> Vec<Self> {
        elements(bytes, bf16::from_le_bytes)
    }

    fn round(values: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(values);
    }
}

/// Decodes the little-endian elements of `WIDTH` bytes in `bytes`.
fn elements<T: Send, const WIDTH: usize>(bytes: &[u8], decode: impl Fn([u8; WIDTH]) -> T + Sync) -> Vec<T> {
    let elements = bytes.as_chunks().0.par_iter().with_min_len(ELEMENTS_PER_TASK);
    elements.map(|element| decode(*element)).collect()
}

/// Decodes elements of `WIDTH` bytes to f32 block by block, and rounds them to `T`.
fn converted<T: Float, const WIDTH: usize>(
    bytes: &[u8],
    decode: impl Fn(&[[u8; WIDTH]], &mut [f32]) + Sync,
) -> Vec<T> {
    let elements = bytes.as_chunks().0;
    let mut result = vec![T::zero(); elements.len()];
    let tasks = result.par_chunks_mut(ELEMENTS_PER_TASK).zip(elements.par_chunks(ELEMENTS_PER_TASK));
    tasks.for_each(|(result, elements)| {
        let mut block = [0.0; BLOCK];
        for (result, elements) in result.chunks_mut(BLOCK).zip(elements.chunks(BLOCK)) {
            let block = &mut block[..elements.len()];
            decode(elements, block);
            T::round(block, result);
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 7] = [0.0, -1.0, 0.1, 65504.0, -3.0e-5, f32::INFINITY, 1.0e-8];

    fn read(bytes: Vec<u8>, stored: Dtype, dtype: DType) -> Tensor {
        let shape = vec![bytes.len() * 8 / stored.bitsize()];
        let tensor = StoredTensor::plain(ElementType::Plain(stored), shape, 0..bytes.len());
        read_tensor(&bytes, &tensor, dtype, &Device::Cpu).unwrap()
    }

    /// The bytes of `count` numbers in each floating-point type.
    fn encodings(count: usize) -> [(Dtype, Vec<u8>); 4] {
        let values = || VALUES.into_iter().cycle().take(count);
        [
            (Dtype::F64, values().flat_map(|v| f64::from(v).to_le_bytes()).collect()),
            (Dtype::F32, values().flat_map(f32::to_le_bytes).collect()),
            (Dtype::F16, values().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect()),
            (Dtype::BF16, values().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect()),
        ]
    }

    #[test]
    fn every_float_type_converts_to_every_other_as_candle_does() {
        // A little more than a block, so that the last one is partial.
        for (stored, bytes) in encodings(BLOCK + 5) {
            let as_stored = read(bytes.clone(), stored, candle_dtype(stored).unwrap());
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let found = read(bytes.clone(), stored, dtype);
                assert_eq!(found.dtype(), dtype);
                let expected = as_stored.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
                let found = found.to_dtype(DType::F32).unwrap();
                assert_eq!(
                    found.to_vec1::<f32>().unwrap(),
                    expected.to_vec1::<f32>().unwrap(),
                    "{stored} {dtype:?}"
                );
            }
        }
    }

    #[test]
    fn integers_convert_when_asked_for() {
        let bytes = [0i64, 1, 513].iter().flat_map(|v| v.to_le_bytes()).collect();
        let ids = read(bytes, Dtype::I64, DType::U32);
        assert_eq!(ids.to_vec1::<u32>().unwrap(), [0, 1, 513]);
    }

    #[test]
    fn integers_of_every_width_become_numbers() {
        let numbers = |bytes: &[u8], stored| {
            let found = read(bytes.to_vec(), stored, DType::F32).to_vec1::<f32>().unwrap();
            assert_eq!(found.len(), 2, "{stored}");
            (found[0], found[1])
        };
        assert_eq!(numbers(&[0x80, 0x7f], Dtype::I8), (-128., 127.));
        assert_eq!(numbers(&[0, 1], Dtype::BOOL), (0., 1.));
        assert_eq!(numbers(&[0x00, 0x80, 0xff, 0xff], Dtype::I16), (-32768., -1.));
        assert_eq!(numbers(&[0x00, 0x80, 0xff, 0xff], Dtype::U16), (32768., 65535.));
        let large = [1u64, u64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(numbers(&large, Dtype::U64), (1., i64::MAX as f32));
    }

    #[test]
    fn numbers_of_eight_bits_convert_to_every_type_of_floats() {
        for stored in [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ, Dtype::F8_E8M0]
        {
            let values = float8::values(stored).unwrap();
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let found = read((0..=255).collect(), stored, dtype);
                assert_eq!(found.dtype(), dtype);
                let found = found.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                let expected = Tensor::new(&values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let expected = expected.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                let same = |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan();
                assert!(found.iter().zip(&expected).all(same), "{stored} {dtype:?}");
            }
        }
    }

    #[test]
    fn types_without_conversion_are_told() {
        for (dtype, bits) in [(Dtype::C64, 64), (Dtype::F4, 4), (Dtype::F6_E2M3, 6)] {
            let tensor = StoredTensor::plain(ElementType::Plain(dtype), vec![4], 0..bits / 2);
            let failure = read_tensor(&[0; 32], &tensor, DType::F32, &Device::Cpu).unwrap_err();
            assert_eq!(
                failure.to_string(),
                format!("its elements are of type {dtype}, which has no conversion")
            );
        }
    }
}
