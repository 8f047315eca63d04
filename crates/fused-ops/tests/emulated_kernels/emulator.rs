//! Compiles kernel sources for this machine, and runs them under the checks of `kernels/emulation`.

use crate::launch::description::Launch;
use half::{bf16, f16};
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The crate's kernels, compiled once; `None` where there is no C++ compiler.
pub(crate) fn kernels() -> Option<&'static Emulator> {
    static KERNELS: OnceLock<Option<Emulator>> = OnceLock::new();
    let sources = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let files =
            std::fs::read_dir(folder).expect("the folder of the kernels").map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect::<Vec<_>>()
    };
    KERNELS.get_or_init(|| Emulator::compile("kernels", &sources())).as_ref()
}

/// The seed of random input: fixed, or from `EMULATION_SEED`.
pub(crate) fn seed() -> u64 {
    std::env::var("EMULATION_SEED").map_or(1, |seed| seed.parse().expect("EMULATION_SEED is a number"))
}

/// A shared library of kernels.
pub(crate) struct Emulator(Library);

impl Emulator {
    /// Compiles these files with the emulation. Reports it and returns `None` if there is no C++ compiler.
    pub(crate) fn compile(name: &str, sources: &[impl AsRef<Path>]) -> Option<Self> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        if Command::new(&compiler).arg("--version").output().is_err() {
            // Written directly, because the test harness captures output.
            let skipped = "SKIPPED: no CUDA kernel was run, because there is no C++ compiler";
            let _ = writeln!(std::io::stderr(), "{skipped} {compiler}");
            return None;
        }
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let runtime = kernels.join("emulation/runtime.cpp");
        let sources: Vec<_> = sources.iter().map(AsRef::as_ref).chain([runtime.as_path()]).collect();
        // In parallel, one compiler per file.
        let compilers: Vec<_> = sources
            .iter()
            .map(|source| {
                let stem = source.file_stem().expect("a source has a name").to_string_lossy();
                let object = folder.join(format!("{name}-{stem}.o"));
                let mut command = Command::new(&compiler);
                // The runtime switches stacks with longjmp, which the fortified version refuses.
                command.args([
                    "-std=c++17",
                    "-O2",
                    "-fPIC",
                    "-U_FORTIFY_SOURCE",
                    "-Wall",
                    "-Wno-unknown-pragmas",
                ]);
                command.arg("-I").arg(&kernels).args(["-x", "c++", "-c"]).arg(source).arg("-o").arg(&object);
                (command.spawn().expect("a C++ compiler"), object)
            })
            .collect();
        let mut link = Command::new(&compiler);
        let library = folder.join(format!("{name}-{}.so", std::process::id()));
        link.arg("-shared").arg("-o").arg(&library);
        for (mut compiler, object) in compilers {
            assert!(
                compiler.wait().expect("a C++ compiler").success(),
                "{} does not compile",
                object.display()
            );
            link.arg(object);
        }
        assert!(link.status().expect("a linker").success(), "the kernels do not link");
        // SAFETY: the library was made just now, and only registers its kernels when it is loaded.
        let loaded = unsafe { Library::new(&library) }.expect("the library that was just linked");
        std::fs::remove_file(library).expect("the library that was just linked");
        Some(Self(loaded))
    }

    /// Runs every block of a launch.
    pub(crate) fn run<P: Copy>(
        &self,
        launch: &Launch<P>,
        buffers: &[&Buffer],
        seed: u64,
    ) -> Result<(), String> {
        self.run_blocks(launch, buffers, seed, 0, 1)
    }

    /// Runs the blocks `first`, `first + step` … of a launch, counted with x fastest.
    pub(crate) fn run_blocks<P: Copy>(
        &self,
        launch: &Launch<P>,
        buffers: &[&Buffer],
        seed: u64,
        first: u64,
        step: u64,
    ) -> Result<(), String> {
        let names: Vec<_> = buffers.iter().map(|buffer| CString::new(buffer.name).unwrap()).collect();
        let buffers: Vec<_> = buffers
            .iter()
            .zip(&names)
            .map(|(buffer, name)| EmulatedBuffer {
                name: name.as_ptr(),
                begin: buffer.address(),
                bytes: buffer.bytes,
                writable: buffer.writable.into(),
            })
            .collect();
        let kernel = CString::new(launch.kernel.as_str()).unwrap();
        let emulated = EmulatedLaunch {
            kernel: kernel.as_ptr(),
            grid: launch.grid,
            threads: launch.threads,
            shared_bytes: launch.shared_bytes,
            first_block: first,
            block_step: step,
            seed,
            params: (&raw const launch.params).cast(),
            params_bytes: size_of::<P>(),
            buffers: buffers.as_ptr(),
            buffer_count: buffers.len(),
        };
        let mut error = [0; 1024];
        // SAFETY: the signature is that of kernels/emulation/runtime.hpp. A kernel touches the buffers alone, which the
        // emulation checks, and those that it writes were made writable.
        let failed = unsafe {
            let emulate: Symbol<Emulate> = self.0.get(b"emulate").expect("the entry of the emulation");
            emulate(&emulated, error.as_mut_ptr(), error.len())
        };
        if failed == 0 {
            return Ok(());
        }
        // SAFETY: the emulation ends its message with a zero.
        Err(unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned())
    }
}

