//! Describes a convolution and its epilogue as a graph of cuDNN operations.

use super::super::launch::conv2d::Conv2dOperands;
use super::super::launch::description::{Address, Element};
use super::descriptor::{Attribute, DataType, Descriptor, Kind, Values};
use super::library::{Failure, Library};
use super::target::Target;
use std::ffi::c_int;

/// `CUDNN_CROSS_CORRELATION`: the kernel is not flipped.
const CROSS_CORRELATION: c_int = 1;
/// `CUDNN_POINTWISE_ADD`
const ADD: c_int = 0;

/// The alignment of every tensor, in bytes.
const ALIGNMENT: u64 = 16;

/// A graph's tensors in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(crate) enum Id {
    Input = 1,
    Weight = 2,
    Bias = 3,
    Residual = 4,
    Output = 5,
}

/// The epilogue of a convolution in a graph. cuDNN has precompiled code for these; others would be compiled per shape
/// at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum After {
    Nothing,
    Bias,
    /// The residual is added first.
    ResidualAndBias,
}

/// The sizes of a channels-last convolution that cuDNN covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Conv2dShape {
    element: Element,
    /// (batch, channels, height, width)
    input: [i64; 4],
    /// (out, in, kernel, kernel)
    weight: [i64; 4],
    /// (batch, channels, height, width)
    output: [i64; 4],
    stride: i64,
    /// Padding at the top and left.
    before: [i64; 2],
    /// Padding at the bottom and right.
    behind: [i64; 2],
    after: After,
}

impl Conv2dShape {
    /// The shape, if cuDNN covers all of it: no doubled image, no shift, no activation, and tensors aligned for
    /// tensor cores.
    pub(crate) fn of(op: &Conv2dOperands) -> Option<Self> {
        let after = match (op.bias, op.residual) {
            (None, None) => After::Nothing,
            (Some(_), None) => After::Bias,
            (Some(_), Some(_)) => After::ResidualAndBias,
            (None, Some(_)) => return None,
        };
        let addresses = [Some(op.x), Some(op.weight), op.bias, op.residual, Some(op.out)];
        let aligned = addresses.iter().flatten().all(|address| address.is_multiple_of(ALIGNMENT));
        if op.upsample || op.shift.is_some() || op.activation.is_some() || !aligned {
            return None;
        }
        let [kernel, stride, top, left] = sizes([op.kernel, op.stride, op.top, op.left])?;
        let input = sizes([op.batch, op.channels, op.height, op.width])?;
        let output = sizes([op.batch, op.out_channels, op.out_height, op.out_width])?;
        // As much padding as the last window needs.
        let behind = |out: i64, size: i64, before: i64| ((out - 1) * stride + kernel - size - before).max(0);
        Some(Self {
            element: op.element,
            input,
            weight: [output[1], input[1], kernel, kernel],
            output,
            stride,
            before: [top, left],
            behind: [behind(output[2], input[2], top), behind(output[3], input[3], left)],
            after,
        })
    }

    /// The tensors in memory with their addresses.
    pub(crate) fn addresses(&self, op: &Conv2dOperands) -> Vec<(Id, Address)> {
        let optional = [(Id::Bias, op.bias), (Id::Residual, op.residual)];
        let optional = optional.into_iter().filter_map(|(id, address)| Some((id, address?)));
        [(Id::Input, op.x), (Id::Weight, op.weight), (Id::Output, op.out)]
            .into_iter()
            .chain(optional)
            .collect()
    }

