//! Gives the head of a request less time, once it has begun, than a connection may be idle before it.

use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How often something was read from a connection.
type Reads = Arc<AtomicUsize>;

/// A connection that counts its reads.
pub(super) struct CountedStream {
    stream: TcpStream,
    reads: Reads,
}

/// The time for the next head, for hyper, which starts it when the last answer ends.
pub(super) struct HeadTimer {
    reads: Reads,
    /// How long a head may take.
    time: Duration,
    /// Whether the time of the first head was started, of which something is there before hyper asks.
    has_begun: AtomicBool,
}

/// A connection, and the time for its heads.
pub(super) fn timed(stream: TcpStream, time: Duration) -> (CountedStream, HeadTimer) {
    let reads = Reads::default();
    let timer = HeadTimer { reads: Arc::clone(&reads), time, has_begun: AtomicBool::new(false) };
    (CountedStream { stream, reads }, timer)
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let sleep = |deadline: Instant| Box::pin(tokio::time::sleep_until(deadline.into()));
        let is_first = !self.has_begun.swap(true, Ordering::Relaxed);
        Box::pin(HeadSleep {
            idle: sleep(deadline),
            head: is_first.then(|| sleep(Instant::now() + self.time)),
            time: self.time,
            reads: Arc::clone(&self.reads),
            before: self.reads.load(Ordering::Relaxed),
        })
    }
}

/// Ends at the end of the idle time, or of a head's, if something is read.
struct HeadSleep {
    idle: Pin<Box<tokio::time::Sleep>>,
    head: Option<Pin<Box<tokio::time::Sleep>>>,
    time: Duration,
    reads: Reads,
    before: usize,
}

impl Future for HeadSleep {
    type Output = ();

    /// hyper does so after each read.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.head.is_none() && self.reads.load(Ordering::Relaxed) != self.before {
            self.head = Some(Box::pin(tokio::time::sleep(self.time)));
        }
        let head = self.head.as_mut().is_some_and(|head| head.as_mut().poll(context).is_ready());
        match head || self.idle.as_mut().poll(context).is_ready() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Sleep for HeadSleep {}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
