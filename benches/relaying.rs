//! The relay over slices that are at hand, for the benches that time and count it: `Relay::run` from a replayed
//! source to a sink in memory. It never waits, so one poll is the whole of it. Panics where the relay ends
//! otherwise than whole or counts another usage than the stream told.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tollgate::base::clock::{self, Instant};
use tollgate::handler::answer::Expected;
use tollgate::handler::relay::{Body, Events, Limits, Relay};
use tollgate::handler::sink::{MemorySink, Sink};
use tollgate::handler::source::Source;
use tollgate::handler::tap::Tap;
use tollgate::llm::dialect::Dialect;
use tollgate::net::page::{Page, Slice};
use tollgate::policy::auth::OnDisconnect;
use tollgate::policy::exchange::{Ended, Exchange};
use tollgate::usage::meter::{Known, Shape};

/// The end of a stream of OpenAI chat: its usage, and the mark behind it.
pub const USAGE: &str = "data: {\"id\":\"chatcmpl-ABCDEFGHIJKLMNOPQRSTUVWXYZ012\",\
                         \"object\":\"chat.completion.chunk\",\"created\":1732000000,\
                         \"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":\
                         {\"prompt_tokens\":12,\"completion_tokens\":998,\"total_tokens\":1010}}\n\n";
pub const DONE: &str = "data: [DONE]\n\n";

/// What is done with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing looks at it.
    Bytes,
    /// The ends of its events are found.
    Events,
    Metered,
    /// Metered, and the usage chunk is hidden.
    Hiding,
}

/// Relays `slices`, and gives `out` back with what came out behind it.
pub fn relay(work: Work, slices: VecDeque<Slice>, out: Vec<u8>) -> Vec<u8> {
    let is_metered = matches!(work, Work::Metered | Work::Hiding);
    let mut source = Source::Replay(slices);
    let mut sink = Sink::Memory(MemorySink { body: out, ..MemorySink::default() });
    let mut exchange = Exchange::begin(clock::now());
    let mut tap = match is_metered {
        true => Tap::metering(Dialect::OpenAiChat, Shape::Stream, None, Known::default()),
        false => Tap::closed(),
    };
    let expected = Expected { hide_usage: work == Work::Hiding, ..Expected::default() };
    let body = match work {
        Work::Bytes => Body::Bytes,
        _ => Body::Events(Events::new(Dialect::OpenAiChat, expected, None)),
    };
    let limits = Limits {
        idle_timeout: Duration::from_secs(60),
        total_deadline: Instant::NEVER,
        heartbeat: Duration::ZERO,
        event_bytes_max: 1 << 20,
        on_disconnect: OnDisconnect::default(),
    };
    let mut relay = Relay {
        exchange: &mut exchange,
        source: &mut source,
        sink: &mut sink,
        tap: &mut tap,
        body,
        limits: &limits,
        account: None,
    };
    let ended = pin!(relay.run(pin!(std::future::pending()))).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(ended, Poll::Ready(Ended::Whole));
    assert_eq!(tap.usage().output, is_metered.then_some(998));
    let Sink::Memory(sink) = sink else { panic!("a sink in memory") };
    sink.body
}

/// A stream in slices of pages, as a connection receives it.
pub fn slices<'a>(reads: impl Iterator<Item = &'a [u8]>) -> VecDeque<Slice> {
    let slice = |read: &[u8]| {
        let mut page = Page::with_room(read.len());
        assert_eq!(page.append(read), read.len());
        page.slice(0..read.len())
    };
    reads.map(slice).collect()
}
