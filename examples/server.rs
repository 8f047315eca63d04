//! Draws like a server: threads share a model, requests are JSON, with progress, cancellation, and errors mapped to
//! HTTP statuses. The HTTP part is left out.
//!
//! ```sh
//! cargo run --release --example server
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use altdiffusion_pipeline::{
    AltDiffusion, Cancellation, DType, Device, Error, ErrorKind, GenerateOptions, Progress,
};

/// Requests from clients. The last client disconnects after its second step.
const REQUESTS: [&str; 5] = [
    r#"{"prompts": ["一只猫"], "steps": 4, "guidance": {"scale": 2.25}, "seed": 1}"#,
    r#"{"prompts": ["a red apple", "消防车"], "steps": 4, "scheduler": "euler", "seed": 2}"#,
    r#"{"prompts": ["a cat"], "stepz": 4}"#,
    r#"{"prompts": ["a cat"], "width": 65}"#,
    r#"{"prompts": ["a dog"], "steps": 200, "seed": 3}"#,
];
const IMPATIENT: usize = REQUESTS.len() - 1;

/// An answer, or progress towards it.
enum Event {
    Step { request: usize, step: usize, total: usize },
    Done { request: usize, status: u16, body: String },
}

/// The HTTP status for a kind of error.
fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Input => 400,
        ErrorKind::Cancelled => 499, // the client closed the request
        ErrorKind::OutOfMemory => 503,
        ErrorKind::Network => 502,
        _ => 500,
    }
}

/// Draws the images of a request.
fn answer(
    model: &AltDiffusion,
    request: usize,
    cancellation: Cancellation,
    events: &Sender<Event>,
) -> (u16, String) {
    let options: GenerateOptions = match serde_json::from_str(REQUESTS[request]) {
        Ok(options) => options,
        Err(error) => return (400, error.to_string()),
    };
    let drawn = model.generate_observed(&options.cancellation(cancellation), |progress| {
        if let Progress::Step(step) = progress {
            let (step, total) = (step.index + 1, step.total);
            // A client that has disconnected does not want images either.
            if events.send(Event::Step { request, step, total }).is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    match drawn {
        Ok(drawn) => {
            let sizes: Vec<_> = drawn.images.iter().map(|image| image.dimensions()).collect();
            (200, format!("images of {sizes:?} pixels"))
        }
        Err(error) => {
            let kept = match &error {
                Error::Cancelled { latents: Some(latents), .. } => {
                    format!("; latents {:?} kept", latents.dims())
                }
                _ => String::new(),
            };
            (status(error.kind()), format!("{error}{kept}"))
        }
    }
}

fn main() -> anyhow::Result<()> {
    if let Err(error) = AltDiffusion::from_pretrained("/no/such/model", DType::F32, &Device::Cpu) {
        println!("{} {:?}: {error}", status(error.kind()), error.kind());
    }

    let model = Arc::new(AltDiffusion::from_pretrained("models/emoji", DType::F32, &Device::Cpu)?);
    let (sender, events) = channel();
    let cancellations: Vec<Cancellation> = REQUESTS.iter().map(|_| Cancellation::new()).collect();
    for (request, cancellation) in cancellations.iter().enumerate() {
        let (model, cancellation, sender) = (Arc::clone(&model), cancellation.clone(), sender.clone());
        thread::spawn(move || {
            let (status, body) = answer(&model, request, cancellation, &sender);
            // If this fails, nobody is listening.
            let _ = sender.send(Event::Done { request, status, body });
        });
    }
    drop(sender);

    let mut steps = [0; REQUESTS.len()];
    let mut answers = Vec::new();
    for event in events {
        match event {
            Event::Step { request, step, total } => {
                steps[request] = step;
                if (request, step) == (IMPATIENT, 2) {
                    println!("the client of request {request} goes away in step {step} of {total}");
                    cancellations[request].cancel();
                }
            }
            Event::Done { request, status, body } => answers.push((request, status, body)),
        }
    }
    answers.sort();
    for (request, status, body) in &answers {
        println!("{status} {body} after {} steps for {}", steps[*request], REQUESTS[*request]);
    }
    let found: Vec<u16> = answers.iter().map(|(_, status, _)| *status).collect();
    anyhow::ensure!(found == [200, 200, 400, 400, 499], "{found:?}");
    Ok(())
}
