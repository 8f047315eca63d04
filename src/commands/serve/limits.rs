//! Parses how much a server takes on.

use altdiffusion_server::Limits;
use anyhow::{Context, Result};
use clap::Args;

use super::models::duration;
use crate::option_values;

/// What a server refuses.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct ServeLimits {
    /// Requests for images that may wait for each model; further ones get status 429. By default 32.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    queue_images: Option<usize>,

    /// Tokens that may wait for each embedder; further ones get status 429. By default 131072.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    queue_tokens: Option<usize>,

    /// Tokens in a batch, collected from the requests that wait. By default 2048.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    batch_tokens: Option<usize>,

    /// The most images of a request. By default 16.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    max_images: Option<usize>,

    /// The largest width and height of an image, in pixels. By default 2048.
    #[arg(long, value_name = "PIXELS", value_parser = option_values::side, hide_short_help = true)]
    max_side: Option<usize>,

    /// The most denoising steps. By default 200.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    max_steps: Option<usize>,

    /// The most texts and images in a request for embeddings. By default 2048.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    max_inputs: Option<usize>,

    /// The largest image in a request, in pixels. By default 40000000.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    max_pixels: Option<usize>,

    /// The largest body of a request, in bytes. By default 33554432.
    #[arg(long, value_name = "BYTES", value_parser = option_values::count, hide_short_help = true)]
    max_body: Option<usize>,

    /// Connections open at once; further ones wait. By default 1024.
    #[arg(long, value_name = "N", value_parser = option_values::count, hide_short_help = true)]
    max_connections: Option<usize>,

    /// How long a request may take, such as 10m. By default 1h.
    ///
    /// A request may ask for less by the header x-request-timeout, in seconds.
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    timeout: Option<String>,

    /// How long a client may take nothing of an answer before its connection is closed, such as 30s. By default 1m.
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    answer_timeout: Option<String>,
}

impl ServeLimits {
    /// Sets what was given.
    ///
    /// # Errors
    /// If a time cannot be read.
    pub fn set(&self, limits: &mut Limits) -> Result<()> {
        let Self {
            queue_images,
            queue_tokens,
            batch_tokens,
            max_images,
            max_side,
            max_steps,
            max_inputs,
            max_pixels,
            max_body,
            max_connections,
            timeout,
            answer_timeout,
        } = self;
        for (limit, given) in [
            (&mut limits.queued_drawings, queue_images),
            (&mut limits.queued_tokens, queue_tokens),
            (&mut limits.batch_tokens, batch_tokens),
            (&mut limits.images, max_images),
            (&mut limits.side, max_side),
            (&mut limits.steps, max_steps),
            (&mut limits.inputs, max_inputs),
            (&mut limits.body_bytes, max_body),
            (&mut limits.connections, max_connections),
        ] {
            *limit = given.unwrap_or(*limit);
        }
        // Room for at least a few of the largest bodies.
        limits.all_body_bytes = limits.all_body_bytes.max(limits.body_bytes.saturating_mul(4));
        limits.image_pixels = max_pixels.map_or(limits.image_pixels, |pixels| pixels as u64);
        if let Some(time) = timeout {
            limits.request_time = duration(time).with_context(|| format!("--timeout {time}"))?;
        }
        if let Some(time) = answer_timeout {
            limits.answer_time = duration(time).with_context(|| format!("--answer-timeout {time}"))?;
        }
        Ok(())
    }
}
