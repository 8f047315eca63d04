//! Multiplies matrices with cuBLASLt, with bias and residual in the same launch.

use super::super::launch::description::{Address, Element, NotCovered};
use super::kernels::Kernels;
use candle_core::Result;
use candle_core::cuda::cudarc::cublaslt::result::{
    CublasError, create_handle, create_matmul_desc, create_matmul_pref, create_matrix_layout, destroy_handle,
    destroy_matmul_desc, destroy_matmul_pref, destroy_matrix_layout, get_matmul_algo_heuristic, matmul,
    set_matmul_desc_attribute, set_matmul_pref_attribute,
};
use candle_core::cuda::cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as DescriptionAttribute, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute, cublasLtMatrixLayout_t,
    cublasLtReductionScheme_t, cudaDataType_t,
};
use std::ffi::c_void;

/// The most workspace an algorithm may use: NVIDIA's advice for Hopper.
const MAX_WORKSPACE: usize = 32 << 20;

/// cuBLASLt on a device.
pub(crate) struct CublasLt(cublasLtHandle_t);

// SAFETY: any thread may use a handle of cuBLASLt, which belongs to a device.
unsafe impl Send for CublasLt {}

impl CublasLt {
    /// Creates a handle for the current context's device.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new() -> Result<Self> {
        create_handle().map(Self).map_err(candle_core::Error::wrap)
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody uses it again.
        let _ = unsafe { destroy_handle(self.0) };
    }
}

/// An algorithm and its workspace.
#[derive(Clone, Copy)]
pub(crate) struct Algorithm {
    algorithm: cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
}

/// `x · weightᵀ + bias + residual`, rounded once. Features are multiples of 8, and there is at least one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearOperands {
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// (rows, `in_features`)
    pub(crate) x: Address,
    /// (`out_features`, `in_features`)
    pub(crate) weight: Address,
    /// (`out_features`)
    pub(crate) bias: Option<Address>,
    /// (rows, `out_features`)
    pub(crate) residual: Option<Address>,
    /// (rows, `out_features`)
    pub(crate) out: Address,
}

/// What the choice of an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinearShape {
    element: Element,
    rows: usize,
    in_features: usize,
    out_features: usize,
    has_bias: bool,
    /// The alignment of all tensors, in bytes.
    alignment: u32,
}

impl LinearOperands {
    /// What the choice of an algorithm depends on.
    ///
    /// # Errors
    /// If a tensor is not aligned for the fast kernels.
    pub(crate) fn shape(&self) -> std::result::Result<LinearShape, NotCovered> {
        let Self { element, rows, in_features, out_features, .. } = *self;
        let addresses = [Some(self.x), Some(self.weight), self.bias, self.residual, Some(self.out)];
        // cuBLASLt distinguishes up to 256 bytes; below 16 no fast kernel applies.
        let all = addresses.into_iter().flatten().fold(256, |all, address| all | address);
        let alignment = 1 << all.trailing_zeros();
        if alignment < 16 {
            return Err(NotCovered("a tensor that does not begin at a multiple of 16 bytes"));
        }
        Ok(LinearShape { element, rows, in_features, out_features, has_bias: self.bias.is_some(), alignment })
    }
}

/// A product in cuBLASLt's column-major terms: `outᵀ = weight · xᵀ`.
pub(crate) struct Description {
    description: cublasLtMatmulDesc_t,
    weight: cublasLtMatrixLayout_t,
    x: cublasLtMatrixLayout_t,
    out: cublasLtMatrixLayout_t,
}

