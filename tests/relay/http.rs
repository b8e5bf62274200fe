//! A plain HTTP/1.1 reader for tests, written apart from the gateway's own: whole messages with how they
//! ended.
//!
//! `Reader::answer` and `Reader::request` give start line, fields, body without its transfer framing,
//! whether the framing says that it is whole, and how the connection stood then. What came before a cut is
//! kept. A reader can be slow (`Pace`) or stop after so many bytes. Absent: trailers (an empty trailer
//! section is expected), strictness: the edge kit tests what the gateway refuses.

use std::time::Duration;
use tollgate::net::conn::Conn;
use tollgate::net::page::Page;
use tollgate::net::runtime;

/// How a reader takes what comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// So many bytes at a time; none: a page.
    pub bytes: Option<usize>,
    /// Waits so long before each of the first `SLOW_READS` reads.
    pub wait: Duration,
    /// Stops after so many bytes in all.
    pub stop_after: Option<u64>,
}

/// How a connection stood when a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    /// The peer has finished sending.
    Finished,
    /// The connection broke.
    Reset,
    /// The reader itself stopped.
    Stopped,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    pub start: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// It ended as its framing says.
    pub whole: bool,
    pub end: End,
}

impl Message {
    /// The status of an answer; 0 where it is none.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The value of a field, where it stands once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(key, _)| key == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice: {:?}", self.fields);
        first
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Reads messages from one connection.
pub struct Reader<'c> {
    conn: &'c Conn,
    pace: Pace,
    unread: Vec<u8>,
    taken: u64,
    reads: u32,
}

/// So that a slow reader of single bytes still ends.
const SLOW_READS: u32 = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilEnd,
}

impl<'c> Reader<'c> {
    /// A reader of `conn`.
    pub fn new(conn: &'c Conn, pace: Pace) -> Reader<'c> {
        Reader { conn, pace, unread: Vec::new(), taken: 0, reads: 0 }
    }

    /// The next answer, to a HEAD request or another one; interim ones are skipped. None: not one byte came.
    pub async fn answer(&mut self, to_head: bool) -> Option<Message> {
        loop {
            let (mut message, came) = self.head().await;
            if !came {
                return None;
            }
            if message.end != End::Open {
                return Some(message);
            }
            let status = message.status();
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let framing = match (framing(&message.fields), status) {
                _ if to_head => Framing::Nothing,
                (_, 101 | 204 | 304) => Framing::Nothing,
                (Some(framing), _) => framing,
                (None, _) => Framing::UntilEnd,
            };
            self.body(&mut message, framing).await;
            return Some(message);
        }
    }

    /// Waits until `text` has come, and gives all that has; nothing is taken.
    pub async fn hear(&mut self, text: &str) -> &[u8] {
        while find(&self.unread, text.as_bytes()).is_none() {
            assert_eq!(self.more().await, End::Open, "{}", self.unread.escape_ascii());
        }
        &self.unread
    }

    /// The next request. None: not one byte came.
    pub async fn request(&mut self) -> Option<Message> {
        let (mut message, came) = self.head().await;
        if !came {
            return None;
        }
        if message.end == End::Open {
            let framing = framing(&message.fields).unwrap_or(Framing::Nothing);
            self.body(&mut message, framing).await;
        }
        Some(message)
    }

    /// Whether nothing is left unread, and how the connection ends: waits for that.
    pub async fn ending(&mut self) -> End {
        assert_eq!(self.unread.escape_ascii().to_string(), "", "bytes behind the last message");
        let end = self.more().await;
        assert_eq!(self.unread.escape_ascii().to_string(), "", "bytes behind the last message");
        end
    }

    async fn head(&mut self) -> (Message, bool) {
        let mut message = Message {
            start: String::new(),
            fields: Vec::new(),
            body: Vec::new(),
            whole: false,
            end: End::Open,
        };
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            message.end = self.more().await;
            if message.end != End::Open {
                return (message, !self.unread.is_empty());
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let text = String::from_utf8(head).expect("a head is ASCII");
        let mut lines = text.trim_end().split("\r\n");
        message.start = lines.next().unwrap_or_default().to_string();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field: {line}"));
            message.fields.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        (message, true)
    }

    async fn body(&mut self, message: &mut Message, framing: Framing) {
        match framing {
            Framing::Nothing => message.whole = true,
            Framing::Length(length) => message.whole = self.take(message, length).await,
            Framing::Chunked => message.whole = self.chunks(message).await,
            Framing::UntilEnd => {
                while message.end == End::Open {
                    message.body.append(&mut self.unread);
                    message.end = self.more().await;
                }
                message.body.append(&mut self.unread);
                message.whole = message.end == End::Finished;
            }
        }
    }

    async fn chunks(&mut self, message: &mut Message) -> bool {
        loop {
            let Some(line) = self.line(message).await else { return false };
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("a chunk's size: {line}"));
            if size > 0 && !self.take(message, size).await {
                return false;
            }
            let Some(empty) = self.line(message).await else { return false };
            assert_eq!(empty, "", "behind a chunk of {size}");
            if size == 0 {
                return true;
            }
        }
    }

    async fn line(&mut self, message: &mut Message) -> Option<String> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).take(at).collect();
                return Some(String::from_utf8(line).expect("a line is ASCII"));
            }
            message.end = self.more().await;
            if message.end != End::Open {
                return None;
            }
        }
    }

    /// Moves `length` bytes to the body; false where the connection ended before.
    async fn take(&mut self, message: &mut Message, length: usize) -> bool {
        let mut left = length;
        loop {
            let taken = left.min(self.unread.len());
            message.body.extend(self.unread.drain(..taken));
            left -= taken;
            if left == 0 {
                return true;
            }
            message.end = self.more().await;
            if message.end != End::Open {
                return false;
            }
        }
    }

    async fn more(&mut self) -> End {
        self.reads += 1;
        if !self.pace.wait.is_zero() && self.reads <= SLOW_READS {
            runtime::sleep(self.pace.wait).await;
        }
        if self.pace.stop_after.is_some_and(|most| self.taken >= most) {
            return End::Stopped;
        }
        let mut page = self.pace.bytes.map_or_else(Page::rent, Page::with_room);
        match self.conn.recv(&mut page).await {
            Ok(0) => End::Finished,
            Ok(n) => {
                self.taken += n as u64;
                self.unread.extend_from_slice(page.bytes());
                End::Open
            }
            Err(_) => End::Reset,
        }
    }
}

fn framing(fields: &[(String, String)]) -> Option<Framing> {
    let has = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match (has("transfer-encoding"), has("content-length")) {
        (Some(coding), None) => {
            assert_eq!(coding, "chunked");
            Some(Framing::Chunked)
        }
        (None, Some(length)) => Some(Framing::Length(length.parse().expect("a length"))),
        (None, None) => None,
        (Some(_), Some(_)) => panic!("both framings: {fields:?}"),
    }
}

/// Where `needle` stands first.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
