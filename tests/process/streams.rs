//! A provider whose streams are known byte by byte, and callers that compare all of them.
//!
//! The caller says in a field what is to come (`Plan`); the provider writes each event by itself at that
//! pace; the caller takes the chunks off and compares with what it would have written itself. Both run on one
//! tokio thread, apart from the gateway's own code.

use crate::process::gateway::KEY;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

/// Runs a test on a thread of its own kind, tasks and all.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test)
}

/// One stream: its number, how many events, and the pause before each but the first.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub number: u64,
    pub events: u32,
    pub gap: Duration,
}

impl Plan {
    fn event(&self, at: u32) -> String {
        let number = self.number;
        format!(
            "data: {{\"id\":\"s{number}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{number}/{at}\"}}}}]}}\n\n"
        )
    }

    fn end(&self) -> String {
        let (number, events) = (self.number, self.events);
        format!(
            "data: {{\"id\":\"s{number}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":\
             {events},\"total_tokens\":{}}}}}\n\ndata: [DONE]\n\n",
            events + 7
        )
    }

    /// The whole body.
    pub fn body(&self) -> String {
        (0..self.events).map(|at| self.event(at)).chain([self.end()]).collect()
    }

    fn field(&self) -> String {
        format!("{} {} {}", self.number, self.events, self.gap.as_millis())
    }

    fn from_field(text: &str) -> Option<Plan> {
        let mut numbers = text.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        Some(Plan {
            number: next()?,
            events: u32::try_from(next()?).ok()?,
            gap: Duration::from_millis(next()?),
        })
    }
}

/// A provider on a free port of loopback; it serves as long as the test runs.
pub async fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                // The gateway or its caller went away.
                let _ = serve(stream).await;
            });
        }
    });
    address
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::new();
    loop {
        let head_len = loop {
            if let Some(at) = find(&unread, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&unread[..head_len]).to_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
        let length: usize = field("content-length:").and_then(|value| value.parse().ok()).expect("a length");
        let plan = field("x-plan:").and_then(Plan::from_field).expect("a plan");
        while unread.len() < head_len + length {
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        }
        unread.drain(..head_len + length);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        for at in 0..plan.events {
            if at > 0 {
                tokio::time::sleep(plan.gap).await;
            }
            stream.write_all(chunk(&plan.event(at)).as_bytes()).await?;
        }
        stream.write_all((chunk(&plan.end()) + "0\r\n\r\n").as_bytes()).await?;
    }
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Why a call did not bring the whole stream.
#[derive(Debug)]
pub enum Failure {
    /// No connection, or it ended without one byte.
    Refused,
    /// Another answer than a stream.
    Status(u16, String),
    /// The stream broke off after so many bytes, which are true.
    Cut(usize),
    /// These bytes are not what the provider sent.
    Untrue(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused => f.write_str("no answer"),
            Failure::Status(status, body) => write!(f, "{status} {body}"),
            Failure::Cut(bytes) => write!(f, "cut after {bytes} bytes"),
            Failure::Untrue(body) => write!(f, "not what was sent:\n{body}"),
        }
    }
}

/// Calls in a task, and says how many have had their first event.
#[derive(Clone, Default)]
pub struct Callers {
    begun: Rc<Cell<usize>>,
}

impl Callers {
    pub fn begun(&self) -> usize {
        self.begun.get()
    }

    /// Waits until so many have had their first event.
    pub async fn have_begun(&self, count: usize) {
        for _ in 0..6_000 {
            if self.begun() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} streams have begun", self.begun());
    }

    pub fn spawn(&self, address: SocketAddr, plan: Plan) -> JoinHandle<Result<(), Failure>> {
        let begun = Rc::clone(&self.begun);
        tokio::task::spawn_local(call(address, plan, move || begun.set(begun.get() + 1)))
    }
}

/// Asks for one stream and compares every byte.
pub async fn call(address: SocketAddr, plan: Plan, begun: impl FnOnce()) -> Result<(), Failure> {
    let Ok(mut stream) = TcpStream::connect(address).await else { return Err(Failure::Refused) };
    let body = "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncontent-type: \
         application/json\r\nx-plan: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        plan.field(),
        body.len()
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Err(Failure::Refused);
    }
    let (mut all, mut begun) = (Vec::with_capacity(1024), Some(begun));
    loop {
        if begun.is_some() && find(&all, b"data: ").is_some() {
            begun.take().into_iter().for_each(|begun| begun());
        }
        match stream.read_buf(&mut all).await {
            Ok(0) | Err(_) => return judge(&plan, &all),
            Ok(_) => {}
        }
    }
}

fn judge(plan: &Plan, all: &[u8]) -> Result<(), Failure> {
    let Some(head_len) = find(all, b"\r\n\r\n").map(|at| at + 4) else { return Err(Failure::Refused) };
    let head = String::from_utf8_lossy(&all[..head_len]);
    let status = super::gateway::status(&head);
    if status != 200 {
        return Err(Failure::Status(status, String::from_utf8_lossy(&all[head_len..]).into_owned()));
    }
    assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let (body, is_whole) = without_chunks(&all[head_len..]);
    let expected = plan.body();
    match is_whole {
        true if body == expected.as_bytes() => Ok(()),
        false if expected.as_bytes().starts_with(&body) => Err(Failure::Cut(body.len())),
        _ => Err(Failure::Untrue(String::from_utf8_lossy(&body).into_owned())),
    }
}

/// The data of a chunked body, and whether its last chunk is there with nothing behind it.
fn without_chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut data = Vec::with_capacity(rest.len());
    while let Some(line_end) = find(rest, b"\r\n") {
        let line = String::from_utf8_lossy(&rest[..line_end]);
        let size = usize::from_str_radix(&line, 16).expect("a size of a chunk");
        rest = &rest[line_end + 2..];
        if size == 0 {
            return (data, rest == b"\r\n");
        }
        data.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return (data, false);
        }
        assert_eq!(&rest[size..size + 2], b"\r\n", "behind a chunk");
        rest = &rest[size + 2..];
    }
    (data, false)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

#[test]
fn callers_see_what_is_cut_and_what_is_untrue() {
    let plan = Plan { number: 3, events: 2, gap: Duration::ZERO };
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let told = |body: &str| judge(&plan, format!("{head}{body}").as_bytes());
    let (one, two, end) = (chunk(&plan.event(0)), chunk(&plan.event(1)), chunk(&plan.end()));
    assert!(told(&format!("{one}{two}{end}0\r\n\r\n")).is_ok());
    assert!(matches!(told(&format!("{one}{two}{end}")), Err(Failure::Cut(_))));
    assert!(matches!(told(&format!("{one}{}", &two[..9])), Err(Failure::Cut(_))));
    for wrong in
        [format!("{one}{one}{two}{end}0\r\n\r\n"), format!("{one}{end}0\r\n\r\n"), format!("{two}{one}{end}")]
    {
        assert!(matches!(told(&wrong), Err(Failure::Untrue(_))), "{wrong}");
    }
    assert!(matches!(judge(&plan, b""), Err(Failure::Refused)));
    assert!(matches!(judge(&plan, b"HTTP/1.1 502 x\r\n\r\nbody"), Err(Failure::Status(502, _))));
}
