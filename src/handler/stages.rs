//! Runs the event stages of one answer, in order, on whole events.
use crate::base::clock::Instant;
pub enum Staged {
    Pass,
    Replaced,
    Ended,
}
pub struct StageRunner {}
impl StageRunner {
    pub fn event(&mut self, _raw: &[u8], _out: &mut Vec<u8>) -> Staged {
        Staged::Pass
    }
    pub fn end(&mut self, _rest: &[u8], _out: &mut Vec<u8>) {}
    pub fn release_all(&mut self, _out: &mut Vec<u8>) {}
    pub fn hold_until(&self) -> Instant {
        Instant::NEVER
    }
}
