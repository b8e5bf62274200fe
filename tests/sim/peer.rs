//! Scripted peers: one side of a dialogue as a list that reads from top to bottom. Works on every driver.
//!
//! `Script::new().expect("GET / HTTP/1.1\r\n").expect_until("\r\n\r\n").send("HTTP/1.1 204 No
//! Content\r\n\r\n").close()` is played with `play(conn)` or `connect(address)`, or by `serve(listener,
//! scripts)`, one script a connection. What differs from the script panics with the step, what was expected
//! and what came; on every driver the harness fails a test in which a task panicked. Absent: time limits (the
//! harness has one) and HTTP.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tollgate::net::conn::Conn;
use tollgate::net::listener::Listener;
use tollgate::net::page::Page;
use tollgate::net::send::SendList;
use tollgate::net::signal::Signal;
use tollgate::net::stream::{Received, Stream};
use tollgate::net::{runtime, stream};

/// The most that a script takes while it looks for the end of `expect_until`.
const UNTIL_BYTES_MAX: usize = 1 << 20;

/// What one side of a dialogue does, step by step.
#[derive(Default)]
pub struct Script {
    steps: Vec<Step>,
}

enum Step {
    Expect(Vec<u8>),
    ExpectUntil(Vec<u8>),
    ExpectBytes(usize),
    ExpectNothing(Duration),
    ExpectEnd,
    ExpectReset,
    ExpectGone,
    Until(Signal),
    SendUnlessGone(Vec<u8>),
    Check(Check),
    Send(Vec<u8>),
    SendPieces(Vec<u8>, usize),
    Wait(Duration),
    Finish,
    Reset,
    Close,
}

type Check = Box<dyn FnOnce(&[u8])>;

impl Script {
    /// A script that closes the connection at once.
    pub fn new() -> Script {
        Script::default()
    }

    /// The next bytes are these.
    pub fn expect(self, bytes: impl AsRef<[u8]>) -> Script {
        self.then(Step::Expect(bytes.as_ref().to_vec()))
    }

    /// The next bytes reach up to `mark` and include it.
    pub fn expect_until(self, mark: impl AsRef<[u8]>) -> Script {
        self.then(Step::ExpectUntil(mark.as_ref().to_vec()))
    }

    /// So many bytes come.
    pub fn expect_bytes(self, count: usize) -> Script {
        self.then(Step::ExpectBytes(count))
    }

    /// Nothing comes for so long, no end either.
    pub fn expect_nothing(self, time: Duration) -> Script {
        self.then(Step::ExpectNothing(time))
    }

    /// The peer has finished.
    pub fn expect_end(self) -> Script {
        self.then(Step::ExpectEnd)
    }

    /// The peer resets the connection (or sends what it likes and then does).
    pub fn expect_reset(self) -> Script {
        self.then(Step::ExpectReset)
    }

    /// The peer has finished or resets the connection: which of them is a matter of who was faster.
    pub fn expect_gone(self) -> Script {
        self.then(Step::ExpectGone)
    }

    /// Does nothing until `signal` is raised.
    pub fn until(self, signal: &Signal) -> Script {
        self.then(Step::Until(signal.clone()))
    }

    /// Sends these bytes; where the peer has gone already they are lost.
    pub fn send_unless_gone(self, bytes: impl AsRef<[u8]>) -> Script {
        self.then(Step::SendUnlessGone(bytes.as_ref().to_vec()))
    }

    /// Looks at the bytes that the last `expect…` took.
    pub fn check(self, check: impl FnOnce(&[u8]) + 'static) -> Script {
        self.then(Step::Check(Box::new(check)))
    }

