//! The meter: a tap that sees the provider's bytes before every stage and tells what the answer used.
//!
//! Input: whole events ([`Meter::event`]), or an event or body piece by piece ([`Meter::piece`]),
//! uncompressed. Output: what each event is, and in the end a [`Usage`]: the provider's numbers, or an
//! estimate that is marked as one.
//! The cuts make no difference: events and pieces go through one machine, [`Skeleton`], which keeps the few
//! members that count and forgets the rest, so nothing is collected, however long an event or a body is.
//!
//! Most events differ in a few places only: the text, an id, a padding, a running number. The shape of one that
//! was read is remembered (`usage/memo`), and others of that shape are not read again.
//!
//! Limits: those of [`Skeleton`]. A usage object beyond them
//! counts as missing.
//! Errors: none. Absent: decompression (`usage/inflate`), money, what a class means for the client.

use crate::llm::dialect::{Caching, Class, Dialect, HoleKind, Skeleton, Usage};
use crate::usage::Provenance;
use crate::usage::memo::{self, Filling, Gap};
use std::ops::Range;

/// Bytes of text that are taken for one token in an estimate.
const BYTES_PER_TOKEN: u64 = 4;

/// Whether the answer is a stream of events or one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Stream,
    Whole,
}

/// What the event that just ended is, to those who relay it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing of the following, or the event goes on.
    Plain,
    /// Carries text.
    Content,
    /// Carries usage and no choice: not for a client that did not ask for it.
    UsageOnly,
    /// Gives the reason for the end; it may carry the last text, too.
    Finish,
    /// The answer has failed.
    Error,
    /// The last event of a complete answer.
    End,
}

/// What is known of the request, for estimates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Length of the request's body, or better of the texts in it.
    pub request_bytes: u64,
    /// Most tokens that the request allows; `Peek::output_max`.
    pub output_max: Option<u64>,
}

/// See the module's text. One for an answer.
#[derive(Debug)]
pub struct Meter {
    dialect: Dialect,
    shape: Shape,
    /// Reads what is not recognised. A stream of remembered shapes has none.
    skeleton: Option<Box<Skeleton>>,
    /// A body has said what was written: its texts are not counted, and nothing else of it matters.
    told: bool,
    lines: Lines,
    usage: Usage,
    content_events: u64,
    text_bytes: u64,
    /// The provider has said that the answer is complete.
    complete: bool,
    failed: bool,
    /// The number of tokens written came with the end, so it is no interim one.
    output_is_final: bool,
}

impl Meter {
    pub fn new(dialect: Dialect, shape: Shape) -> Meter {
        Meter {
            dialect,
            shape,
            skeleton: None,
            told: false,
            lines: Lines::default(),
            usage: Usage::default(),
            content_events: 0,
            text_bytes: 0,
            complete: false,
            failed: false,
            output_is_final: false,
        }
    }

    /// Reads one whole server-sent event, blank line included, or what is left of one that began in pieces.
    pub fn event(&mut self, raw: &[u8]) -> Seen {
        debug_assert_eq!(self.shape, Shape::Stream, "a body has no events");
        if !self.lines.is_idle() {
            self.piece(raw);
            return self.end();
        }
        if let Some(text_bytes) = memo::recognise(self.dialect, raw) {
            return self.content(text_bytes);
        }
        let skeleton = skeleton(&mut self.skeleton, self.dialect, self.shape);
        let data = self.lines.feed(raw, |data| skeleton.feed(data));
        self.conclude(data.map(|data| (raw, data)))
    }

    /// Reads a piece of an event, or of a body.
    pub fn piece(&mut self, bytes: &[u8]) {
        let is_first = self.skeleton.as_ref().is_none_or(|skeleton| skeleton.is_fresh());
        // What follows a whole document says nothing.
        if self.shape == Shape::Whole && (self.told || is_first && self.read_whole(bytes)) {
            return;
        }
        let skeleton = skeleton(&mut self.skeleton, self.dialect, self.shape);
        match self.shape {
            Shape::Stream => drop(self.lines.feed(bytes, |data| skeleton.feed(data))),
            Shape::Whole => skeleton.feed(bytes),
        }
    }

    /// Says that the event, or the body, whose pieces were read has come to its end: what was it?
    pub fn end(&mut self) -> Seen {
        self.conclude(None)
    }

