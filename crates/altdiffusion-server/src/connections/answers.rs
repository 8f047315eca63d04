//! Finds clients that do not take their answers, which would otherwise stay in memory.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body as AnyBody;
use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};

/// How often to look while an answer may wait.
const LOOKS: u32 = 4;
/// The shortest time between looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The answers of a connection.
#[derive(Default)]
pub(super) struct Answers(Mutex<Vec<Weak<Answer>>>);

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body that notices when it is taken.
    pub(super) fn add(&self, body: AnyBody) -> TakenBody {
        let answer = Arc::new(Answer(Mutex::new(Waiting { parts: 0, since: Instant::now() })));
        let mut all = self.lock();
        all.retain(|answer| answer.strong_count() > 0);
        all.push(Arc::downgrade(&answer));
        answer.add();
        TakenBody { body, answer, waits: true }
    }

    fn is_late(&self, time: Duration) -> bool {
        self.lock().iter().filter_map(Weak::upgrade).any(|answer| answer.is_late(time))
    }

    /// Ends once the client has taken nothing of an answer for this time, while there was something to take.
    pub(super) async fn untaken_for(&self, time: Duration) {
        while !self.is_late(time) {
            tokio::time::sleep((time / LOOKS).max(PAUSE)).await;
        }
    }
}

/// What of an answer waits for its client.
struct Answer(Mutex<Waiting>);

struct Waiting {
    /// Parts that are not sent, among them the body while hyper does not ask it for more.
    parts: usize,
    /// When the first of them came, or a byte was last sent.
    since: Instant,
}

impl Answer {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) {
        let mut waiting = self.lock();
        if waiting.parts == 0 {
            waiting.since = Instant::now();
        }
        waiting.parts += 1;
    }

    fn remove(&self) {
        self.lock().parts -= 1;
    }

    fn is_late(&self, time: Duration) -> bool {
        let waiting = self.lock();
        waiting.parts > 0 && waiting.since.elapsed() > time
    }
}

/// The body of an answer. It does not wait for its client while it waits for work, as a stream of events does.
pub(super) struct TakenBody {
    body: AnyBody,
    answer: Arc<Answer>,
    /// Whether it counts among the answer's parts.
    waits: bool,
}

impl TakenBody {
    fn set_waits(&mut self, waits: bool) {
        match (self.waits, waits) {
            (false, true) => self.answer.add(),
            (true, false) => self.answer.remove(),
            _ => {}
        }
        self.waits = waits;
    }
}

impl Body for TakenBody {
    type Data = Part;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        this.set_waits(matches!(polled, Poll::Ready(Some(_))));
        let part = |bytes| Part::new(bytes, &this.answer);
        polled.map_ok(|frame| frame.map_data(part))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TakenBody {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}

/// Bytes that hyper drops when they are sent.
pub(super) struct Part {
    bytes: Bytes,
    answer: Arc<Answer>,
}

impl Part {
    fn new(bytes: Bytes, answer: &Arc<Answer>) -> Self {
        answer.add();
        Self { bytes, answer: Arc::clone(answer) }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.answer.lock().since = Instant::now();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.answer.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Waker;

    use futures_util::StreamExt;
    use futures_util::stream::{iter, pending};

    use super::*;

    const TIME: Duration = Duration::from_millis(200);

    fn is_late_soon(answers: &Answers) -> bool {
        std::thread::sleep(TIME * 2);
        answers.is_late(TIME)
    }

    #[test]
    fn only_what_could_be_sent_waits_for_the_client() {
        let event = Ok::<_, Infallible>(Bytes::from_static(b"an event"));
        let answers = Answers::default();
        let mut body = answers.add(AnyBody::from_stream(iter([event]).chain(pending())));
        // Nobody asks for it, as in HTTP/2 if the client's window is full.
        assert!(is_late_soon(&answers));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
            panic!("expected the event");
        };
        let Ok(mut part) = frame.into_data() else { panic!("expected bytes") };
        assert_eq!((part.remaining(), part.chunk()), (8, &b"an event"[..]));
        part.advance(3);
        assert!(!answers.is_late(TIME));
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        assert!(is_late_soon(&answers));
        // All is sent, and the next event has not come.
        drop(part);
        assert!(!is_late_soon(&answers));
    }
}
