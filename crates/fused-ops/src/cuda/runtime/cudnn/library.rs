//! Calls cuDNN, loaded as a system library at run time.

use super::super::launch::description::Address;
use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

/// The part of cuDNN with the graph API, which loads the others itself. `libcudnn.so.9` would too, but aborts the
/// program if this one is missing.
#[cfg(windows)]
const NAME: &str = "cudnn_graph64_9.dll";
#[cfg(not(windows))]
const NAME: &str = "libcudnn_graph.so.9";

/// `cudnnStatus_t`
type Status = c_int;
/// `cudnnBackendDescriptor_t`
pub(crate) type Pointer = *mut c_void;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) call: &'static str,
    pub(crate) reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.reason)
    }
}

impl Error for Failure {}

/// Declares the functions with their C types, and loads them.
macro_rules! functions {
    ($($field:ident = $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// cuDNN 9.
        pub(crate) struct Library {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// Keeps the functions loaded.
            _library: libloading::Library,
        }

        impl Library {
            /// Loads the system's library.
            ///
            /// # Errors
            /// If there is none, or one without these functions.
            pub(crate) fn open() -> Result<Self, Failure> {
                // The system's message is in the error's source.
                let failed = |error: libloading::Error| Failure {
                    call: NAME,
                    reason: error.source().map_or_else(|| error.to_string(), ToString::to_string),
                };
                // SAFETY: what cuDNN does when it is loaded and unloaded asks nothing of who loads it.
                let library = unsafe { libloading::Library::new(NAME) }.map_err(failed)?;
                Ok(Self {
                    // SAFETY: the functions have these types in the headers of every version 9.
                    $($field: *unsafe { library.get(concat!(stringify!($name), "\0")) }.map_err(failed)?,)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    version = cudnnGetVersion() -> usize;
    error_string = cudnnGetErrorString(Status) -> *const c_char;
    last_error = cudnnGetLastErrorString(*mut c_char, usize) -> ();
    create = cudnnCreate(*mut Pointer) -> Status;
    destroy = cudnnDestroy(Pointer) -> Status;
    set_stream = cudnnSetStream(Pointer, Pointer) -> Status;
    create_descriptor = cudnnBackendCreateDescriptor(c_int, *mut Pointer) -> Status;
    destroy_descriptor = cudnnBackendDestroyDescriptor(Pointer) -> Status;
    set_attribute = cudnnBackendSetAttribute(Pointer, c_int, c_int, i64, *const c_void) -> Status;
    get_attribute = cudnnBackendGetAttribute(Pointer, c_int, c_int, i64, *mut i64, *mut c_void) -> Status;
    finalize = cudnnBackendFinalize(Pointer) -> Status;
    execute = cudnnBackendExecute(Pointer, Pointer, Pointer) -> Status;
}

impl Library {
    /// For example 92101 for 9.21.1.
    pub(crate) fn version(&self) -> usize {
        // SAFETY: it takes nothing.
        unsafe { (self.version)() }
    }

    /// A handle that works on this stream of the current context.
    ///
    /// # Safety
    /// It must be a driver stream that outlives the handle.
    ///
    /// # Errors
    /// If cuDNN has no memory for it.
    pub(crate) unsafe fn handle(&'static self, stream: Address) -> Result<Handle, Failure> {
        let mut handle = Handle { library: self, pointer: std::ptr::null_mut() };
        // SAFETY: there is room for one handle, which is dropped once, and the caller guarantees the stream.
        unsafe {
            self.check("cudnnCreate", (self.create)(&raw mut handle.pointer))?;
            let stream = stream as usize as Pointer;
            self.check("cudnnSetStream", (self.set_stream)(handle.pointer, stream))?;
        }
        Ok(handle)
    }

    pub(super) fn create_descriptor(&self, kind: c_int) -> Result<Pointer, Failure> {
        let mut pointer = std::ptr::null_mut();
        // SAFETY: there is room for one descriptor.
        let status = unsafe { (self.create_descriptor)(kind, &raw mut pointer) };
        self.check("cudnnBackendCreateDescriptor", status)?;
        Ok(pointer)
    }

    /// # Safety
    /// The descriptor was created here, and is not used again.
    pub(super) unsafe fn destroy_descriptor(&self, descriptor: Pointer) {
        // SAFETY: as promised. It frees memory of the host, and there is nothing to be done if it does not.
        unsafe { (self.destroy_descriptor)(descriptor) };
    }

    /// # Safety
    /// The descriptor was created here, and `values` has that many values of the type.
    pub(super) unsafe fn set_attribute(
        &self,
        descriptor: Pointer,
        attribute: c_int,
        of_type: c_int,
        count: usize,
        values: *const c_void,
    ) -> Result<(), Failure> {
        let count = count_of(count)?;
        // SAFETY: as promised.
        let status = unsafe { (self.set_attribute)(descriptor, attribute, of_type, count, values) };
        self.check("cudnnBackendSetAttribute", status)
    }

    /// The number of values; as many as fit are written.
    ///
    /// # Safety
    /// The descriptor was created here, and `values` has room for that many values of the type.
    pub(super) unsafe fn get_attribute(
        &self,
        descriptor: Pointer,
        attribute: c_int,
        of_type: c_int,
        room: usize,
        values: *mut c_void,
    ) -> Result<usize, Failure> {
        let (room, mut count) = (count_of(room)?, 0);
        // SAFETY: as promised.
        let status =
            unsafe { (self.get_attribute)(descriptor, attribute, of_type, room, &raw mut count, values) };
        self.check("cudnnBackendGetAttribute", status)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// # Safety
    /// The descriptor was created here.
    pub(super) unsafe fn finalize(&self, descriptor: Pointer) -> Result<(), Failure> {
        // SAFETY: as promised.
        self.check("cudnnBackendFinalize", unsafe { (self.finalize)(descriptor) })
    }

    /// # Safety
    /// Plan and pack are finalized, and the pack has addresses of as much memory as the plan accesses.
    pub(super) unsafe fn execute(
        &self,
        handle: &Handle,
        plan: Pointer,
        pack: Pointer,
    ) -> Result<(), Failure> {
        // SAFETY: as promised.
        self.check("cudnnBackendExecute", unsafe { (self.execute)(handle.pointer, plan, pack) })
    }

    fn check(&self, call: &'static str, status: Status) -> Result<(), Failure> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: it gives the name of a status, or of an unknown one, which is there as long as the library.
        let name = unsafe { (self.error_string)(status) };
        let name = match name.is_null() {
            true => format!("status {status}"),
            // SAFETY: see above.
            false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
        };
        let mut message = [0u8; 256];
        // SAFETY: there is room for that many characters and the zero that ends them.
        unsafe { (self.last_error)(message.as_mut_ptr().cast(), message.len() - 1) };
        let message = CStr::from_bytes_until_nul(&message).map(CStr::to_string_lossy).unwrap_or_default();
        Err(Failure { call, reason: format!("{name}: {}", message.trim()) })
    }
}

fn count_of(count: usize) -> Result<i64, Failure> {
    let too_many = |_| Failure { call: "an attribute", reason: format!("{count} values") };
    i64::try_from(count).map_err(too_many)
}

/// A cuDNN handle for a stream of a device.
pub(crate) struct Handle {
    library: &'static Library,
    pointer: Pointer,
}

// SAFETY: threads may use a handle one after another, with the device's context current.
unsafe impl Send for Handle {}

impl Handle {
    pub(super) fn pointer(&self) -> Pointer {
        self.pointer
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: it was created, and is not used again.
            unsafe { (self.library.destroy)(self.pointer) };
        }
    }
}
