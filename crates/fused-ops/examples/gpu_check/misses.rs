//! Counts the operations that took the reference path.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Counts the events which say that no kernel ran.
#[derive(Debug, Default, Clone)]
pub(crate) struct Misses(Arc<AtomicUsize>);

impl Misses {
    /// The number of events since the last call.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Subscriber for Misses {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.is_event() && metadata.fields().field("operation").is_some()
    }

    fn event(&self, _: &Event) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
