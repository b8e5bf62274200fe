//! One generator thread: sends what is planned when it is planned, reads what comes, never waits for an
//! answer.
//!
//! A planned send takes the connection that has been idle longest, or a new one; beyond the load's bound it
//! waits, and its wait counts as latency. Bound: `WAITING_MAX` sends wait; further ones fail as "not sent".

mod lanes;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::measure::recorder::{Recorder, Window, record};
use crate::mock::stats::Counter;
use crate::net::clock::{NS_PER_MS, NS_PER_S, now_ns};
use crate::net::process;
use crate::net::reactor::{Reactor, Ready};
use crate::net::stream::Stream;
use crate::record::stream_name;
use crate::run::connection::{Connection, State};
use crate::run::exchange::{Exchange, Failure};
use crate::run::http2::Http2;
use crate::run::target::Target;
use crate::scenario::schedule::Schedule;
use crate::scenario::shape::Template;
use crate::scenario::{Http, Load, Rate, Scenario};

pub const WAITING_MAX: usize = 1_000_000;
const READ_BYTES: usize = 64 * 1024;
const SWEEP_NS: u64 = 200 * NS_PER_MS;
/// What the kernel takes ahead of a slow reader; it doubles the value.
const SLOW_READER_BUFFER: usize = 4096;

/// What all threads of a run share, read-only but for the live counters.
pub struct Plan {
    pub scenario: Scenario,
    pub target: Target,
    pub templates: Vec<Vec<Template>>,
    pub threads: usize,
    pub begin_ns: u64,
    pub window: Window,
    /// One per thread, for the progress line.
    pub live: Vec<Live>,
}

#[derive(Default)]
#[repr(align(128))]
pub struct Live {
    pub completed: Counter,
    pub failed: Counter,
    pub events: Counter,
    pub open: Counter,
}

/// What a thread gives back.
pub struct Done {
    pub recorders: Vec<Recorder>,
    /// CPU time of this thread within the window, and time that it waited for its core.
    pub cpu_ns: u64,
    pub wait_ns: u64,
}

struct LoadState {
    load: Load,
    schedule: Schedule,
    /// Requests as bytes, with the place of their stream's name.
    requests: Vec<(Vec<u8>, Option<usize>)>,
    /// The same for HTTP/2, where bodies stay in their templates.
    streams: Vec<http::Request<()>>,
    recorder: Recorder,
    idle: VecDeque<usize>,
    waiting: VecDeque<(u64, usize)>,
    open: usize,
    /// This thread's share of the load's connections, or of its streams at once (HTTP/2).
    open_max: usize,
    /// Each end of an answer plans the next send.
    refills: bool,
    is_trace: bool,
}

/// How long to read from a socket that is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// One read: the reader is slow on purpose.
    Once,
    /// A plain socket that gave less than asked for is drained.
    Short,
    /// TLS may hold more than the socket, and an end or a reset behind the data is not told again.
    Blocked,
}

pub struct Worker {
    plan: Arc<Plan>,
    place: usize,
    loads: Vec<LoadState>,
    reactor: Reactor,
    ready: Vec<Ready>,
    connections: Vec<Option<Box<Connection>>>,
    /// HTTP/2 connections, by the same places; empty with HTTP/1.1.
    carriers: Vec<Option<Box<Http2>>>,
    /// Places of those that have something to do.
    stirred: Vec<usize>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    random: fastrand::Rng,
    next_stream: u32,
    is_stopping: bool,
}