    /// Sends these bytes.
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Script {
        self.then(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Sends these bytes in sends of `piece` bytes each.
    pub fn send_pieces(self, bytes: impl AsRef<[u8]>, piece: usize) -> Script {
        self.then(Step::SendPieces(bytes.as_ref().to_vec(), piece.max(1)))
    }

    /// Does nothing for so long; what comes meanwhile stays unread.
    pub fn wait(self, time: Duration) -> Script {
        self.then(Step::Wait(time))
    }

    /// Ends sending; receiving goes on.
    pub fn finish(self) -> Script {
        self.then(Step::Finish)
    }

    /// Resets the connection and ends the script.
    pub fn reset(self) -> Script {
        self.then(Step::Reset)
    }

    /// Closes the connection and ends the script; the end of the list does so too.
    pub fn close(self) -> Script {
        self.then(Step::Close)
    }

    /// Calls `address` and plays. All bytes that came.
    pub async fn connect(self, address: SocketAddr) -> Vec<u8> {
        match stream::connect(address).await {
            Ok(stream) => self.play_stream(stream).await,
            Err(error) => panic!("the script's connection to {address} failed: {error}"),
        }
    }

    /// Plays on a connection without TLS. All bytes that came.
    pub async fn play_stream(self, stream: Stream) -> Vec<u8> {
        self.play(Conn::Plain(stream)).await
    }

    /// Plays. All bytes that came.
    ///
    /// # Panics
    /// Where the peer does something else than expected.
    pub async fn play(self, conn: Conn) -> Vec<u8> {
        let mut player = Player { conn, heard: Vec::new(), read: 0, last: 0 };
        for (number, step) in self.steps.into_iter().enumerate() {
            let name = step.to_string();
            let closes = matches!(step, Step::Reset | Step::Close);
            if let Err(surprise) = player.play(step).await {
                panic!("step {} of the script, {name}: {surprise}", number + 1);
            }
            if closes {
                break;
            }
        }
        player.heard
    }

    fn then(mut self, step: Step) -> Script {
        self.steps.push(step);
        self
    }
}

/// Plays one script a connection, in the order in which they are accepted, side by side; then closes the
/// listener.
pub fn serve(listener: Listener, scripts: Vec<Script>) {
    runtime::spawn(async move {
        for script in scripts {
            match listener.accept().await {
                Ok(accepted) => runtime::spawn(async move {
                    script.play_stream(accepted.stream).await;
                }),
                Err(error) => panic!("the scripts' listener failed: {error}"),
            }
        }
    });
}

struct Player {
    conn: Conn,
    /// Everything that came.
    heard: Vec<u8>,
    /// Bytes of it that steps have taken.
    read: usize,
    /// Where the bytes of the last `expect…` begin.
    last: usize,
}

/// What came instead.
type Surprise = String;

impl Player {
    async fn play(&mut self, step: Step) -> Result<(), Surprise> {
        match step {
            Step::Expect(bytes) => self.expect(&bytes).await?,
            Step::ExpectUntil(mark) => self.expect_until(&mark).await?,
            Step::ExpectBytes(count) => {
                self.have(count).await?;
                self.take(count);
            }
            Step::ExpectNothing(time) => {
                runtime::sleep(time).await;
                match (self.unread().len(), self.conn.try_peek()) {
                    (0, Ok(Received::Nothing)) => {}
                    (unread, peek) => return Err(format!("{unread} bytes are unread, then {peek:?}")),
                }
            }
            Step::ExpectEnd => self.expect_end().await?,
            Step::ExpectReset => self.expect_reset().await?,
            Step::ExpectGone => self.expect_gone().await?,
            Step::Until(signal) => signal.raised().await,
            // That it is gone is the next step's to tell.
            Step::SendUnlessGone(bytes) => drop(self.send(&bytes).await),
            Step::Check(check) => check(self.heard.get(self.last..self.read).unwrap_or_default()),
            Step::Send(bytes) => self.send(&bytes).await?,
            Step::SendPieces(bytes, piece) => {
                for bytes in bytes.chunks(piece) {
                    self.send(bytes).await?;
                }
            }
            Step::Wait(time) => runtime::sleep(time).await,
            Step::Finish => self.conn.shutdown().await,
            Step::Reset => self.conn.reset_on_close(),
            Step::Close => {}
        }
        Ok(())
    }

    async fn expect(&mut self, bytes: &[u8]) -> Result<(), Surprise> {
        while self.unread().len() < bytes.len() && bytes.starts_with(self.unread()) {
            self.hear().await?;
        }
        if !self.unread().starts_with(bytes) {
            return Err(format!("\"{}\" came", self.unread().escape_ascii()));
        }
        self.take(bytes.len());
        Ok(())
    }

    async fn expect_until(&mut self, mark: &[u8]) -> Result<(), Surprise> {
        loop {
            let found = self.unread().windows(mark.len().max(1)).position(|window| window == mark);
            if let Some(at) = found {
                self.take(at + mark.len());
                return Ok(());
            }
            if self.unread().len() > UNTIL_BYTES_MAX {
                return Err(format!("not within {UNTIL_BYTES_MAX} bytes"));
            }
            self.hear().await?;
        }
    }

    async fn expect_end(&mut self) -> Result<(), Surprise> {
        let mut page = Page::rent();
        let unread = self.unread().escape_ascii();
        match self.conn.recv(&mut page).await {
            Ok(0) if self.unread().is_empty() => Ok(()),
            Ok(_) => Err(format!("\"{unread}{}\" came", page.bytes().escape_ascii())),
            Err(error) => Err(format!("{error} after \"{unread}\"")),
        }
    }

    async fn expect_gone(&mut self) -> Result<(), Surprise> {
        let mut page = Page::rent();
        match self.conn.recv(&mut page).await {
            Ok(0) => Ok(()),
            Err(error) if is_reset(error.kind()) => Ok(()),
            Ok(_) => Err(format!("\"{}\" came", page.bytes().escape_ascii())),
            Err(error) => Err(format!("{error} came")),
        }
    }

    async fn expect_reset(&mut self) -> Result<(), Surprise> {
        let mut page = Page::rent();
        loop {
            match self.conn.recv(&mut page).await {
                Ok(0) => return Err("the end came".to_string()),
                Ok(_) => page = Page::rent(),
                Err(error) if is_reset(error.kind()) => return Ok(()),
                Err(error) => return Err(format!("{error} came")),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Surprise> {
        let mut list = SendList::new();
        list.push_copy(bytes);
        self.conn.send(list).await.map_err(|error| format!("sending failed: {error}"))
    }

    /// Waits until so many bytes are unread.
    async fn have(&mut self, count: usize) -> Result<(), Surprise> {
        while self.unread().len() < count {
            self.hear().await?;
        }
        Ok(())
    }

    /// Waits for more bytes.
    async fn hear(&mut self) -> Result<(), Surprise> {
        let mut page = Page::rent();
        let unread = self.unread().escape_ascii().to_string();
        match self.conn.recv(&mut page).await {
            Ok(0) => Err(format!("the end came after \"{unread}\"")),
            Ok(_) => {
                self.heard.extend_from_slice(page.bytes());
                Ok(())
            }
            Err(error) => Err(format!("{error} after \"{unread}\"")),
        }
    }

    fn unread(&self) -> &[u8] {
        self.heard.get(self.read..).unwrap_or_default()
    }

    fn take(&mut self, count: usize) {
        self.last = self.read;
        self.read += count;
    }
}

/// The kernel says BrokenPipe where the peer had finished before it gave up the connection.
fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Expect(bytes) => write!(f, "expect \"{}\"", bytes.escape_ascii()),
            Step::ExpectUntil(mark) => write!(f, "expect until \"{}\"", mark.escape_ascii()),
            Step::ExpectBytes(count) => write!(f, "expect {count} bytes"),
            Step::ExpectNothing(time) => write!(f, "expect nothing for {time:?}"),
            Step::ExpectEnd => write!(f, "expect the end"),
            Step::ExpectReset => write!(f, "expect a reset"),
            Step::ExpectGone => write!(f, "expect the end or a reset"),
            Step::Until(_) => write!(f, "wait for a signal"),
            Step::SendUnlessGone(bytes) => write!(f, "send {} bytes, if it is there", bytes.len()),
            Step::Check(_) => write!(f, "check"),
            Step::Send(bytes) => write!(f, "send {} bytes", bytes.len()),
            Step::SendPieces(bytes, piece) => write!(f, "send {} bytes, {piece} at a time", bytes.len()),
            Step::Wait(time) => write!(f, "wait {time:?}"),
            Step::Finish => write!(f, "finish"),
            Step::Reset => write!(f, "reset"),
            Step::Close => write!(f, "close"),
        }
    }
}
