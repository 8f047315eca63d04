//! Writes a checkpoint's tensors in small pieces, so that no model has to fit into memory, and converts them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use candle_core::{DType, Device};
use fused_ops::BlockType;
use half::{bf16, f16};
use safetensors::Dtype;

use crate::checkpoint::convert;
use crate::checkpoint::element::{ElementType, element_count};
use crate::checkpoint::scales::{SMOOTHING, Scales};
use crate::checkpoint::stored::StoredTensor;
use crate::checkpoint::tables::Located;
use crate::checkpoint::tensors::Checkpoint;
use crate::error::{Error, Result};
use crate::file_data::FileData;

/// Elements converted at a time: a multiple of every type's block size.
const ELEMENTS_AT_A_TIME: usize = 1 << 20;

/// The type to write floating-point numbers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberType {
    /// 32 bits.
    F32,
    /// 16 bits, 5 of them for the exponent.
    F16,
    /// 16 bits, 8 of them for the exponent, as in f32.
    Bf16,
    /// 8-bit integers with a scale for each row, in a tensor of its own.
    Int8,
    /// Quantized in blocks, a few bits each.
    Quantized(BlockType),
}

/// The suffix of a weight's name in that of its scales.
const SCALES: &str = "_scale";

impl NumberType {
    pub(super) fn element(self) -> ElementType {
        match self {
            Self::F32 => ElementType::Plain(Dtype::F32),
            Self::F16 => ElementType::Plain(Dtype::F16),
            Self::Bf16 => ElementType::Plain(Dtype::BF16),
            Self::Int8 => ElementType::Plain(Dtype::I8),
            Self::Quantized(kind) => ElementType::Quantized(kind),
        }
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Quantized(kind) => kind.name(),
        })
    }
}

impl FromStr for NumberType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let plain = [Self::F32, Self::F16, Self::Bf16, Self::Int8].into_iter();
        let mut all = plain.chain(BlockType::ALL.into_iter().map(Self::Quantized));
        all.find(|this| this.to_string() == name).ok_or_else(|| {
            Error::Input(format!(
                "expected f32, f16, bf16, int8 or a quantized type such as q8_0, found {name}"
            ))
        })
    }
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct TensorToWrite<'a> {
    /// The checkpoint to read it from.
    pub checkpoint: &'a Checkpoint,
    /// Its name there.
    pub source: String,
    /// Its name in the new file.
    pub name: String,
    /// Its shape in the new file, with the same number of elements.
    pub shape: Vec<usize>,
    /// The type to convert floating-point numbers to. `None` leaves them as they are; other types are never
    /// converted.
    pub dtype: Option<NumberType>,
}

/// A tensor that was found, and how it is written.
pub(super) struct Planned<'a> {
    pub tensor: &'a TensorToWrite<'a>,
    located: &'a Located,
    /// Its scales.
    scales: Option<Scales>,
    pub dtype: ElementType,
    part: Part,
}

/// What is written of a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Elements,
    /// Its elements in int8, which need the scales of their rows.
    Int8,
    /// Those scales.
    Int8Scales,
    /// The factors of its input's channels.
    Int8Smoothing,
}

/// Tensors by their new names.
pub(super) type Plan<'a> = BTreeMap<Cow<'a, str>, Planned<'a>>;

/// Finds every tensor, keyed by its new name.
pub(super) fn plan<'a>(file: &str, tensors: &'a [TensorToWrite]) -> Result<Plan<'a>> {
    let mut planned = Plan::new();
    let mut add = |name: Cow<'a, str>, tensor: Planned<'a>| {
        let problem = format!("two tensors would be called {name}");
        match planned.insert(name, tensor) {
            Some(_) => Err(Error::format(file, problem)),
            None => Ok(()),
        }
    };
    for tensor in tensors {
        let contents = &tensor.checkpoint.contents;
        let located = contents.get(&tensor.source)?;
        let (stored, found) = (&located.tensor, contents.file(located).name());
        if element_count(&stored.shape) != element_count(&tensor.shape) {
            return Err(Error::ShapeMismatch {
                name: tensor.source.clone(),
                file: found.to_owned(),
                found: stored.shape.clone(),
                expected: tensor.shape.clone(),
            });
        }
        let dtype = match tensor.dtype {
            Some(dtype) if stored.dtype.is_float() || located.scale.is_some() => dtype.element(),
            // The new file has no place for the scale.
            None if located.scale.is_some() => NumberType::F32.element(),
            _ => stored.dtype,
        };
        let name = Cow::Borrowed(tensor.name.as_str());
        let is_number = stored.dtype.is_float() || located.scale.is_some();
        if tensor.dtype == Some(NumberType::Int8) && is_number {
            let int8 = |dtype, part| Planned { tensor, located, scales: None, dtype, part };
            if contents.is_smoothed(located, &tensor.source) {
                let Some(layer) = name.strip_suffix("weight") else {
                    let problem = format!("tensor {name}: expected a name that ends with weight in int8");
                    return Err(Error::format(file, problem));
                };
                let smoothing = int8(NumberType::F32.element(), Part::Int8Smoothing);
                add(format!("{layer}{SMOOTHING}").into(), smoothing)?;
            }
            add(format!("{name}{SCALES}").into(), int8(NumberType::F32.element(), Part::Int8Scales))?;
            add(name, int8(dtype, Part::Int8))?;
            continue;
        }
        let scales = contents.scales(located, &tensor.source)?;
        add(name, Planned { tensor, located, scales, dtype, part: Part::Elements })?;
    }
    Ok(planned)
}

