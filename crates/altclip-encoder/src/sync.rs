//! Names what threads share here. In tests built with `--cfg shuttle` these are shuttle's, which tries interleavings.

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{Mutex, mpsc},
    thread,
};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{Mutex, mpsc},
    thread,
};
