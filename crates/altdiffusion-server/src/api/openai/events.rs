//! Sends images as server-sent events while they are drawn.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::answer::{AnswerForm, ImageItem};
use super::error::{error_body, now};
use crate::drawing::{DrawEvent, Drawing};

/// How often an idle stream says that it lives, which also finds clients that have gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// An event of a stream.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes events")]
pub(crate) struct EventSchema {
    /// Such as `image_generation.completed`.
    event: String,
    /// JSON.
    data: String,
}

/// What OpenAI's events say of every image.
#[derive(Serialize)]
struct ImageNature {
    created_at: u64,
    background: &'static str,
    quality: &'static str,
    output_format: &'static str,
}

impl ImageNature {
    fn of(form: AnswerForm) -> Self {
        Self { created_at: now(), background: "opaque", quality: "auto", output_format: form.format_name() }
    }
}

/// A preview.
#[derive(Serialize)]
struct Partial {
    #[serde(rename = "type")]
    kind: String,
    image: usize,
    partial_image_index: usize,
    b64_json: String,
    size: &'static str,
    #[serde(flatten)]
    nature: ImageNature,
}

/// A complete image.
#[derive(Serialize)]
struct Completed {
    #[serde(rename = "type")]
    kind: String,
    image: usize,
    size: String,
    #[serde(flatten)]
    nature: ImageNature,
    #[serde(flatten)]
    item: ImageItem,
}

/// Tells nginx, which else collects them, to pass events on as they come.
const UNBUFFERED: [(&str, &str); 1] = [("x-accel-buffering", "no")];

/// An answer with the events of a drawing, which is cancelled when the client goes.
pub(super) fn stream(drawing: Drawing, form: AnswerForm) -> Response {
    let events = Sse::new(events(drawing, form)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    (UNBUFFERED, events).into_response()
}

fn events(drawing: Drawing, form: AnswerForm) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((Some(drawing), Vec::new(), 0), move |(drawing, mut ready, mut previews)| async move {
        let mut drawing = drawing;
        loop {
            if !ready.is_empty() {
                let event: Event = ready.remove(0);
                return Some((Ok(event), (drawing, ready, previews)));
            }
            let events = match drawing.as_mut()?.next().await {
                Ok(Some(event)) => of_event(event, form, drawing.as_ref()?.images, &mut previews),
                Ok(None) => return None,
                Err(problem) => {
                    drawing = None;
                    let body = error_body(&problem);
                    let mut value = json!({ "type": "error" });
                    if let (Some(value), Ok(serde_json::Value::Object(body))) =
                        (value.as_object_mut(), serde_json::to_value(body))
                    {
                        value.extend(body);
                    }
                    vec![event("error", &value)]
                }
            };
            ready = events;
        }
    })
}

/// The events that tell of what happened; `previews` counts those of the image that is drawn.
fn of_event(found: DrawEvent, form: AnswerForm, images: usize, previews: &mut usize) -> Vec<Event> {
    let name = |event: &str| format!("{}.{event}", form.event_prefix);
    match found {
        DrawEvent::Step { image, step, steps, preview } => {
            let kind = name("progress");
            let progress =
                json!({ "type": kind, "image": image, "images": images, "step": step, "steps": steps });
            let mut events = vec![event(&kind, &progress)];
            if let Some(file) = preview {
                let kind = name("partial_image");
                let partial = Partial {
                    kind: kind.clone(),
                    image,
                    partial_image_index: *previews,
                    b64_json: BASE64_STANDARD.encode(file),
                    size: "auto",
                    nature: ImageNature { output_format: "png", ..ImageNature::of(form) },
                };
                events.push(event(&kind, &partial));
                *previews += 1;
            }
            events
        }
        DrawEvent::Image(drawn) => {
            *previews = 0;
            let kind = name("completed");
            let size = format!("{}x{}", drawn.width, drawn.height);
            let (image, item, nature) = (drawn.image, form.item(&drawn), ImageNature::of(form));
            vec![event(&kind, &Completed { kind: kind.clone(), image, size, nature, item })]
        }
        // Handled by the caller.
        DrawEvent::Failed(_) => Vec::new(),
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let text = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(text)
}