type Emulate = unsafe extern "C" fn(*const EmulatedLaunch, *mut c_char, usize) -> c_int;

#[repr(C)]
struct EmulatedBuffer {
    name: *const c_char,
    begin: u64,
    bytes: usize,
    writable: u32,
}

#[repr(C)]
struct EmulatedLaunch {
    kernel: *const c_char,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    first_block: u64,
    block_step: u64,
    seed: u64,
    params: *const c_void,
    params_bytes: usize,
    buffers: *const EmulatedBuffer,
    buffer_count: usize,
}

/// A value type of kernels, in its memory layout.
pub(crate) trait Value: Copy {
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

macro_rules! value {
    ($type:ty, $from:expr, $to:expr) => {
        impl Value for $type {
            fn from_f32(x: f32) -> Self {
                $from(x)
            }
            fn to_f32(self) -> f32 {
                $to(self)
            }
        }
    };
}

value!(f32, |x| x, |x| x);
value!(f16, f16::from_f32, f16::to_f32);
value!(bf16, bf16::from_f32, bf16::to_f32);
value!(i32, |x| x as i32, |x| x as f32);
value!(u16, |x| x as u16, f32::from);
value!(u8, |x| x as u8, f32::from);

/// A piece of global memory, aligned like the device's.
pub(crate) struct Buffer {
    name: &'static str,
    memory: Vec<std::cell::UnsafeCell<[u128; 2]>>,
    bytes: usize,
    writable: bool,
}

impl Buffer {
    /// An input.
    pub(crate) fn input<T: Value>(name: &'static str, values: &[T]) -> Self {
        Self::new(name, values, false)
    }

    /// An output of `count` values, initialized to NaN, or all bits set.
    pub(crate) fn output<T: Value>(name: &'static str, count: usize) -> Self {
        let mut buffer = Self::new(name, &vec![T::from_f32(0.); count], true);
        buffer.memory.iter_mut().for_each(|piece| *piece.get_mut() = [u128::MAX; 2]);
        buffer
    }

    /// A buffer that a kernel changes in place.
    pub(crate) fn in_out<T: Value>(name: &'static str, values: &[T]) -> Self {
        Self::new(name, values, true)
    }

    fn new<T: Value>(name: &'static str, values: &[T], writable: bool) -> Self {
        let bytes = size_of_val(values);
        let mut memory = Vec::new();
        memory.resize_with(bytes.div_ceil(32).max(1), || [u128::MAX; 2].into());
        // SAFETY: both sides have room for the values, which are plain numbers.
        unsafe {
            let target: *mut std::cell::UnsafeCell<[u128; 2]> = memory.as_mut_ptr();
            target.cast::<T>().copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
        Self { name, memory, bytes, writable }
    }

    pub(crate) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// The address of a value.
    pub(crate) fn address_of<T: Value>(&self, index: usize) -> u64 {
        self.address() + (index * size_of::<T>()) as u64
    }

    pub(crate) fn values<T: Value>(&self) -> Vec<T> {
        // SAFETY: the memory holds this many plain numbers, and no kernel is running.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<T>(), self.bytes / size_of::<T>()) }
            .to_vec()
    }

    pub(crate) fn to_f32<T: Value>(&self) -> Vec<f32> {
        self.values::<T>().into_iter().map(T::to_f32).collect()
    }
}