    /// Bytes of the answer that could not be read: taken for text, as a limit is better kept than passed.
    pub fn unread(&mut self, bytes: usize) {
        self.text_bytes += bytes as u64;
    }

    /// Events that carried text so far.
    pub fn content_events(&self) -> u64 {
        self.content_events
    }

    /// Bytes of text so far, as they stand in JSON strings; not of a body that says what was written.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes + self.skeleton.as_ref().map_or(0, |skeleton| skeleton.text_bytes())
    }

    /// What the provider has said so far.
    pub fn reported(&self) -> &Usage {
        &self.usage
    }

    /// Whether the provider has said that the answer is complete, and not that it failed.
    pub fn is_complete(&self) -> bool {
        self.complete && !self.failed
    }

    /// What the answer used, however it ended.
    ///
    /// Where the provider gave no number, or gave one before the answer broke off, it is estimated: input
    /// from the request's length, output from the text that came, at most `output_max`. Of an answer that
    /// failed before its first text only what the provider reported is known.
    pub fn finish(&self, known: Known) -> Usage {
        let mut usage = self.usage;
        if usage.caching == Caching::Inside {
            // Tokens of sound that stand beside the others go in: who keeps only the sums has them right.
            usage.input = usage.input_total();
        }
        let text_bytes = self.text_bytes();
        if self.failed && text_bytes == 0 {
            return usage;
        }
        if usage.input_total().is_none() {
            usage.input = Some(known.request_bytes.div_ceil(BYTES_PER_TOKEN));
            usage.provenance = Provenance::Estimated;
        }
        if self.output_is_final || self.dialect == Dialect::OpenAiEmbeddings {
            return usage;
        }
        // An event of text has a token at least.
        let estimate = text_bytes.div_ceil(BYTES_PER_TOKEN).max(self.content_events);
        let estimate = known.output_max.map_or(estimate, |max| estimate.min(max));
        usage.output = Some(usage.output.unwrap_or(0).max(estimate));
        usage.provenance = Provenance::Estimated;
        usage
    }

    /// Reads a body that came in one piece, as most do, for its usage alone; false where it does not say what
    /// was written.
    fn read_whole(&mut self, bytes: &[u8]) -> bool {
        let mut said = Usage::default();
        if bytes.last() == Some(&b'}') {
            self.dialect.usage(bytes, &mut said);
        }
        self.told = said.output.is_some() && !said.flawed;
        if self.told {
            self.usage.update(&said);
            self.output_is_final = true;
        }
        self.told
    }

    /// What was read has come to its end. `whole` is the event and where its data stands, if it came whole.
    fn conclude(&mut self, whole: Option<(&[u8], Range<usize>)>) -> Seen {
        let skeleton = self.skeleton.as_ref();
        let mut text_bytes = skeleton.map_or(0, |skeleton| skeleton.text_bytes());
        let mut said = Usage::default();
        let read = |document| self.dialect.read_skeleton(document, &mut said);
        let mut class = skeleton.and_then(|skeleton| skeleton.document()).map_or(Class::Other, read);
        self.told |= self.shape == Shape::Whole && said.output.is_some() && !said.flawed;
        if std::mem::take(&mut self.told) {
            (class, text_bytes) = (Class::Finish, 0);
        }
        self.usage.update(&said);
        if let (Some((raw, data)), Class::Other, true) = (whole, class, said.is_unknown() && !said.flawed) {
            self.remember(raw, data);
        }
        self.lines = Lines::default();
        if let Some(skeleton) = &mut self.skeleton {
            skeleton.clear();
        }
        let content = self.content(text_bytes);
        let seen = match class {
            Class::Other | Class::Ping | Class::Content => content,
            Class::Finish => Seen::Finish,
            Class::Usage => Seen::UsageOnly,
            Class::End => Seen::End,
            Class::Error => Seen::Error,
        };
        self.complete |= matches!(seen, Seen::Finish | Seen::End);
        self.failed |= seen == Seen::Error;
        let is_end = self.complete || self.failed || seen == Seen::UsageOnly || self.shape == Shape::Whole;
        self.output_is_final |= is_end && said.output.is_some();
        seen
    }

    fn content(&mut self, text_bytes: u64) -> Seen {
        if text_bytes == 0 {
            return Seen::Plain;
        }
        self.text_bytes += text_bytes;
        self.content_events += 1;
        Seen::Content
    }

    /// Remembers the event that the skeleton has just read. It says nothing but text.
    fn remember(&self, raw: &[u8], data: Range<usize>) {
        let Some(skeleton) = &self.skeleton else { return };
        let (Some(holes), Some(end)) = (skeleton.holes(), skeleton.end()) else { return };
        if holes.iter().all(|hole| hole.kind != HoleKind::Text) {
            return;
        }
        // Anthropic pads events with spaces before the last bracket.
        let last = data.start + end;
        let spaces = raw[..last].iter().rev().take_while(|&&byte| byte == b' ').count();
        let holes = holes.iter().map(|hole| {
            let range = data.start + hole.start as usize..data.start + hole.end as usize;
            Gap { range, filling: Filling::from(hole.kind) }
        });
        let padding = Gap { range: last - spaces..last, filling: Filling::Spaces };
        memo::remember(self.dialect, raw, holes.chain([padding]));
    }
}

