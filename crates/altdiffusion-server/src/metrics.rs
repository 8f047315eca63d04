//! Counts what the server does, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, String)>;
type Seconds = Counter<f64, AtomicU64>;

/// The server's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    request_seconds: Family<Labels, Histogram>,
    problems: Family<Labels, Counter>,
    stage_seconds: Family<Labels, Seconds>,
    images: Counter,
    image_seconds: Histogram,
    cancelled: Counter,
    tokens: Counter,
    batch_tokens: Histogram,
    queue_length: Family<Labels, Gauge>,
}

/// Bounds of a histogram of seconds, from a millisecond to minutes.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
/// Bounds of a histogram of tokens.
const TOKENS: [f64; 9] = [8.0, 32.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 16384.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("altdiffusion");
        let requests: Family<Labels, Counter> = Family::default();
        registry.register("requests", "Answered requests by path and status", requests.clone());
        let request_seconds: Family<Labels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        let text = "Time to the head of the answer by path";
        registry.register_with_unit("request", text, Unit::Seconds, request_seconds.clone());
        let problems: Family<Labels, Counter> = Family::default();
        registry.register("problems", "Requests without a result by kind", problems.clone());
        let stage_seconds: Family<Labels, Seconds> = Family::default();
        let text = "Time spent in each stage";
        registry.register_with_unit("stage", text, Unit::Seconds, stage_seconds.clone());
        let images = Counter::default();
        registry.register("images", "Images drawn", images.clone());
        let image_seconds = Histogram::new(SECONDS);
        let text = "Time to draw an image";
        registry.register_with_unit("image", text, Unit::Seconds, image_seconds.clone());
        let cancelled = Counter::default();
        registry.register("cancelled", "Requests whose client had gone", cancelled.clone());
        let tokens = Counter::default();
        registry.register("tokens", "Tokens embedded", tokens.clone());
        let batch_tokens = Histogram::new(TOKENS);
        registry.register("batch_tokens", "Tokens in a batch of embeddings", batch_tokens.clone());
        let queue_length: Family<Labels, Gauge> = Family::default();
        let text =
            "What waits or runs: requests for images, tokens for embeddings, prompts for hidden states";
        registry.register("queue_length", text, queue_length.clone());
        Self {
            registry,
            requests,
            request_seconds,
            problems,
            stage_seconds,
            images,
            image_seconds,
            cancelled,
            tokens,
            batch_tokens,
            queue_length,
        }
    }

    /// Counts an answer; `path` is the pattern of its route.
    pub(crate) fn add_request(&self, path: &str, status: u16, time: Duration) {
        let path = ("path", path.to_owned());
        let by_status = vec![path.clone(), ("status", status.to_string())];
        self.requests.get_or_create(&by_status).inc();
        self.request_seconds.get_or_create(&vec![path]).observe(time.as_secs_f64());
    }

    pub(crate) fn add_problem(&self, kind: &'static str) {
        self.problems.get_or_create(&vec![("kind", kind.to_owned())]).inc();
    }

    pub(crate) fn add_seconds(&self, stage: &'static str, time: Duration) {
        self.stage_seconds.get_or_create(&vec![("stage", stage.to_owned())]).inc_by(time.as_secs_f64());
    }

    pub(crate) fn add_image(&self, time: Duration) {
        self.images.inc();
        self.image_seconds.observe(time.as_secs_f64());
        self.add_seconds("draw", time);
    }

    pub(crate) fn add_cancelled(&self) {
        self.cancelled.inc();
    }

    pub(crate) fn add_batch(&self, tokens: usize, time: Duration) {
        self.tokens.inc_by(tokens as u64);
        self.batch_tokens.observe(tokens as f64);
        self.add_seconds("embed", time);
    }

    pub(crate) fn set_queue_length(&self, kind: &'static str, model: &str, length: usize) {
        let labels = vec![("kind", kind.to_owned()), ("model", model.to_owned())];
        self.queue_length.get_or_create(&labels).set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// All of them in OpenMetrics' text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
