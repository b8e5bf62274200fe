//! Ways in which a provider misbehaves.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error answer; 429, 503 and 529 carry Retry-After.
    Status(u16),
    /// Reset instead of an answer.
    ResetBeforeHead,
    /// Reset behind the head, before the body.
    ResetAfterHead,
    /// Reset in the middle of an event (stream) or of the body.
    ResetMidEvent,
    /// Orderly close in the middle of the body.
    CutMidEvent,
    /// Bytes that are not HTTP.
    Garbage,
    /// A head that never ends: one field after another.
    EndlessHead,
    /// Content-Length larger than the body, then a close.
    LengthTooLong,
    /// Content-Length smaller than the body.
    LengthTooShort,
    /// One byte a second.
    Trickle,
    /// Nothing at all, for ever.
    Silent,
}

const NAMES: [(&str, Fault); 10] = [
    ("reset-before-head", Fault::ResetBeforeHead),
    ("reset-after-head", Fault::ResetAfterHead),
    ("reset-mid-event", Fault::ResetMidEvent),
    ("cut-mid-event", Fault::CutMidEvent),
    ("garbage", Fault::Garbage),
    ("endless-head", Fault::EndlessHead),
    ("length-too-long", Fault::LengthTooLong),
    ("length-too-short", Fault::LengthTooShort),
    ("trickle", Fault::Trickle),
    ("silent", Fault::Silent),
];

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, fault)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*fault);
        }
        if let Some(Ok(status @ 400..=599)) = text.strip_prefix("status-").map(str::parse::<u16>) {
            return Ok(Self::Status(status));
        }
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        Err(format!("fault {text:?}: need status-400 … status-599 or one of {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::Fault;

    #[test]
    fn names_are_read_and_others_are_told_what_is_allowed() {
        assert_eq!("status-529".parse(), Ok(Fault::Status(529)));
        assert_eq!("trickle".parse(), Ok(Fault::Trickle));
        for wrong in ["status-200", "status-600", "resett", ""] {
            let error = wrong.parse::<Fault>().expect_err("must be refused");
            assert!(error.contains("reset-before-head"), "{error}");
        }
    }
}