/// The skeleton in its place, made where there is none yet.
fn skeleton(place: &mut Option<Box<Skeleton>>, dialect: Dialect, shape: Shape) -> &mut Skeleton {
    place.get_or_insert_with(|| {
        let kept = dialect.kept();
        let texts = match shape {
            Shape::Stream => kept.texts_in_event,
            Shape::Whole => kept.texts_in_whole,
        };
        Box::new(Skeleton::new(kept, texts))
    })
}

/// The lines of one event, in pieces of any size: finds what stands in its `data` fields.
///
/// A second reader of server-sent events beside `codec::sse`, which wants an event in one piece; a property
/// test holds both together.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    state: Line,
    /// The field's name, or its beginning; a byte-order mark may stand before the first.
    name: [u8; 8],
    name_len: u8,
    /// Whether a line has ended.
    later: bool,
    has_data: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// Nothing of the event read.
    #[default]
    Idle,
    Name,
    /// Behind the colon; one space there is no part of the value.
    Colon {
        data: bool,
    },
    Value {
        data: bool,
    },
}

impl Lines {
    fn is_idle(&self) -> bool {
        self.state == Line::Idle
    }

    /// Hands the data in `bytes` to `sink`. Returns where it stands, if all of it stands on one line in this
    /// piece.
    fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Option<Range<usize>> {
        let mut only = None;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let is_line_end = matches!(byte, b'\n' | b'\r');
            match self.state {
                Line::Idle | Line::Name if is_line_end => {
                    // A name without a colon is a field with an empty value.
                    if self.is_data() {
                        self.next_line(&mut sink);
                        only = None;
                    }
                    self.end_line();
                }
                Line::Idle | Line::Name if byte == b':' => {
                    let data = self.is_data();
                    self.state = Line::Colon { data };
                }
                Line::Idle | Line::Name => {
                    self.state = Line::Name;
                    if let Some(place) = self.name.get_mut(usize::from(self.name_len)) {
                        *place = byte;
                        self.name_len += 1;
                    }
                }
                Line::Colon { data } => {
                    self.state = Line::Value { data };
                    let is_first = !self.has_data;
                    if data {
                        self.next_line(&mut sink);
                    }
                    at += usize::from(byte == b' ');
                    let end = line_end(bytes, at);
                    if data {
                        sink(&bytes[at..end]);
                        only = is_first.then_some(at..end);
                    }
                    at = end;
                    continue;
                }
                Line::Value { .. } if is_line_end => self.end_line(),
                Line::Value { data } => {
                    let end = line_end(bytes, at);
                    if data {
                        sink(&bytes[at..end]);
                    }
                    at = end;
                    continue;
                }
            }
            at += 1;
        }
        only
    }

    fn is_data(&self) -> bool {
        let name = &self.name[..usize::from(self.name_len)];
        let mark = if self.later { None } else { name.strip_prefix(b"\xef\xbb\xbf") };
        mark.unwrap_or(name) == b"data"
    }

    /// A line of data begins: a line feed stands between two.
    fn next_line(&mut self, sink: &mut impl FnMut(&[u8])) {
        if self.has_data {
            sink(b"\n");
        }
        self.has_data = true;
    }

    /// The lone line feed of a CRLF reads as an empty line, which says nothing.
    fn end_line(&mut self) {
        self.state = Line::Name;
        self.name_len = 0;
        self.later = true;
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    memchr::memchr2(b'\n', b'\r', &bytes[at..]).map_or(bytes.len(), |end| at + end)
}

#[cfg(test)]
mod tests;
