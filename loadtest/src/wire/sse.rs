//! Server-sent events: cuts a byte stream into events.
//!
//! Input: chunks of any size. Output: each whole event without its blank line, borrowed from the chunk where
//! it lies in one, from a carry otherwise. Lines may end in LF or CRLF.
//! Limits: an event of more than `EVENT_BYTES_MAX` is an error of the target.
//! Absent: the fields of an event; who reads one looks for what it needs.
//! Source: WHATWG HTML, "Server-sent events".

/// Longest event that is put together; far above what any shape here produces.
pub const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Default)]
pub struct Splitter {
    carry: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct EventTooLong;

impl Splitter {
    pub fn feed(&mut self, bytes: &[u8], mut on_event: impl FnMut(&[u8])) -> Result<(), EventTooLong> {
        let mut rest = bytes;
        if !self.carry.is_empty() {
            // The blank line may straddle: three bytes of the old end are looked at again.
            let scanned = self.carry.len().saturating_sub(3);
            let room = self.carry.len();
            self.carry.extend_from_slice(bytes);
            let Some((end, next)) = blank_line(&self.carry, scanned) else {
                return self.check_length();
            };
            on_event(&self.carry[..end]);
            rest = &bytes[next - room..];
            self.carry.clear();
        }
        while let Some((end, next)) = blank_line(rest, 0) {
            if end > 0 {
                on_event(&rest[..end]);
            }
            rest = &rest[next..];
        }
        self.carry.extend_from_slice(rest);
        if self.carry.is_empty() && self.carry.capacity() > 4096 {
            self.carry = Vec::new();
        }
        self.check_length()
    }

    /// Bytes of an unfinished event.
    pub fn pending(&self) -> usize {
        self.carry.len()
    }

    fn check_length(&self) -> Result<(), EventTooLong> {
        if self.carry.len() > EVENT_BYTES_MAX { Err(EventTooLong) } else { Ok(()) }
    }
}

/// Where the event before the first blank line ends, and where the next one starts.
fn blank_line(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    for newline in memchr::memchr_iter(b'\n', bytes.get(from..)?) {
        let newline = from + newline;
        let after = match &bytes[newline + 1..] {
            [b'\n', ..] => newline + 2,
            [b'\r', b'\n', ..] => newline + 3,
            _ if newline == 0 || bytes[..newline] == *b"\r" => newline + 1,
            _ => continue,
        };
        let end = if newline > 0 && bytes[newline - 1] == b'\r' { newline - 1 } else { newline };
        return Some((end, after));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{EVENT_BYTES_MAX, EventTooLong, Splitter};

    fn split(text: &[u8], size: usize) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for chunk in text.chunks(size) {
            let keep = |event: &[u8]| events.push(String::from_utf8_lossy(event).into_owned());
            splitter.feed(chunk, keep).expect("short events");
        }
        assert_eq!(splitter.pending(), 0);
        events
    }

    #[test]
    fn any_chunking_gives_the_same_events() {
        let texts: [&[u8]; 2] = [
            b"data: a\n\ndata: b\ndata: c\n\n: note\n\ndata: [DONE]\n\n",
            b"data: a\r\n\r\ndata: b\ndata: c\n\n: note\r\n\r\ndata: [DONE]\r\n\r\n",
        ];
        for text in texts {
            let events = split(text, text.len());
            assert_eq!(events.len(), 4);
            assert_eq!(events[3], "data: [DONE]");
            for size in 1..text.len() {
                assert_eq!(split(text, size), events, "chunks of {size}");
            }
        }
    }

    #[test]
    fn an_endless_event_is_refused_at_its_bound() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.feed(&vec![b'x'; EVENT_BYTES_MAX], |_| {}), Ok(()));
        assert_eq!(splitter.feed(b"x", |_| {}), Err(EventTooLong));
    }
}
