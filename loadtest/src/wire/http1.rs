//! HTTP/1.1 heads, both directions: response heads for the generator, request heads for the mock.
//!
//! Input: bytes as they come. Output: `Item`s: a head, pieces of the body, the end.
//! Limits: a head of `HEAD_BYTES_MAX` bytes and `FIELDS_MAX` fields. Interim (1xx) responses are passed over.
//! Errors are of the peer; one line each, as they are shown to the user.
//! Source: RFC 9112.

use crate::wire::body::{BodyReader, Piece};

pub const HEAD_BYTES_MAX: usize = 64 * 1024;
pub const FIELDS_MAX: usize = 128;

/// What the generator wants to know of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    pub content: Content,
    pub gzip: bool,
    pub close: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    Json,
    EventStream,
    Html,
    #[default]
    Other,
}

impl Content {
    pub fn of(value: &[u8]) -> Self {
        let is = |name: &[u8]| value.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        match () {
            () if is(b"application/json") => Self::Json,
            () if is(b"text/event-stream") => Self::EventStream,
            () if is(b"text/html") => Self::Html,
            () => Self::Other,
        }
    }
}

/// What the mock wants to know of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    pub path: String,
    pub key: String,
    /// Value of the header `x-mock`.
    pub script: String,
    pub accepts_gzip: bool,
    pub expects_continue: bool,
    pub close: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a, H> {
    Head(H),
    Data(&'a [u8]),
    End,
}

/// One kind of head: how it is parsed and what framing follows it.
pub trait Head: Sized {
    /// `Ok(None)`: a head to be passed over (1xx).
    fn parse(bytes: &[u8]) -> Result<Option<(Self, BodyReader)>, String>;
}

/// Reads one message after another from a connection.
pub struct Reader<H> {
    carry: Vec<u8>,
    body: Option<BodyReader>,
    kind: std::marker::PhantomData<H>,
}

impl<H> Default for Reader<H> {
    fn default() -> Self {
        Self { carry: Vec::new(), body: None, kind: std::marker::PhantomData }
    }
}

impl<H: Head> Reader<H> {
    /// Takes the next item off the front of `bytes`; `None` when more bytes are needed. After `End` the next
    /// head.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a, H>>, String> {
        let Some(body) = &mut self.body else { return self.next_head(bytes) };
        match body.next(bytes)? {
            Some(Piece::Data(data)) => Ok(Some(Item::Data(data))),
            Some(Piece::End) => {
                self.body = None;
                Ok(Some(Item::End))
            }
            None => Ok(None),
        }
    }

    /// The connection ended: `Ok` when that ends the message in progress properly.
    pub fn close(&mut self) -> Result<(), &'static str> {
        match &self.body {
            None if self.carry.is_empty() => Err("the connection was closed without an answer"),
            None => Err("the connection was closed within a head"),
            Some(body) if body.ends_at_close() => Ok(()),
            Some(_) => Err("the connection was closed within a body"),
        }
    }

    fn next_head<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a, H>>, String> {
        while !bytes.is_empty() {
            let overlap = self.carry.len().saturating_sub(3);
            let known = self.carry.len();
            let parsed = if known == 0 {
                match memchr::memmem::find(bytes, b"\r\n\r\n") {
                    Some(end) => {
                        let (head, rest) = bytes.split_at(end + 4);
                        *bytes = rest;
                        H::parse(head)?
                    }
                    None => return self.keep(bytes),
                }
            } else {
                let room = (HEAD_BYTES_MAX + 4).saturating_sub(known).min(bytes.len());
                self.carry.extend_from_slice(&bytes[..room]);
                match memchr::memmem::find(&self.carry[overlap..], b"\r\n\r\n") {
                    Some(end) => {
                        let end = overlap + end + 4;
                        *bytes = &bytes[end - known..];
                        let parsed = H::parse(&self.carry[..end])?;
                        self.carry = Vec::new();
                        parsed
                    }
                    None => {
                        *bytes = &bytes[room..];
                        return self.check_length();
                    }
                }
            };
            if let Some((head, body)) = parsed {
                self.body = Some(body);
                return Ok(Some(Item::Head(head)));
            }
        }
        Ok(None)
    }

    fn keep<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Item<'a, H>>, String> {
        self.carry.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX + 1)]);
        *bytes = &[];
        self.check_length()
    }

    fn check_length<'a>(&self) -> Result<Option<Item<'a, H>>, String> {
        if self.carry.len() > HEAD_BYTES_MAX {
            return Err(format!("a head of more than {HEAD_BYTES_MAX} bytes"));
        }
        Ok(None)
    }
}

impl Head for ResponseHead {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, BodyReader)>, String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err("a head that ends early".to_owned()),
            Err(error) => return Err(format!("not an HTTP/1.1 response: {error}; starts {}", quote(bytes))),
        }
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            return Ok(None);
        }
        let mut head = Self { status, close: response.version == Some(0), ..Self::default() };
        let mut framing = Framing::default();
        for field in response.headers.iter() {
            framing.read(field)?;
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-type") {
                head.content = Content::of(field.value);
            } else if is("content-encoding") {
                head.gzip = field.value.eq_ignore_ascii_case(b"gzip");
            } else if is("connection") {
                head.close = contains_token(field.value, b"close");
            }
        }
        let body = match framing {
            _ if status == 204 || status == 304 => BodyReader::Done,
            Framing { chunked: true, .. } => BodyReader::chunked(),
            Framing { length: Some(length), .. } => BodyReader::length(length),
            _ => BodyReader::UntilClose,
        };
        head.close |= body == BodyReader::UntilClose;
        Ok(Some((head, body)))
    }
}

