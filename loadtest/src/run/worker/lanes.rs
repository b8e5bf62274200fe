//! The generator thread over HTTP/2: a place holds a connection with many lanes, and stands among the idle
//! ones once per idle lane.
//!
//! So planning, waiting and refilling are those of HTTP/1.1, where a place has one lane. A request is
//! queued on its connection, and connections with something to do are turned once per loop.

use std::io;

use bytes::Bytes;

use super::{LoadState, Worker};
use crate::measure::recorder::Recorder;
use crate::net::clock::now_ns;
use crate::net::stream::Stream;
use crate::record::stream_name;
use crate::run::exchange::{Exchange, Failure};
use crate::run::http2::{Habits, Http2};
use crate::scenario::Rate;

impl Worker {
    /// Makes a connection with as many lanes as the scenario gives one and the load still has; all but one are
    /// idle.
    pub(super) fn add_lanes(&mut self, load: usize, stream: Stream) -> io::Result<usize> {
        let state = &self.loads[load];
        let lanes = self.plan.scenario.streams_per_connection.min(state.open_max - state.open);
        let habits =
            Habits { leave_after: state.load.leave_after_events, room_bytes: state.bytes_per_sweep() };
        let place = self.free_place();
        self.reactor.add(&stream, place as u64)?;
        let made = Http2::new(stream, self.plan.target.is_tls(), load, lanes, habits);
        self.carriers.resize_with(self.connections.len().max(self.carriers.len()), || None);
        self.carriers[place] = Some(Box::new(made));
        let state = &mut self.loads[load];
        state.open += lanes;
        state.idle.extend(std::iter::repeat_n(place, lanes - 1));
        Ok(place)
    }

    pub(super) fn send_lane(&mut self, place: usize, planned_ns: u64, number: usize) {
        let Some(load) = self.carriers.get(place).and_then(Option::as_ref).map(|carrier| carrier.load) else {
            return;
        };
        let (chosen, exchange) = self.begin(load, planned_ns, number);
        let template = &self.plan.templates[load][chosen];
        let mut body = template.body.clone();
        if let Some(at) = template.name_at {
            body[at..at + 8].copy_from_slice(&stream_name(exchange.stream));
        }
        let Some(carrier) = self.carriers[place].as_mut() else { return };
        carrier.start(exchange, self.loads[load].streams[chosen].clone(), Bytes::from(body));
        self.stirred.push(place);
    }

    /// Turns every connection that has something to do, until none has.
    pub(super) fn turn_stirred(&mut self) {
        while let Some(place) = self.stirred.pop() {
            let Some(carrier) = self.carriers.get_mut(place).and_then(Option::as_mut) else { continue };
            let load = carrier.load;
            let recorder = &mut self.loads[load].recorder;
            let moved =
                |carrier: &Http2| (carrier.socket.borrow().bytes_in, carrier.socket.borrow().bytes_out);
            let before = moved(carrier);
            let outcome = carrier.turn(&self.plan.scenario.slo, recorder);
            let (after, now) = (moved(carrier), now_ns());
            if recorder.window.holds(now) {
                recorder.counts.bytes_in += after.0 - before.0;
                recorder.counts.bytes_out += after.1 - before.1;
                recorder.counts.left += outcome.left as u64;
            }
            if outcome.is_over {
                self.close_lanes(place);
            } else {
                (0..outcome.freed).for_each(|_| self.on_idle(load, place, now));
            }
        }
    }

    /// Closes a connection whose exchanges are settled, and sends what waited for its lanes.
    fn close_lanes(&mut self, place: usize) {
        let Some(carrier) = self.carriers[place].take() else { return };
        let (load, lanes) = (carrier.load, carrier.lanes);
        let state = &mut self.loads[load];
        state.open -= lanes;
        state.idle.retain(|idle| *idle != place);
        self.free.push(place);
        drop(carrier);
        if self.is_stopping {
            return;
        }
        if self.loads[load].refills {
            // As with HTTP/1.1: the next clients come with the next sweep.
            self.loads[load].waiting.extend(std::iter::repeat_n((now_ns(), 0), lanes));
            return;
        }
        for _ in 0..lanes {
            let Some((planned, number)) = self.loads[load].waiting.pop_front() else { break };
            self.dispatch(load, planned, number);
        }
    }

    pub(super) fn fail_late_lanes(&mut self, is_late: impl Fn(&Exchange) -> bool, failure: &Failure) {
        for place in 0..self.carriers.len() {
            let Some(carrier) = self.carriers[place].as_mut() else { continue };
            let load = carrier.load;
            let failed = carrier.fail_late(&is_late, failure, &mut self.loads[load].recorder);
            if failed > 0 {
                self.stirred.push(place);
                (0..failed).for_each(|_| self.on_idle(load, place, now_ns()));
            }
        }
    }

    /// A sweep has come: slow readers take their next bytes.
    pub(super) fn give_room(&mut self) {
        for (place, carrier) in self.carriers.iter_mut().enumerate() {
            if carrier.as_mut().is_some_and(|carrier| carrier.give_room()) {
                self.stirred.push(place);
            }
        }
    }

    /// The window is over: held streams are left, with their connections.
    pub(super) fn leave_held_lanes(&mut self) {
        for place in 0..self.carriers.len() {
            let Some(carrier) = self.carriers[place].as_mut() else { continue };
            let state = &mut self.loads[carrier.load];
            if !matches!(state.load.rate, Rate::Hold { .. }) {
                continue;
            }
            for exchange in carrier.take_all() {
                state.recorder.counts.left += u64::from(exchange.has_answer());
                exchange.on_leave(&mut state.recorder);
            }
            self.close_lanes(place);
        }
    }

    pub(super) fn finish_lanes(&mut self) {
        for carrier in self.carriers.iter_mut().flatten() {
            let recorder: &mut Recorder = &mut self.loads[carrier.load].recorder;
            for exchange in carrier.take_all() {
                recorder.counts.unfinished += 1;
                exchange.on_leave(recorder);
            }
        }
    }
}

/// The load's requests as HTTP/2 has them, without their bodies.
pub(super) fn requests(
    templates: &[crate::scenario::shape::Template],
    target: &crate::run::target::Target,
) -> Result<Vec<http::Request<()>>, String> {
    templates.iter().map(|template| template.http2(&target.host, target.is_tls())).collect()
}

impl LoadState {
    /// Lanes that a new connection could still have.
    pub(super) fn has_room(&self) -> bool {
        self.open < self.open_max
    }
}
