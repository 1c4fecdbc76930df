//! A bounded queue from one publisher to one watcher: the watcher that does not keep up is ended, never
//! waited for.
//!
//! The bound is a weight (events, not messages), so that one burst published as many small messages or as
//! one large message is judged alike. What was queued before the end is still delivered, then the error,
//! then nothing.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, task::AtomicWaker};
use parking_lot::Mutex;

use crate::store::StoreError;

/// Makes a queue that holds messages of `limit` weight together (a single heavier message passes when
/// nothing else waits: it could never be delivered otherwise).
pub(crate) fn feed<T>(limit: usize) -> (Feed<T>, Tail<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue { messages: VecDeque::new(), weight: 0, end: None, reader_gone: false }),
        waker: AtomicWaker::new(),
    });
    (Feed { shared: Arc::clone(&shared), limit }, Tail { shared, ended: false })
}

/// The publisher's side. Dropping it ends the stream as unavailable.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    shared: Arc<Shared<T>>,
    limit: usize,
}

/// The watcher's side: a stream. Dropping it tells the publisher to stop.
#[derive(Debug)]
pub(crate) struct Tail<T> {
    shared: Arc<Shared<T>>,
    ended: bool,
}

/// Why a message was not taken. The feed is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The reader is gone.
    Gone,
    /// The reader did not keep up and was ended.
    Slow,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<(T, usize)>,
    weight: usize,
    end: Option<StoreError>,
    reader_gone: bool,
}

impl<T> Feed<T> {
    /// Queues one message.
    pub(crate) fn push(&self, message: T, weight: usize) -> Result<(), Refused> {
        let mut queue = self.shared.queue.lock();
        if queue.reader_gone || queue.end.is_some() {
            return Err(Refused::Gone);
        }
        let was_empty = queue.messages.is_empty();
        if !was_empty && queue.weight + weight > self.limit {
            queue.end = Some(StoreError::SlowWatcher);
            drop(queue);
            self.shared.waker.wake();
            return Err(Refused::Slow);
        }
        queue.weight += weight;
        queue.messages.push_back((message, weight));
        drop(queue);
        // A reader that has not drained the queue yet was woken by an earlier message.
        if was_empty {
            self.shared.waker.wake();
        }
        Ok(())
    }

    /// Ends the stream with an error, after what is queued.
    pub(crate) fn end(&self, error: StoreError) {
        self.shared.queue.lock().end.get_or_insert(error);
        self.shared.waker.wake();
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.queue.lock().reader_gone
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.end(StoreError::Unavailable("the watch was closed".to_owned()));
    }
}

impl<T> Drop for Tail<T> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.reader_gone = true;
        let dropped = std::mem::take(&mut queue.messages);
        drop(queue);
        drop(dropped);
    }
}

impl<T> Stream for Tail<T> {
    type Item = Result<T, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.shared.waker.register(context.waker());
        let mut queue = self.shared.queue.lock();
        if let Some((message, weight)) = queue.messages.pop_front() {
            queue.weight -= weight;
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(error) = queue.end.clone() else {
            return Poll::Pending;
        };
        drop(queue);
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn delivers_in_order_and_ends_when_closed() {
        let (feed, mut tail) = feed(10);
        feed.push(1, 1).unwrap();
        feed.push(2, 1).unwrap();
        drop(feed);
        assert_eq!(tail.next().await.unwrap().unwrap(), 1);
        assert_eq!(tail.next().await.unwrap().unwrap(), 2);
        assert!(matches!(tail.next().await, Some(Err(StoreError::Unavailable(_)))));
        assert!(tail.next().await.is_none());
    }

    #[tokio::test]
    async fn ends_a_slow_reader_after_what_was_queued() {
        let (feed, mut tail) = feed(3);
        feed.push("heavier than the limit, but alone", 5).unwrap();
        assert_eq!(feed.push("too much", 1), Err(Refused::Slow));
        assert!(tail.next().await.unwrap().is_ok());
        assert!(matches!(tail.next().await, Some(Err(StoreError::SlowWatcher))));
    }

    #[tokio::test]
    async fn tells_when_the_reader_is_gone() {
        let (feed, tail) = feed(3);
        drop(tail);
        assert!(feed.is_gone());
        assert_eq!(feed.push((), 1), Err(Refused::Gone));
    }
}