impl Planned<'_> {
    /// Its shape in the new file.
    pub(super) fn shape(&self) -> &[usize] {
        match self.part {
            Part::Elements | Part::Int8 => &self.tensor.shape,
            Part::Int8Scales => self.tensor.shape.get(..1).unwrap_or_default(),
            Part::Int8Smoothing => self.tensor.shape.get(1..2).unwrap_or_default(),
        }
    }

    /// The bytes it takes in the new file.
    pub(super) fn size(&self, file: &str) -> Result<usize> {
        element_count(self.shape()).and_then(|elements| self.dtype.bytes_of(elements)).ok_or_else(|| {
            let (name, shape) = (&self.tensor.name, self.shape());
            Error::format(
                file,
                format!("tensor {name}: shape {shape:?} of {} is no whole number of bytes", self.dtype),
            )
        })
    }

    pub(super) fn write(&self, to: &mut impl Write, file: &str) -> Result<()> {
        let contents = &self.tensor.checkpoint.contents;
        let (source, stored) = (contents.file(self.located), &self.located.tensor);
        if self.part == Part::Int8Smoothing {
            let factors = contents.smoothing(self.located, &self.tensor.source)?.unwrap_or_default();
            return write_all(to, factors.iter().map(|factor| factor.to_le_bytes())).map_err(Error::io(file));
        }
        if self.part != Part::Elements {
            // Whole, since a scale is known only after its row.
            let rows = contents.int8_rows(self.located, &self.tensor.source)?;
            return match self.part {
                Part::Int8Scales => write_all(to, rows.scales.iter().map(|scale| scale.to_le_bytes())),
                _ => write_all(to, rows.values.iter().map(|value| value.to_le_bytes())),
            }
            .map_err(Error::io(file));
        }
        if stored.is_plain() {
            return self.write_elements(to, file, source, stored);
        }
        let elements = FileData::owned(source.name(), stored.element_bytes(source).into_owned());
        let stored = StoredTensor::plain(stored.dtype, stored.shape.clone(), 0..elements.len());
        self.write_elements(to, file, &elements, &stored)
    }

    /// Writes a contiguous tensor.
    fn write_elements(
        &self,
        to: &mut impl Write,
        file: &str,
        source: &FileData,
        stored: &StoredTensor,
    ) -> Result<()> {
        let (mut done, total) = (0, element_count(&stored.shape).unwrap_or_default());
        // Types of less than a byte are never converted.
        let step = stored.dtype.bytes_of(ELEMENTS_AT_A_TIME).unwrap_or(ELEMENTS_AT_A_TIME);
        let mut start = stored.bytes.start;
        while start < stored.bytes.end {
            let range = start..stored.bytes.end.min(start.saturating_add(step));
            if self.dtype == stored.dtype {
                let bytes = source.get(range.clone()).unwrap_or_default();
                to.write_all(bytes).map_err(Error::io(file))?;
            } else {
                let elements = ELEMENTS_AT_A_TIME.min(total - done);
                let part = StoredTensor::plain(stored.dtype, vec![elements], range.clone());
                self.write_converted(to, file, source, &part, done)?;
                done += elements;
            }
            source.release(&range);
            start = range.end;
        }
        Ok(())
    }

    /// Writes part of a tensor, from element `first` on.
    fn write_converted(
        &self,
        to: &mut impl Write,
        file: &str,
        source: &FileData,
        part: &StoredTensor,
        first: usize,
    ) -> Result<()> {
        let name = &self.tensor.source;
        let numbers = convert::read_tensor(source, part, DType::F32, &Device::Cpu)
            .map_err(|error| Error::format(source.name(), format!("tensor {name}: {error}")))?;
        let mut numbers = numbers.to_vec1::<f32>()?;
        if let Some(scales) = &self.scales {
            scales.apply(first, &mut numbers);
        }
        let written = match self.dtype {
            ElementType::Plain(Dtype::F16) => {
                let halves: Vec<f16> = numbers.iter().copied().map(f16::from_f32).collect();
                let overflow = numbers
                    .iter()
                    .zip(&halves)
                    .find(|(number, half)| number.is_finite() && !half.is_finite());
                if let Some((number, _)) = overflow {
                    let problem = format!("tensor {name} holds {number}, which f16 cannot: use bf16 or f32");
                    return Err(Error::format(source.name(), problem));
                }
                write_all(to, halves.iter().map(|half| half.to_le_bytes()))
            }
            ElementType::Plain(Dtype::BF16) => {
                write_all(to, numbers.iter().map(|number| bf16::from_f32(*number).to_le_bytes()))
            }
            ElementType::Plain(_) => write_all(to, numbers.iter().map(|number| number.to_le_bytes())),
            ElementType::Quantized(kind) => {
                let blocks = kind.quantize(&numbers).map_err(|error| {
                    Error::format(source.name(), format!("tensor {name}: {}", Error::from(error)))
                })?;
                to.write_all(&blocks)
            }
        };
        written.map_err(Error::io(file))
    }
}

fn write_all<const WIDTH: usize>(
    to: &mut impl Write,
    elements: impl Iterator<Item = [u8; WIDTH]>,
) -> io::Result<()> {
    to.write_all(&elements.flatten().collect::<Vec<u8>>())
}
