//! Turns a panic in another library's parser into an error of the file it read.
//!
//! Parsers get untrusted files, and one that panics must not end a run over a million of them. [`parse`] wraps every
//! call of such a library. It needs unwinding panics, the default of every profile in this workspace.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::error::Error;

thread_local! {
    /// Whether a panic on this thread becomes an error, and is not printed.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `parser` on the file called `name`.
///
/// A panic on this thread is not printed; one on a thread that `parser` starts is printed before it arrives here.
/// What `parser` was building is dropped, so it must not leave shared state half changed.
///
/// # Errors
/// The errors of `parser` or, if it panics, an [`Error::Format`] about `name`.
pub fn parse<T, E: From<Error>>(
    name: &str,
    parser: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if !CAUGHT.get() {
                previous(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(parser));
    CAUGHT.set(outer);
    outcome.unwrap_or_else(|panic| {
        tracing::debug!("{name}: the decoder panicked: {}", message(&*panic));
        Err(Error::format(name, "damaged: it cannot be decoded").into())
    })
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    #[test]
    fn a_panic_becomes_the_files_error() {
        let empty: [u8; 0] = [];
        let outcome: Result<u8> = parse("a.png", || Ok(empty[std::hint::black_box(0)]));
        assert_eq!(outcome.unwrap_err().to_string(), "a.png: damaged: it cannot be decoded");
    }

    #[test]
    fn other_outcomes_pass_through() {
        assert_eq!(parse("a.png", || Ok::<_, Error>(7)).unwrap(), 7);
        let refused: Result<()> = parse("a.png", || Err(Error::Input("no".into())));
        assert_eq!(refused.unwrap_err().to_string(), "no");
    }
}
