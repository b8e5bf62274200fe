//! Waits for the first of several futures, in a fixed order of preference, without allocation and without
//! waking itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Which of two futures ended first.
#[derive(Debug, PartialEq, Eq)]
pub enum First<A, B> {
    One(A),
    Two(B),
}

/// Polls both until one is ready; `one` is asked first. The other is dropped: give only what may be dropped
/// while it waits.
pub async fn race<A: Future, B: Future>(one: A, two: B) -> First<A::Output, B::Output> {
    let one = std::pin::pin!(one);
    let two = std::pin::pin!(two);
    Race { one, two }.await
}

/// As `race`, over futures that the caller keeps: the one that lost goes on waiting and can be raced again.
pub async fn race_kept<A: Future, B: Future>(
    one: Pin<&mut A>,
    two: Pin<&mut B>,
) -> First<A::Output, B::Output> {
    Race { one, two }.await
}

struct Race<'a, A, B> {
    one: Pin<&'a mut A>,
    two: Pin<&'a mut B>,
}

impl<A: Future, B: Future> Future for Race<'_, A, B> {
    type Output = First<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(output) = this.one.as_mut().poll(cx) {
            return Poll::Ready(First::One(output));
        }
        this.two.as_mut().poll(cx).map(First::Two)
    }
}
