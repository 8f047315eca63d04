//! Accepts connections, within limits of number and time, and lets them finish at the end.

mod answers;
mod heads;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use self::answers::Answers;
use crate::api::with_one_slash;
use crate::limits::Limits;

/// Streams that a connection may have open at once in HTTP/2.
const STREAMS: u32 = 64;
/// Bytes of a request's head.
const HEAD_BYTES: u32 = 64 << 10;
/// How long to wait after the system refused a connection, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `end`, then lets running requests finish. `on_end` is called in between.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    end: impl Future<Output = ()>,
    on_end: impl FnOnce(),
) {
    let connections = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().header_read_timeout(limits.idle_time).max_buf_size(HEAD_BYTES as usize * 4);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES)
        .keep_alive_interval(Some(limits.head_time))
        .keep_alive_timeout(limits.head_time);
    tokio::pin!(end);
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Small answers leave at once.
        let _ = stream.set_nodelay(true);
        let (router, mut builder, watcher) = (router.clone(), builder.clone(), graceful.watcher());
        let (head_time, answer_time) = (limits.head_time, limits.answer_time);
        tokio::spawn(async move {
            if tokio::time::timeout(head_time, first_bytes(&stream)).await.is_err() {
                return; // it says nothing
            }
            let answers = Arc::new(Answers::default());
            let of_service = Arc::clone(&answers);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (router, answers) = (router.clone(), Arc::clone(&of_service));
                async move {
                    let answer = router.oneshot(with_one_slash(request)).await?;
                    Ok::<_, Infallible>(answer.map(|body| answers.add(body)))
                }
            });
            let (stream, head_timer) = heads::timed(stream, head_time);
            builder.http1().timer(head_timer);
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            tokio::select! {
                ended = watcher.watch(connection) => if let Err(error) = ended {
                    tracing::debug!("a connection ended: {error}");
                },
                () = answers.untaken_for(answer_time) => {
                    tracing::info!(seconds = answer_time.as_secs_f64(), "closed a connection whose client took no answer");
                }
            }
            drop(place);
        });
    }
    drop(listener);
    on_end();
    if tokio::time::timeout(limits.shutdown_time, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running after {} seconds", limits.shutdown_time.as_secs());
    }
}

/// Waits for the bytes that identify a connection's protocol; hyper has no time limit for them.
async fn first_bytes(stream: &TcpStream) {
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const LOOK_AGAIN: Duration = Duration::from_millis(10);
    let mut bytes = [0; HTTP2.len()];
    loop {
        match stream.peek(&mut bytes).await {
            Ok(count) if count > 0 && count < HTTP2.len() && HTTP2.starts_with(&bytes[..count]) => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // Enough, the end, or an error that the connection will meet again.
            _ => return,
        }
    }
}
