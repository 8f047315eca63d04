//! Defines how much the server takes on.

use std::time::Duration;

/// How much the server takes on. What exceeds a limit is refused by name, before any work.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes in the body of a request (413 beyond).
    pub body_bytes: usize,
    /// Bytes in the bodies of all requests together (429 beyond).
    pub all_body_bytes: usize,
    /// Pixels of an image in a request (413 beyond).
    pub image_pixels: u64,
    /// Bytes of the decoded images of all requests together (429 beyond).
    pub all_image_bytes: usize,
    /// Bytes of a prompt or a text (413 beyond).
    pub text_bytes: usize,
    /// Texts and images in a request for embeddings (413 beyond).
    pub inputs: usize,
    /// Prompts in a request for hidden states, which are large (413 beyond).
    pub prompts: usize,
    /// Images drawn for a request.
    pub images: usize,
    /// Width and height of an image that is drawn, in pixels.
    pub side: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Requests for images that wait for each model (429 beyond).
    pub queued_drawings: usize,
    /// Tokens that wait for each embedding model (429 beyond). An image counts as [`IMAGE_TOKENS`](Self::IMAGE_TOKENS).
    pub queued_tokens: usize,
    /// Tokens in a batch, collected from the requests that wait.
    pub batch_tokens: usize,
    /// Connections open at once; further ones wait.
    pub connections: usize,
    /// How long a client may take to send the head of a request.
    pub head_time: Duration,
    /// How long a connection may stay open between requests: longer than clients keep theirs, so that they end it.
    pub idle_time: Duration,
    /// How long a client may take to send the body of a request (408 beyond).
    pub body_time: Duration,
    /// How long a client may take nothing of its answer (closed beyond). Time in which there is nothing to take, as
    /// between the events of a stream, does not count.
    pub answer_time: Duration,
    /// How long a request may take (504 beyond, or 503 if the model was still being loaded). A request may ask for less
    /// by the header `x-request-timeout`, in seconds.
    pub request_time: Duration,
    /// How long running requests may take to finish when the server ends.
    pub shutdown_time: Duration,
}

impl Limits {
    /// What an image counts among waiting tokens.
    pub const IMAGE_TOKENS: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            all_body_bytes: 256 << 20,
            image_pixels: 40_000_000,
            all_image_bytes: 1 << 30,
            text_bytes: 64 << 10,
            inputs: 2048,
            prompts: 256,
            images: 16,
            side: 2048,
            steps: 200,
            queued_drawings: 32,
            queued_tokens: 1 << 17,
            batch_tokens: 2048,
            connections: 1024,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            body_time: Duration::from_secs(60),
            answer_time: Duration::from_secs(60),
            request_time: Duration::from_secs(3600),
            shutdown_time: Duration::from_secs(120),
        }
    }
}