impl Description {
    /// Describes a product.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new(
        product: &LinearOperands,
        shape: &LinearShape,
    ) -> std::result::Result<Self, CublasError> {
        let data_type = match shape.element {
            Element::F16 => cudaDataType_t::CUDA_R_16F,
            Element::Bf16 => cudaDataType_t::CUDA_R_16BF,
        };
        let [rows, inputs, outputs] =
            [shape.rows, shape.in_features, shape.out_features].map(|size| size as u64);
        let mut this = Self {
            description: std::ptr::null_mut(),
            weight: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
        };
        let columns =
            |size: u64, count: u64| create_matrix_layout(data_type, size, count, size.cast_signed());
        this.weight = columns(inputs, outputs)?;
        this.x = columns(inputs, rows)?;
        this.out = columns(outputs, rows)?;
        this.description =
            create_matmul_desc(cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType_t::CUDA_R_32F)?;
        const TRANSPOSED: i32 = 1;
        this.set(DescriptionAttribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        if let Some(bias) = &product.bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            this.set(DescriptionAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            this.set(DescriptionAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        Ok(this)
    }

    fn set<T>(&mut self, attribute: DescriptionAttribute, value: &T) -> std::result::Result<(), CublasError> {
        let bytes = std::ptr::from_ref(value).cast::<c_void>();
        // SAFETY: the description exists, and the value is of that many bytes.
        unsafe { set_matmul_desc_attribute(self.description, attribute, bytes, size_of::<T>()) }
    }

    /// The fastest algorithm according to cuBLASLt, among those that accumulate in f32 and in a fixed order.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn algorithm(
        &self,
        handle: &CublasLt,
        shape: &LinearShape,
    ) -> std::result::Result<Algorithm, CublasError> {
        let preference = Preference(create_matmul_pref()?);
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &MAX_WORKSPACE)?;
        let scheme = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        preference.set(PreferenceAttribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme)?;
        for attribute in [
            PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(attribute, &shape.alignment)?;
        }
        let Self { description, weight, x, out } = *self;
        // SAFETY: all of them exist.
        let found =
            unsafe { get_matmul_algo_heuristic(handle.0, description, weight, x, out, out, preference.0) }?;
        Ok(Algorithm { algorithm: found.algo, workspace_bytes: found.workspaceSize })
    }

    /// Queues the product on the stream of `kernels`.
    ///
    /// # Safety
    /// The addresses are those of tensors of the product's sizes, valid until the launch is queued.
    ///
    /// # Errors
    /// If the algorithm fails.
    pub(crate) unsafe fn run(
        &self,
        handle: &CublasLt,
        algorithm: &Algorithm,
        product: &LinearOperands,
        kernels: &Kernels,
    ) -> Result<()> {
        let workspace = match algorithm.workspace_bytes {
            0 => None,
            bytes => Some(kernels.scratch(bytes.div_ceil(size_of::<f32>()))?),
        };
        let workspace = workspace.as_ref().map(|workspace| workspace.address(kernels.stream()));
        let workspace = workspace.as_ref().map_or(0, |(address, _)| *address);
        let (alpha, beta) = (1f32, if product.residual.is_some() { 1f32 } else { 0. });
        let before = product.residual.unwrap_or(product.out);
        // SAFETY: the layouts are those of the product, and the caller guarantees its addresses.
        unsafe {
            matmul(
                handle.0,
                self.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                product.weight as *const c_void,
                self.weight,
                product.x as *const c_void,
                self.x,
                before as *const c_void,
                self.out,
                product.out as *mut c_void,
                self.out,
                &raw const algorithm.algorithm,
                workspace as *mut c_void,
                algorithm.workspace_bytes,
                kernels.stream().cu_stream().cast(),
            )
        }
        .map_err(candle_core::Error::wrap)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: those that are not null were created, and nobody uses them again. Failing to free one is ignored.
        unsafe {
            for layout in [self.weight, self.x, self.out] {
                if !layout.is_null() {
                    let _ = destroy_matrix_layout(layout);
                }
            }
            if !self.description.is_null() {
                let _ = destroy_matmul_desc(self.description);
            }
        }
    }
}

struct Preference(cublasLtMatmulPreference_t);

impl Preference {
    fn set<T>(&self, attribute: PreferenceAttribute, value: &T) -> std::result::Result<(), CublasError> {
        let bytes = std::ptr::from_ref(value).cast::<c_void>();
        // SAFETY: the preference exists, and the value is of that many bytes.
        unsafe { set_matmul_pref_attribute(self.0, attribute, bytes, size_of::<T>()) }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody uses it again.
        let _ = unsafe { destroy_matmul_pref(self.0) };
    }
}
