//! Creates and finalizes cuDNN's backend descriptors.

use super::library::{Failure, Handle, Library, Pointer};
use std::ffi::c_int;
use std::sync::Arc;

/// `cudnnBackendDescriptorType_t`
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(crate) enum Kind {
    Pointwise = 0,
    Convolution = 1,
    Engine = 2,
    EngineConfig = 3,
    EngineHeuristics = 4,
    ExecutionPlan = 5,
    OperationConvolutionForward = 10,
    OperationPointwise = 13,
    OperationGraph = 15,
    VariantPack = 16,
    Tensor = 17,
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    DeviceProperties = 38,
}

/// `cudnnBackendAttributeName_t`
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(crate) enum Attribute {
    PointwiseMode = 0,
    PointwiseMathPrecision = 1,
    ConvolutionComputeType = 100,
    ConvolutionMode = 101,
    ConvolutionDilations = 102,
    ConvolutionFilterStrides = 103,
    ConvolutionPostPaddings = 104,
    ConvolutionPrePaddings = 105,
    ConvolutionSpatialDimensions = 106,
    HeuristicsMode = 200,
    HeuristicsOperationGraph = 201,
    HeuristicsResults = 202,
    HeuristicsDeviceProperties = 204,
    EngineConfigEngine = 300,
    PlanHandle = 400,
    PlanEngineConfig = 401,
    PlanWorkspaceSize = 402,
    PlanDeviceProperties = 407,
    ConvolutionForwardAlpha = 700,
    ConvolutionForwardBeta = 701,
    ConvolutionForwardConvolution = 702,
    ConvolutionForwardWeight = 703,
    ConvolutionForwardInput = 704,
    ConvolutionForwardOutput = 705,
    OperationPointwiseDescriptor = 750,
    OperationPointwiseInput = 751,
    OperationPointwiseOther = 752,
    OperationPointwiseOutput = 753,
    GraphHandle = 800,
    GraphOperations = 801,
    TensorByteAlignment = 900,
    TensorDataType = 901,
    TensorDimensions = 902,
    TensorStrides = 903,
    TensorUniqueId = 906,
    TensorIsVirtual = 907,
    PackUniqueIds = 1000,
    PackAddresses = 1001,
    PackWorkspace = 1003,
    EngineNumericalNotes = 1303,
    EngineBehaviorNotes = 1305,
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    DevicePropertiesJson = 2702,
}

/// `cudnnDataType_t`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum DataType {
    F32 = 0,
    F16 = 2,
    Bf16 = 9,
}

/// `cudnnBackendAttributeType_t`, as far as a descriptor's values are of them.
const HANDLE: c_int = 0;
const DATA_TYPE: c_int = 1;
const BOOLEAN: c_int = 2;
const INT64: c_int = 3;
const FLOAT: c_int = 4;
const VOID_PTR: c_int = 6;
const CONVOLUTION_MODE: c_int = 7;
const HEURISTICS_MODE: c_int = 8;
pub(crate) const NUMERICAL_NOTE: c_int = 11;
const POINTWISE_MODE: c_int = 14;
const BACKEND_DESCRIPTOR: c_int = 15;
pub(crate) const BEHAVIOR_NOTE: c_int = 19;
const CHAR: c_int = 24;

