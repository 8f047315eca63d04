//! Ends the program with one line if memory or threads run out, or the program has an error.
//!
//! Most allocations cannot fail in Rust: it would abort the process, with several lines and a core file, and leave
//! temporary files behind.

#![allow(unsafe_code, reason = "passes allocations on to the system")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use model_files::temporary;

use crate::exit_status::ExitStatus;
use crate::language::translated;
use crate::standard_streams::{complain, printable};

/// Stands for the number of bytes in the line about memory.
const BYTES: &str = "0";

/// What is said before and after the number of bytes, prepared while there is memory.
static LINE: OnceLock<(String, String)> = OnceLock::new();

/// The system's allocator, except that a failed allocation ends the command with one line.
///
/// Before the command runs, and in another program that contains it, allocations fail as they do everywhere.
pub struct Allocator;

// SAFETY: every method is the system's, with the same arguments, and may not return instead of returning null.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; `block` came from the system's allocator.
        checked(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

fn checked(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null()
        && let Some(line) = LINE.get()
    {
        end_without_memory(line, size);
    }
    block
}

/// Prepares for a shortage, and says in one line what a panic was, unless a backtrace is asked for.
pub fn prepare() {
    let line = translated("error: not enough memory, 0 bytes more were needed").into_owned();
    let (start, end) = line.split_once(BYTES).unwrap_or((&line, ""));
    // Called once.
    let _ = LINE.set((start.to_owned(), format!("{end}\n")));
    let asks_for_more = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        end_without_threads(info);
        if asks_for_more { previous(info) } else { explain_panic(info) }
    }));
}

#[cold]
fn end_without_memory((start, end): &(String, String), size: usize) -> ! {
    static IS_ENDING: AtomicBool = AtomicBool::new(false);
    if !IS_ENDING.swap(true, Ordering::Relaxed) {
        temporary::try_remove_all();
        let mut digits = [0; 20];
        let mut line = io::stderr().lock();
        let written = line.write_all(start.as_bytes());
        let written = written.and_then(|()| line.write_all(decimal(size, &mut digits)));
        // There is nobody left to tell.
        let _ = written.and_then(|()| line.write_all(end.as_bytes()));
    }
    end_now()
}

/// A number in decimal, without allocating.
fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for (place, digit) in (0..digits.len()).zip(digits.iter_mut().rev()) {
        if number == 0 && place > 0 {
            break;
        }
        // The remainder is below 10.
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start -= 1;
    }
    digits.get(start..).unwrap_or_default()
}

/// Ends the program if the system refuses a thread, for which `std` and rayon have these messages.
fn end_without_threads(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or_default();
    if ["failed to spawn thread", "ThreadPoolBuildError"].iter().any(|start| message.contains(start)) {
        complain("error: not enough memory or processes for another thread");
        temporary::try_remove_all();
        end_now();
    }
}

fn explain_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let place =
        info.location().map_or_else(String::new, |place| format!("{}:{}", place.file(), place.line()));
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    complain(format!(
        "error: this is a mistake in the program, please report it: {place}: {}",
        printable(&message)
    ));
}

/// Other threads may be in the middle of anything, so nothing is torn down.
fn end_now() -> ! {
    let code = ExitStatus::Failure.code().into();
    #[cfg(unix)]
    // SAFETY: takes a number, and does not return.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 123_456, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