    /// The operations: products and sums in f32, rounded once on writing.
    pub(crate) fn operations(
        &self,
        library: &'static Library,
        target: &Target,
    ) -> Result<Descriptor, Failure> {
        let data_type = match self.element {
            Element::F16 => DataType::F16,
            Element::Bf16 => DataType::Bf16,
        };
        let stored = |id: Id, dims: [i64; 4]| tensor(library, id as i64, dims, data_type, false);
        let channels = [1, self.output[1], 1, 1];
        let output = stored(Id::Output, self.output)?;
        // Intermediate sums that are never stored.
        let between =
            |number: i64| tensor(library, Id::Output as i64 + number, self.output, DataType::F32, true);

        let convolution = Descriptor::new(
            library,
            Kind::Convolution,
            &[
                (Attribute::ConvolutionSpatialDimensions, Values::Int64(&[2])),
                (Attribute::ConvolutionComputeType, Values::DataType(DataType::F32)),
                (Attribute::ConvolutionMode, Values::ConvolutionMode(CROSS_CORRELATION)),
                (Attribute::ConvolutionPrePaddings, Values::Int64(&self.before)),
                (Attribute::ConvolutionPostPaddings, Values::Int64(&self.behind)),
                (Attribute::ConvolutionFilterStrides, Values::Int64(&[self.stride; 2])),
                (Attribute::ConvolutionDilations, Values::Int64(&[1, 1])),
            ],
        )?;
        let mut sum = if self.after == After::Nothing { output.clone() } else { between(1)? };
        let mut operations = vec![Descriptor::new(
            library,
            Kind::OperationConvolutionForward,
            &[
                (Attribute::ConvolutionForwardInput, Values::Descriptor(&stored(Id::Input, self.input)?)),
                (Attribute::ConvolutionForwardWeight, Values::Descriptor(&stored(Id::Weight, self.weight)?)),
                (Attribute::ConvolutionForwardOutput, Values::Descriptor(&sum)),
                (Attribute::ConvolutionForwardConvolution, Values::Descriptor(&convolution)),
                (Attribute::ConvolutionForwardAlpha, Values::Float(1.)),
                (Attribute::ConvolutionForwardBeta, Values::Float(0.)),
            ],
        )?];
        if self.after == After::ResidualAndBias {
            let residual = stored(Id::Residual, self.output)?;
            let next = between(2)?;
            operations.push(add(&sum, &residual, &next)?);
            sum = next;
        }
        if self.after != After::Nothing {
            operations.push(add(&sum, &stored(Id::Bias, channels)?, &output)?);
        }
        let mut attributes = vec![(Attribute::GraphOperations, Values::Descriptors(&operations))];
        attributes.extend(target.of_graph());
        Descriptor::new(library, Kind::OperationGraph, &attributes)
    }
}

/// Sizes as cuDNN counts.
fn sizes(sizes: [usize; 4]) -> Option<[i64; 4]> {
    let [a, b, c, d] = sizes.map(|size| i64::try_from(size).ok());
    Some([a?, b?, c?, d?])
}

/// A tensor (batch, channels, height, width), channels-last in memory.
fn tensor(
    library: &'static Library,
    id: i64,
    dims: [i64; 4],
    data_type: DataType,
    is_virtual: bool,
) -> Result<Descriptor, Failure> {
    let [_, channels, height, width] = dims;
    let strides = [channels * height * width, 1, channels * width, channels];
    Descriptor::new(
        library,
        Kind::Tensor,
        &[
            (Attribute::TensorDataType, Values::DataType(data_type)),
            (Attribute::TensorDimensions, Values::Int64(&dims)),
            (Attribute::TensorStrides, Values::Int64(&strides)),
            (Attribute::TensorUniqueId, Values::Int64(&[id])),
            (Attribute::TensorByteAlignment, Values::Int64(&[ALIGNMENT.cast_signed()])),
            (Attribute::TensorIsVirtual, Values::Boolean(is_virtual)),
        ],
    )
}

/// `to = x + other`
fn add(x: &Descriptor, other: &Descriptor, to: &Descriptor) -> Result<Descriptor, Failure> {
    let library = x.library();
    let how = Descriptor::new(
        library,
        Kind::Pointwise,
        &[
            (Attribute::PointwiseMode, Values::PointwiseMode(ADD)),
            (Attribute::PointwiseMathPrecision, Values::DataType(DataType::F32)),
        ],
    )?;
    Descriptor::new(
        library,
        Kind::OperationPointwise,
        &[
            (Attribute::OperationPointwiseDescriptor, Values::Descriptor(&how)),
            (Attribute::OperationPointwiseInput, Values::Descriptor(x)),
            (Attribute::OperationPointwiseOther, Values::Descriptor(other)),
            (Attribute::OperationPointwiseOutput, Values::Descriptor(to)),
        ],
    )
}
