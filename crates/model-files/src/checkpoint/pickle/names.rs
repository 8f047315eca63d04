//! Maps the names of number types in PyTorch and numpy.

use safetensors::Dtype;

use super::objects::{Element, Global};

/// The elements of a storage class, such as `torch.FloatStorage`.
pub(super) fn storage_element(class: Global<'_>) -> Element<'_> {
    match class.name {
        "DoubleStorage" => Element::Number(Dtype::F64),
        "FloatStorage" => Element::Number(Dtype::F32),
        "HalfStorage" => Element::Number(Dtype::F16),
        "BFloat16Storage" => Element::Number(Dtype::BF16),
        "LongStorage" => Element::Number(Dtype::I64),
        "IntStorage" => Element::Number(Dtype::I32),
        "ShortStorage" => Element::Number(Dtype::I16),
        "CharStorage" => Element::Number(Dtype::I8),
        "ByteStorage" => Element::Number(Dtype::U8),
        "BoolStorage" => Element::Number(Dtype::BOOL),
        "ComplexFloatStorage" => Element::Number(Dtype::C64),
        "UntypedStorage" | "_UntypedStorage" => Element::Untyped,
        name @ "ComplexDoubleStorage" => Element::Other { name, width: 16 },
        name @ ("QInt32Storage" | "ComplexHalfStorage") => Element::Other { name, width: 4 },
        name @ ("QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage") => {
            Element::Other { name, width: 1 }
        }
        name => Element::Other { name, width: 0 },
    }
}

/// The type `torch.name`.
pub(super) fn torch_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        "complex64" => Dtype::C64,
        _ => return None,
    })
}

/// The numpy type `name`, without its byte order.
pub(super) fn numpy_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "f8" => Dtype::F64,
        "f4" => Dtype::F32,
        "f2" => Dtype::F16,
        "i8" => Dtype::I64,
        "i4" => Dtype::I32,
        "i2" => Dtype::I16,
        "i1" => Dtype::I8,
        "u8" => Dtype::U64,
        "u4" => Dtype::U32,
        "u2" => Dtype::U16,
        "u1" => Dtype::U8,
        "b1" => Dtype::BOOL,
        "c8" => Dtype::C64,
        _ => return None,
    })
}