/// The values of an attribute.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    Handle(&'a Handle),
    DataType(DataType),
    Boolean(bool),
    Int64(&'a [i64]),
    Float(f32),
    /// Addresses in device memory.
    Addresses(&'a [u64]),
    /// `cudnnConvolutionMode_t`
    ConvolutionMode(c_int),
    /// `cudnnBackendHeurMode_t`
    HeuristicsMode(c_int),
    /// `cudnnPointwiseMode_t`
    PointwiseMode(c_int),
    Descriptor(&'a Descriptor),
    Descriptors(&'a [Descriptor]),
    #[allow(dead_code, reason = "for tests, which have no GPU")]
    Characters(&'a [u8]),
}

/// A cuDNN descriptor, with those that its attributes refer to. Clones share it.
#[derive(Clone)]
pub(crate) struct Descriptor(Arc<Object>);

struct Object {
    library: &'static Library,
    pointer: Pointer,
    /// cuDNN does not say how long it needs the descriptors that others refer to.
    made_of: Vec<Descriptor>,
}

// SAFETY: an object is memory of the host that belongs to no thread, and once it is finalised nothing changes it.
unsafe impl Send for Object {}
// SAFETY: as above; those that are not finalised have one owner, which changes them.
unsafe impl Sync for Object {}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it was created by this library, and is not used any more.
        unsafe { self.library.destroy_descriptor(self.pointer) };
    }
}

impl Descriptor {
    /// Creates a descriptor with these attributes, and finalizes it.
    pub(crate) fn new(
        library: &'static Library,
        kind: Kind,
        attributes: &[(Attribute, Values)],
    ) -> Result<Self, Failure> {
        let mut object = Object::new(library, kind)?;
        for (attribute, values) in attributes {
            object.set(*attribute, *values)?;
        }
        // SAFETY: it was created by this library.
        unsafe { library.finalize(object.pointer) }?;
        Ok(Self(Arc::new(object)))
    }

    pub(super) fn pointer(&self) -> Pointer {
        self.0.pointer
    }

    pub(crate) fn library(&self) -> &'static Library {
        self.0.library
    }

    /// Reads an attribute with one number.
    pub(crate) fn int64(&self, attribute: Attribute) -> Result<i64, Failure> {
        let mut value = 0i64;
        // SAFETY: there is room for one number.
        let found = unsafe {
            let value = (&raw mut value).cast();
            self.0.library.get_attribute(self.0.pointer, attribute as c_int, INT64, 1, value)
        }?;
        if found == 1 { Ok(value) } else { Err(missing(attribute)) }
    }

    /// Reads an attribute of notes, each a type of its own.
    pub(crate) fn notes(&self, attribute: Attribute, of_type: c_int) -> Result<Vec<c_int>, Failure> {
        let mut notes = [0; 32];
        // SAFETY: there is room for this many numbers.
        let found = unsafe {
            let room = notes.len();
            let values = notes.as_mut_ptr().cast();
            self.0.library.get_attribute(self.0.pointer, attribute as c_int, of_type, room, values)
        }?;
        notes.get(..found).map(<[_]>::to_vec).ok_or_else(|| missing(attribute))
    }

    /// Reads an attribute with at most this many descriptors.
    pub(crate) fn descriptors(
        &self,
        attribute: Attribute,
        kind: Kind,
        most: usize,
    ) -> Result<Vec<Self>, Failure> {
        let Object { library, pointer, .. } = *self.0;
        // SAFETY: without room nothing is written.
        let all = unsafe {
            let nothing = std::ptr::null_mut();
            library.get_attribute(pointer, attribute as c_int, BACKEND_DESCRIPTOR, 0, nothing)
        }?;
        // cuDNN writes into existing descriptors.
        let mut found = Vec::new();
        for _ in 0..all.min(most) {
            let mut object = Object::new(library, kind)?;
            object.made_of.push(self.clone());
            found.push(Self(Arc::new(object)));
        }
        let mut pointers: Vec<_> = found.iter().map(Self::pointer).collect();
        // SAFETY: there are this many objects of that kind, which are not used yet.
        let all = unsafe {
            let (room, values) = (pointers.len(), pointers.as_mut_ptr().cast());
            library.get_attribute(pointer, attribute as c_int, BACKEND_DESCRIPTOR, room, values)
        }?;
        found.truncate(all);
        Ok(found)
    }
}

impl Object {
    fn new(library: &'static Library, kind: Kind) -> Result<Self, Failure> {
        Ok(Self { library, pointer: library.create_descriptor(kind as c_int)?, made_of: Vec::new() })
    }

    fn set(&mut self, attribute: Attribute, values: Values) -> Result<(), Failure> {
        let one = |of_type, value: *const c_int| (of_type, 1, value.cast());
        let (pointers, pointer, boolean): (Vec<Pointer>, Pointer, u8);
        let (of_type, count, values) = match &values {
            Values::Handle(values) => {
                pointer = values.pointer();
                (HANDLE, 1, (&raw const pointer).cast())
            }
            // The enums are `repr(i32)`, like C's.
            Values::DataType(value) => one(DATA_TYPE, std::ptr::from_ref(value).cast()),
            Values::Boolean(value) => {
                boolean = u8::from(*value);
                (BOOLEAN, 1, (&raw const boolean).cast())
            }
            Values::Int64(values) => (INT64, values.len(), values.as_ptr().cast()),
            Values::Float(value) => (FLOAT, 1, std::ptr::from_ref(value).cast()),
            Values::Addresses(values) => (VOID_PTR, values.len(), values.as_ptr().cast()),
            Values::ConvolutionMode(mode) => one(CONVOLUTION_MODE, mode),
            Values::HeuristicsMode(mode) => one(HEURISTICS_MODE, mode),
            Values::PointwiseMode(mode) => one(POINTWISE_MODE, mode),
            Values::Descriptor(value) => {
                self.made_of.push((*value).clone());
                pointer = value.pointer();
                (BACKEND_DESCRIPTOR, 1, (&raw const pointer).cast())
            }
            Values::Descriptors(values) => {
                self.made_of.extend_from_slice(values);
                pointers = values.iter().map(Descriptor::pointer).collect();
                (BACKEND_DESCRIPTOR, pointers.len(), pointers.as_ptr().cast())
            }
            Values::Characters(values) => (CHAR, values.len(), values.as_ptr().cast()),
        };
        // SAFETY: there are this many values of that type, and the object was created by this library.
        unsafe { self.library.set_attribute(self.pointer, attribute as c_int, of_type, count, values) }
    }
}

fn missing(attribute: Attribute) -> Failure {
    Failure { call: "cudnnBackendGetAttribute", reason: format!("no {attribute:?}, or too many") }
}