impl Head for RequestHead {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, BodyReader)>, String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err("a head that ends early".to_owned()),
            Err(error) => return Err(format!("not an HTTP/1.1 request: {error}; starts {}", quote(bytes))),
        }
        let mut head = Self {
            method: request.method.unwrap_or("").to_owned(),
            path: request.path.unwrap_or("").to_owned(),
            close: request.version == Some(0),
            ..Self::default()
        };
        let mut framing = Framing::default();
        for field in request.headers.iter() {
            framing.read(field)?;
            head.read(field.name, field.value);
        }
        let body = match framing {
            Framing { chunked: true, .. } => BodyReader::chunked(),
            Framing { length, .. } => BodyReader::length(length.unwrap_or(0)),
        };
        Ok(Some((head, body)))
    }
}

impl RequestHead {
    /// Takes one field, of HTTP/1.1 or HTTP/2.
    pub fn read(&mut self, name: &str, value: &[u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let text = || String::from_utf8_lossy(value).into_owned();
        if is("authorization") {
            let text = text();
            self.key = text.strip_prefix("Bearer ").unwrap_or(&text).to_owned();
        } else if is("x-api-key") || is("x-goog-api-key") || is("api-key") {
            self.key = text();
        } else if is("x-mock") {
            self.script = text();
        } else if is("accept-encoding") {
            self.accepts_gzip = contains_token(value, b"gzip");
        } else if is("expect") {
            self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        } else if is("connection") {
            self.close = contains_token(value, b"close");
        }
    }
}

#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn read(&mut self, field: &httparse::Header<'_>) -> Result<(), String> {
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value).ok().and_then(|value| value.parse().ok());
            match (length, self.length) {
                (None, _) => return Err(format!("content-length {}: not a number", quote(field.value))),
                (Some(new), Some(old)) if new != old => {
                    return Err("two different content-lengths".to_owned());
                }
                _ => self.length = length,
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(format!("transfer-encoding {}: only chunked is read", quote(field.value)));
            }
            self.chunked = true;
        }
        if self.chunked && self.length.is_some() {
            return Err("transfer-encoding beside content-length".to_owned());
        }
        Ok(())
    }
}

/// Is `token` an element of a comma-separated list, whatever its parameters and case?
fn contains_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|element| {
        let name = element.split(|&byte| byte == b';').next().unwrap_or(element);
        name.trim_ascii().eq_ignore_ascii_case(token)
    })
}

/// The start of what a peer sent, cleaned and cut for a message.
pub fn quote(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 60;
    let cut = &bytes[..bytes.len().min(SHOWN_MAX)];
    let more = if bytes.len() > SHOWN_MAX { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(cut))
}

#[cfg(test)]
mod tests {
    use super::{Content, HEAD_BYTES_MAX, Item, Reader, RequestHead, ResponseHead};

    type Seen = Vec<(u16, Content, Vec<u8>)>;

    fn read(text: &[u8], size: usize) -> Result<Seen, String> {
        let mut reader = Reader::<ResponseHead>::default();
        let mut seen: Seen = Vec::new();
        for mut chunk in text.chunks(size) {
            while let Some(item) = reader.next(&mut chunk)? {
                match item {
                    Item::Head(head) => seen.push((head.status, head.content, Vec::new())),
                    Item::Data(data) => seen.last_mut().expect("a head came").2.extend_from_slice(data),
                    Item::End => {}
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn any_chunking_gives_the_same_messages() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}\
            HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\nrest";
        let whole = read(text, text.len()).expect("valid");
        assert_eq!(whole[0], (200, Content::Json, b"{}".to_vec()));
        assert_eq!(whole[1], (200, Content::EventStream, b"abc".to_vec()));
        assert_eq!(whole[3], (500, Content::Html, b"rest".to_vec()));
        for size in 1..text.len() {
            assert_eq!(read(text, size).as_ref(), Ok(&whole), "by {size}");
        }
    }

    #[test]
    fn a_head_over_the_bound_is_refused_and_one_at_the_bound_is_read() {
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: ";
        for (padding, is_read) in [(HEAD_BYTES_MAX - start.len() - 4, true), (HEAD_BYTES_MAX, false)] {
            let mut text = start.to_vec();
            text.extend(std::iter::repeat_n(b'y', padding));
            text.extend_from_slice(b"\r\n\r\n");
            assert_eq!(read(&text, 1000).is_ok(), is_read, "{padding}");
        }
    }

    #[test]
    fn conflicting_framing_is_refused() {
        for fields in
            ["content-length: 1\r\ncontent-length: 2", "content-length: 1\r\ntransfer-encoding: chunked"]
        {
            assert!(read(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes(), 9).is_err(), "{fields}");
        }
    }

    #[test]
    fn a_request_gives_key_script_and_body() {
        let mut text: &[u8] = b"POST /v1/x?a=b HTTP/1.1\r\nhost: h\r\nAuthorization: Bearer k1\r\n\
            X-Mock: gap_ms=3\r\nAccept-Encoding: br, gzip;q=1\r\ncontent-length: 2\r\n\r\nhi";
        let mut reader = Reader::<RequestHead>::default();
        let Ok(Some(Item::Head(head))) = reader.next(&mut text) else { panic!("a head") };
        assert_eq!(
            (head.path.as_str(), head.key.as_str(), head.script.as_str()),
            ("/v1/x?a=b", "k1", "gap_ms=3")
        );
        assert!(head.accepts_gzip && !head.close);
        assert_eq!(reader.next(&mut text), Ok(Some(Item::Data(b"hi".as_slice()))));
        assert_eq!(reader.next(&mut text), Ok(Some(Item::End)));
    }
}
