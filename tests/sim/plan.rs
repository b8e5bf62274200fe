//! What a client of the simulation asks and what is true of the answer: all of it follows from one number.

use std::fmt;

/// How the answer's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// How an upstream misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Answers with an error.
    Status(u16),
    /// Closes or resets without an answer.
    Silent,
    /// Closes after so many bytes of the body; with UntilClose by a reset.
    Cut(usize),
    /// Falls silent for ever after so many bytes.
    Stall(usize),
}

/// What is asked and what is true of the answer.
#[derive(Clone)]
pub struct Plan {
    pub number: u64,
    pub is_stream: bool,
    /// The client asked for usage in the stream.
    pub usage_asked: bool,
    pub is_passthrough: bool,
    pub framing: Framing,
    pub fault: Fault,
    /// The second target misbehaves, too.
    pub at_both: bool,
    /// What an upstream sends, and what of it the client is shown.
    pub sent: Vec<u8>,
    pub shown: Vec<u8>,
    /// Tokens of the answer, as the provider says.
    pub output_tokens: u64,
    /// Bytes of padding in the request.
    pub padding: usize,
    /// What the request says of its output.
    pub max_tokens: Option<u64>,
    /// It wishes to be told of its usage.
    pub wishes: bool,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { number, is_stream, usage_asked, is_passthrough, framing, fault, at_both, .. } = self;
        write!(
            f,
            "plan {number}: stream {is_stream}, usage asked {usage_asked}, passthrough {is_passthrough}, "
        )?;
        write!(f, "{framing:?}, {fault:?}, at both {at_both}, {} bytes", self.sent.len())
    }
}

impl Plan {
    /// The plan of this number.
    pub fn of(number: u64) -> Plan {
        let mut draw = fastrand::Rng::with_seed(number);
        let (is_stream, usage_asked, is_passthrough) = (draw.u32(..3) > 0, draw.bool(), draw.u32(..6) == 0);
        let hides = is_stream && !usage_asked && !is_passthrough;
        let output_tokens = draw.u64(1..1000);
        let (sent, shown) = match is_stream {
            true => stream_of(&mut draw, hides, output_tokens),
            false => whole_of(&mut draw, output_tokens),
        };
        let framing = *draw
            .choice(&[Framing::Length, Framing::Chunked, Framing::Chunked, Framing::UntilClose])
            .unwrap();
        let at = draw.usize(..=sent.len().saturating_sub(1));
        let fault = match draw.u32(..16) {
            0 => Fault::Status(429),
            1 => Fault::Status(500),
            2 => Fault::Status(400),
            3 => Fault::Silent,
            4 | 5 => Fault::Cut(at),
            6 => Fault::Stall(at),
            _ => Fault::None,
        };
        let padding = if draw.u32(..5) == 0 { draw.usize(..30_000) } else { draw.usize(..300) };
        let at_both = draw.bool();
        let (max_tokens, wishes) = (draw.bool().then(|| draw.u64(1_000..3_000)), draw.u32(..3) == 0);
        Plan {
            number,
            is_stream,
            usage_asked,
            is_passthrough,
            framing,
            fault,
            at_both,
            sent,
            shown,
            output_tokens,
            padding,
            max_tokens,
            wishes,
        }
    }

    /// What the upstream does.
    pub fn fault_at(&self, is_first: bool) -> Fault {
        if is_first || self.at_both { self.fault } else { Fault::None }
    }

    pub fn body(&self) -> String {
        let options = if self.usage_asked { ",\"stream_options\":{\"include_usage\":true}" } else { "" };
        let most = self.max_tokens.map_or_else(String::new, |most| format!(",\"max_tokens\":{most}"));
        let (stream, padding) = (self.is_stream, "p".repeat(self.padding));
        format!("{{\"model\":\"m\",\"stream\":{stream}{options}{most},\"x\":\"{padding}\"}}")
    }

    /// The error that an upstream answers with.
    pub fn error(&self, status: u16) -> String {
        format!("{{\"error\":{{\"message\":\"{status} of {}\"}}}}", self.number)
    }

    /// Whether an answer of status 200 must come and be whole where links lose nothing.
    pub fn succeeds(&self) -> bool {
        match self.fault {
            Fault::None => true,
            Fault::Status(429 | 500) => !self.at_both && !self.is_passthrough,
            _ => false,
        }
    }

    /// How often providers are asked where links lose nothing; none: a silent one may be asked again, in case
    /// that its connection was only stale.
    pub fn asked(&self) -> Option<u64> {
        match self.fault {
            Fault::Silent => None,
            Fault::Status(429 | 500) if !self.is_passthrough => Some(2),
            _ => Some(1),
        }
    }

    /// The status that must come where links lose nothing.
    pub fn status(&self) -> u16 {
        match self.fault {
            _ if self.succeeds() => 200,
            Fault::Status(status) => status,
            Fault::Silent => 502,
            _ => 200,
        }
    }
}

fn whole_of(draw: &mut fastrand::Rng, tokens: u64) -> (Vec<u8>, Vec<u8>) {
    let text = "word ".repeat(draw.usize(..400));
    let body = format!(
        "{{\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":{{\"content\":\"{text}\"}}}}],\
         \"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{tokens},\"total_tokens\":{}}}}}",
        tokens + 5
    );
    (body.clone().into_bytes(), body.into_bytes())
}

fn stream_of(draw: &mut fastrand::Rng, hides: bool, tokens: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut sent, mut shown) = (Vec::new(), Vec::new());
    let end = if draw.u32(..4) == 0 { "\r\n\r\n" } else { "\n\n" };
    let events = draw.usize(..30);
    for _ in 0..events {
        let event = match draw.u32(..12) {
            0 => format!(": a comment{end}"),
            1 => format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}{end}",
                "L".repeat(draw.usize(..6_000))
            ),
            _ => format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}{end}", draw.u64(..)),
        };
        sent.extend_from_slice(event.as_bytes());
        shown.extend_from_slice(event.as_bytes());
    }
    let usage = format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{tokens},\"total_tokens\":9}}}}{end}"
    );
    sent.extend_from_slice(usage.as_bytes());
    if !hides {
        shown.extend_from_slice(usage.as_bytes());
    }
    let done = format!("data: [DONE]{end}");
    sent.extend_from_slice(done.as_bytes());
    shown.extend_from_slice(done.as_bytes());
    (sent, shown)
}