impl Worker {
    pub fn new(plan: Arc<Plan>, place: usize) -> Result<Self, String> {
        let over_s = plan.scenario.warmup_s + plan.scenario.duration_s;
        let mut loads = Vec::new();
        for (load, templates) in plan.scenario.load.iter().zip(&plan.templates) {
            let wanted = match load.rate {
                Rate::Hold { streams, .. } => streams,
                Rate::Closed { clients } => clients,
                _ => load.connections,
            };
            loads.push(LoadState {
                schedule: Schedule::new(&load.rate, place, plan.threads, over_s)?,
                requests: templates.iter().map(|template| template.http1(&plan.target.host)).collect(),
                streams: match plan.scenario.http {
                    Http::One => Vec::new(),
                    Http::Two => lanes::requests(templates, &plan.target)?,
                },
                recorder: Recorder::new(plan.window),
                idle: VecDeque::new(),
                waiting: VecDeque::new(),
                open: 0,
                open_max: wanted.div_ceil(plan.threads),
                refills: matches!(load.rate, Rate::Hold { .. } | Rate::Closed { .. }),
                is_trace: matches!(load.rate, Rate::Trace { .. }),
                load: load.clone(),
            });
        }
        Ok(Self {
            place,
            loads,
            reactor: Reactor::new().map_err(|error| format!("epoll: {error}"))?,
            ready: Vec::new(),
            connections: Vec::new(),
            carriers: Vec::new(),
            stirred: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; READ_BYTES],
            random: fastrand::Rng::with_seed(place as u64 + 99),
            // Names of streams differ between threads, runs and targets.
            next_stream: (plan.begin_ns >> 10) as u32 ^ (place as u32) << 24,
            is_stopping: false,
            plan,
        })
    }

    /// Runs the plan to its end.
    pub fn run(mut self) -> Result<Done, String> {
        let told = |error: io::Error| format!("generator: {error}");
        let Window { start_ns, end_ns } = self.plan.window;
        let drain_until = end_ns + (self.plan.scenario.drain_s * NS_PER_S as f64) as u64;
        let (mut before, mut after) = (None, None);
        let mut next_sweep = self.plan.begin_ns + SWEEP_NS;
        loop {
            let now = now_ns();
            if now >= start_ns && before.is_none() {
                before = Some(process::own_thread_ns());
            }
            if now >= end_ns && after.is_none() {
                after = Some(process::own_thread_ns());
                self.is_stopping = true;
                self.leave_held();
            }
            let is_done = self.is_stopping && self.loads.iter().all(LoadState::is_quiet);
            if is_done || now >= drain_until {
                break;
            }
            self.send_planned(now);
            if now >= next_sweep {
                next_sweep = now + SWEEP_NS;
                self.sweep(now);
            }
            self.turn_stirred();
            let edge = if before.is_none() { start_ns } else { end_ns };
            let next = if self.is_stopping { drain_until } else { self.next_planned_ns().min(edge.max(now)) };
            let mut ready = std::mem::take(&mut self.ready);
            self.reactor.wait(next.min(next_sweep), &mut ready).map_err(told)?;
            for one in ready.drain(..) {
                self.on_ready(one);
            }
            self.ready = ready;
            self.turn_stirred();
        }
        let (before, after) = (before.unwrap_or((0, 0)), after.unwrap_or_else(process::own_thread_ns));
        Ok(self.finish(after.0.saturating_sub(before.0), after.1.saturating_sub(before.1)))
    }

    fn next_planned_ns(&self) -> u64 {
        let next = self.loads.iter().filter_map(|load| load.schedule.peek_ns()).min();
        next.map_or(u64::MAX, |next| self.plan.begin_ns + next)
    }

    fn send_planned(&mut self, now: u64) {
        if self.is_stopping {
            return;
        }
        for place in 0..self.loads.len() {
            loop {
                let state = &mut self.loads[place];
                let Some(planned) = state.schedule.peek_ns().map(|next| self.plan.begin_ns + next) else {
                    break;
                };
                if planned > now || planned >= self.plan.window.end_ns {
                    break;
                }
                let number = state.schedule.take();
                if state.recorder.window.holds(planned) {
                    state.recorder.counts.planned += 1;
                    record(&mut state.recorder.lag, now_ns() - planned);
                }
                self.dispatch(place, planned, number);
            }
        }
    }

    /// Sends a planned request on an idle or a new connection, or lets it wait for one.
    fn dispatch(&mut self, load: usize, planned_ns: u64, number: usize) {
        let state = &mut self.loads[load];
        if let Some(place) = state.idle.pop_front() {
            return self.send(place, planned_ns, number);
        }
        if state.has_room() {
            return self.connect(load, planned_ns, number);
        }
        if state.waiting.len() >= WAITING_MAX {
            state.recorder.failed(planned_ns, "not sent", "too many sends wait for a connection");
            return;
        }
        state.waiting.push_back((planned_ns, number));
    }

    fn connect(&mut self, load: usize, planned_ns: u64, number: usize) {
        let stream = self.plan.target.connect();
        let made = stream.and_then(|stream| match self.plan.scenario.http {
            Http::One => self.add_connection(load, stream),
            Http::Two => self.add_lanes(load, stream),
        });
        let recorder = &mut self.loads[load].recorder;
        match made {
            Ok(place) => {
                recorder.counts.connects += u64::from(recorder.window.holds(now_ns()));
                self.send(place, planned_ns, number);
            }
            Err(error) => {
                let class = format!("connect: {}", error.kind());
                recorder.failed(now_ns(), &class, &error.to_string());
            }
        }
    }

    fn add_connection(&mut self, load: usize, stream: Stream) -> io::Result<usize> {
        let state = &self.loads[load];
        let mut connection = Connection::new(stream, load, state.load.leave_after_events);
        if let Some(bytes) = state.bytes_per_sweep() {
            connection.read_bytes = bytes;
            connection.stream.bound_receive_buffer(SLOW_READER_BUFFER)?;
        }
        let place = self.free_place();
        self.reactor.add(&connection.stream, place as u64)?;
        self.connections[place] = Some(Box::new(connection));
        self.loads[load].open += 1;
        Ok(place)
    }

    fn free_place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        })
    }

    fn send(&mut self, place: usize, planned_ns: u64, number: usize) {
        let Some(load) = self.connections[place].as_ref().map(|connection| connection.load) else {
            return self.send_lane(place, planned_ns, number);
        };
        let (chosen, exchange) = self.begin(load, planned_ns, number);
        let (stream, state) = (exchange.stream, &mut self.loads[load]);
        let (request, name_at) = &state.requests[chosen];
        if state.recorder.window.holds(planned_ns) {
            state.recorder.counts.bytes_out += request.len() as u64;
        }
        let Some(connection) = self.connections[place].as_mut() else { return };
        let outcome = connection.start(exchange, |out| {
            let start = out.len();
            out.extend_from_slice(request);
            if let Some(at) = name_at {
                out[start + at..start + at + 8].copy_from_slice(&stream_name(stream));
            }
        });
        if let Err(error) = outcome {
            self.broke(place, &error);
        }
    }

    /// Chooses the template of a send and names its stream.
    fn begin(&mut self, load: usize, planned_ns: u64, number: usize) -> (usize, Exchange) {
        let state = &mut self.loads[load];
        let templates = &self.plan.templates[load];
        let chosen = if state.is_trace { number } else { self.random.usize(..templates.len()) };
        let template = &templates[chosen];
        let stream = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(1);
        let expected = template.records.filter(|_| template.name_at.is_some());
        state.recorder.counts.sent += u64::from(state.recorder.window.holds(planned_ns));
        (chosen, Exchange::new(planned_ns, stream, template.dialect, template.mode, expected))
    }

    fn on_ready(&mut self, one: Ready) {
        let place = one.token as usize;
        let Some(connection) = self.connections[place].as_mut() else {
            return self.stirred.push(place);
        };
        if one.writable
            && let Err(error) = connection.flush()
        {
            return self.broke(place, &error);
        }
        if one.readable && connection.read_bytes == 0 {
            let until = if one.closing || self.plan.target.is_tls() { Until::Blocked } else { Until::Short };
            self.read(place, READ_BYTES, until);
        }
    }

    /// Reads what is there; a slow reader at most `most` bytes.
    fn read(&mut self, place: usize, most: usize, until: Until) {
        let mut whole = std::mem::take(&mut self.buffer);
        let buffer = &mut whole[..most];
        while let Some(connection) = self.connections[place].as_mut() {
            let state = &mut self.loads[connection.load];
            let slo = &self.plan.scenario.slo;
            match connection.stream.read(buffer) {
                Ok(0) => {
                    connection.close(now_ns(), slo, &mut state.recorder);
                    self.close(place);
                    break;
                }
                Ok(size) => {
                    let now = now_ns();
                    if state.recorder.window.holds(now) {
                        state.recorder.counts.bytes_in += size as u64;
                    }
                    let outcome = connection.take_in(&buffer[..size], now, slo, &mut state.recorder);
                    match outcome {
                        State::Busy => {}
                        State::Idle => {
                            let load = connection.load;
                            self.on_idle(load, place, now);
                        }
                        State::Over => self.close(place),
                        State::Leaves => {
                            if let Some(exchange) = connection.exchange.take() {
                                exchange.on_leave(&mut state.recorder);
                            }
                            if state.recorder.window.holds(now) {
                                state.recorder.counts.left += 1;
                            }
                            self.close(place);
                        }
                    }
                    if until == Until::Once || (size < most && until == Until::Short) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.broke(place, &error);
                    break;
                }
            }
        }
        self.buffer = whole;
    }

    /// The answer is complete: the connection takes what waits, or rests.
    fn on_idle(&mut self, load: usize, place: usize, now: u64) {
        let state = &mut self.loads[load];
        if let Some((planned, number)) = state.waiting.pop_front() {
            return self.send(place, planned, number);
        }
        if state.refills && !self.is_stopping {
            return self.refill_on(load, place, now);
        }
        state.idle.push_back(place);
    }

    fn refill_on(&mut self, load: usize, place: usize, now: u64) {
        let recorder = &mut self.loads[load].recorder;
        if recorder.window.holds(now) {
            recorder.counts.planned += 1;
        }
        self.send(place, now, 0);
    }

    fn broke(&mut self, place: usize, error: &io::Error) {
        let Some(connection) = self.connections[place].as_mut() else { return };
        connection.broke(now_ns(), error, &mut self.loads[connection.load].recorder);
        self.close(place);
    }

    /// Closes a connection whose exchange is settled, and sends what waited for its place.
    fn close(&mut self, place: usize) {
        let Some(connection) = self.connections[place].take() else { return };
        let state = &mut self.loads[connection.load];
        state.open -= 1;
        if let Some(at) = state.idle.iter().position(|idle| *idle == place) {
            state.idle.remove(at);
        }
        self.free.push(place);
        let load = connection.load;
        drop(connection);
        if self.is_stopping {
            return;
        }
        if let Some((planned, number)) = self.loads[load].waiting.pop_front() {
            self.dispatch(load, planned, number);
        } else if self.loads[load].refills {
            // The next client takes the place with the next sweep: a target that refuses is not asked in a
            // circle.
            self.loads[load].waiting.push_back((now_ns(), 0));
        }
    }

    /// Fails what took too long, starts what waits although there is room, and shows live figures.
    fn sweep(&mut self, now: u64) {
        let timeout_ns = (self.plan.scenario.timeout_s * NS_PER_S as f64) as u64;
        let is_late = |exchange: &Exchange| {
            let waited_ns = now.saturating_sub(exchange.planned_ns);
            timeout_ns > 0 && waited_ns > timeout_ns && !exchange.is_streaming()
        };
        let failure = Failure::new("timeout", format!("no answer within {} ms", timeout_ns / NS_PER_MS));
        for place in 0..self.connections.len() {
            let Some(connection) = self.connections[place].as_mut() else { continue };
            if connection.exchange.as_ref().is_some_and(is_late) {
                connection.fail(now, failure.clone(), &mut self.loads[connection.load].recorder);
                self.close(place);
            }
        }
        self.fail_late_lanes(is_late, &failure);
        for place in 0..self.connections.len() {
            let most = self.connections[place].as_ref().map_or(0, |connection| connection.read_bytes);
            if most > 0 {
                self.read(place, most, Until::Once);
            }
        }
        self.give_room();
        for load in 0..self.loads.len() {
            while !self.is_stopping && (self.loads[load].has_room() || !self.loads[load].idle.is_empty()) {
                let Some((planned, number)) = self.loads[load].waiting.pop_front() else { break };
                self.dispatch(load, planned, number);
            }
        }
        self.show();
    }

    fn show(&self) {
        let live = &self.plan.live[self.place];
        let sum = |value: fn(&LoadState) -> u64| self.loads.iter().map(value).sum::<u64>();
        live.completed.set(sum(|state| state.recorder.counts.completed));
        live.failed.set(sum(|state| state.recorder.counts.failed));
        live.events.set(sum(|state| state.recorder.counts.events));
        live.open.set(sum(|state| state.open as u64));
    }

    /// The window is over: streams that are held open on purpose are left.
    fn leave_held(&mut self) {
        for place in 0..self.connections.len() {
            let Some(connection) = self.connections[place].as_mut() else { continue };
            let state = &mut self.loads[connection.load];
            if matches!(state.load.rate, Rate::Hold { .. }) {
                if let Some(exchange) = connection.exchange.take() {
                    state.recorder.counts.left += u64::from(exchange.has_answer());
                    exchange.on_leave(&mut state.recorder);
                }
                self.close(place);
            }
        }
        self.leave_held_lanes();
        for state in &mut self.loads {
            if state.refills {
                state.waiting.clear();
            }
            state.recorder.counts.unfinished += state.waiting.len() as u64;
            state.waiting.clear();
        }
    }

    fn finish(mut self, cpu_ns: u64, wait_ns: u64) -> Done {
        for connection in self.connections.iter_mut().flatten() {
            if let Some(exchange) = connection.exchange.take() {
                let recorder = &mut self.loads[connection.load].recorder;
                recorder.counts.unfinished += 1;
                exchange.on_leave(recorder);
            }
        }
        self.finish_lanes();
        Done { recorders: self.loads.into_iter().map(|state| state.recorder).collect(), cpu_ns, wait_ns }
    }
}

impl LoadState {
    /// What a slow reader takes at each sweep; `None`: readers are not slow.
    fn bytes_per_sweep(&self) -> Option<usize> {
        let per_sweep = self.load.read_bytes_per_s * SWEEP_NS / NS_PER_S;
        (self.load.read_bytes_per_s > 0).then(|| (per_sweep as usize).clamp(1, READ_BYTES - 1))
    }

    /// Nothing under way.
    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.open == self.idle.len()
    }
}
