//! Waits for the first of two futures, in a fixed order of preference, without allocation and without waking
//! itself.

use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Which of two futures ended first.
#[derive(Debug, PartialEq, Eq)]
pub enum First<A, B> {
    One(A),
    Two(B),
}

/// Polls both until one is ready; `one` is asked first. A future that is handed over is dropped with the race:
/// give only what may be dropped while it waits. One that is lent (`as_mut`) goes on waiting and can be raced
/// again.
pub fn race<A: Future, B: Future>(one: A, two: B) -> Race<A, B> {
    Race { one, two }
}

pin_project! {
    /// A race. No async fn: that would keep both futures twice, as arguments and as locals.
    pub struct Race<A, B> {
        #[pin]
        one: A,
        #[pin]
        two: B,
    }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = First<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.one.poll(cx) {
            return Poll::Ready(First::One(output));
        }
        this.two.poll(cx).map(First::Two)
    }
}
