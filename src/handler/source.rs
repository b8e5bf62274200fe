//! Where an answer comes from: an upstream, the built-in provider, or a list replayed from memory.
//!
//! Shape: head first, then payload slices until the end. Transfer framing ends here: slices hold payload
//! bytes only. `next` may be dropped while it waits and asked again; nothing is lost. `ready` gives what
//! needs no waiting. Errors: `SourceError`, all the upstream's fault. A dropped source closes its connection;
//! `release` gives it back to the pool after a whole answer.

use crate::base::error::{Error, Kind, Timer};
use crate::handler::mock;
use crate::net::page::Slice;
use crate::net::upstream::{self, Piece, UpstreamError};
use std::collections::VecDeque;

/// What comes next.
pub enum Next {
    Data(Slice),
    /// The answer has ended as its framing says.
    End,
}

/// Why an answer does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// The connection ended or was reset within the answer.
    Cut,
    /// The answer's framing is broken.
    Broken(&'static str),
    /// Silent for too long.
    IdleTimeout,
    /// The request as a whole took too long.
    TotalTimeout,
    /// An event that has to be looked at whole is longer than allowed.
    EventTooLarge,
}

impl SourceError {
    /// The error as the client is told it.
    pub fn for_client(self) -> Error {
        match self {
            SourceError::Cut => {
                Error::new(Kind::UpstreamBroken, "the provider closed the connection before its answer ended")
            }
            SourceError::Broken(what) => {
                Error::new(Kind::UpstreamBroken, format!("the provider's answer broke off: {what}"))
            }
            SourceError::IdleTimeout => Error::new(
                Kind::UpstreamTimeout(Timer::Idle),
                "the provider sent nothing for the idle timeout (idle_ms)",
            ),
            SourceError::TotalTimeout => Error::new(
                Kind::UpstreamTimeout(Timer::Total),
                "the request took longer than the total timeout (total_ms)",
            ),
            SourceError::EventTooLarge => {
                Error::new(Kind::UpstreamBroken, "the provider sent an event longer than event_max_bytes")
            }
        }
    }
}

/// Where an answer comes from.
pub enum Source {
    Upstream(Box<upstream::Http1Upstream>),
    /// An upstream whose first payload has been looked at and is still to be given.
    Begun(Box<(Slice, Source)>),
    Mock(Box<mock::Answer>),
    Replay(VecDeque<Slice>),
}

impl Source {
    /// Waits for the next payload.
    pub async fn next(&mut self) -> Result<Next, SourceError> {
        match self {
            Source::Upstream(upstream) => upstream.next().await.map(Next::from).map_err(SourceError::from),
            Source::Begun(_) => Ok(self.give_first()),
            Source::Mock(answer) => Ok(answer.next().await.map_or(Next::End, Next::Data)),
            Source::Replay(slices) => Ok(slices.pop_front().map_or(Next::End, Next::Data)),
        }
    }

    /// The next payload where it is at hand.
    pub fn ready(&mut self) -> Option<Result<Next, SourceError>> {
        match self {
            Source::Upstream(upstream) => upstream
                .next_ready()
                .map_err(SourceError::from)
                .map(|piece| piece.map(Next::from))
                .transpose(),
            Source::Begun(_) => Some(Ok(self.give_first())),
            Source::Mock(_) => None,
            Source::Replay(slices) => Some(Ok(slices.pop_front().map_or(Next::End, Next::Data))),
        }
    }

    /// Gives `first`, which came from it, once more.
    pub fn put_back(&mut self, first: Slice) {
        *self = Source::Begun(Box::new((first, self.take())));
    }

    fn give_first(&mut self) -> Next {
        match self.take() {
            Source::Begun(begun) => {
                let (first, source) = *begun;
                *self = source;
                Next::Data(first)
            }
            other => {
                *self = other;
                Next::End
            }
        }
    }

    /// Takes the source out; one that has ended stays.
    pub fn take(&mut self) -> Source {
        std::mem::replace(self, Source::Replay(VecDeque::new()))
    }

    /// Gives an upstream's connection back where its answer was read whole and the connection may be used
    /// again.
    pub fn release(self) {
        if let Source::Upstream(upstream) = self {
            upstream.finish();
        }
    }
}

impl From<Piece> for Next {
    fn from(piece: Piece) -> Next {
        match piece {
            Piece::Data(slice) => Next::Data(slice),
            Piece::End => Next::End,
        }
    }
}

impl From<UpstreamError> for SourceError {
    fn from(error: UpstreamError) -> SourceError {
        match error {
            UpstreamError::BodyInvalid(what) | UpstreamError::HeadInvalid(what) => SourceError::Broken(what),
            _ => SourceError::Cut,
        }
    }
}
