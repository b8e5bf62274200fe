//! A TLS connection after its handshake, without its socket: ciphertext in, plaintext out, and the other way
//! round.
//!
//! Receiving: `fill` takes ciphertext in, `take` hands plaintext on; records that are not data (alerts,
//! tickets, key updates) are acted on here. Sending: `seal` turns a part of a `SendList` into records. What
//! must be answered (a key update) goes out with the next data, as RFC 8446 section 4.6.3 allows. A client
//! declines one renegotiation by a warning; a server ends the connection at once. Limits: `HANDSHAKE_MAX`
//! bytes of a message after the handshake; `IN_A_ROW_MAX` records or key updates without data between them;
//! `WARNINGS_MAX`. Early data is never offered nor accepted. Errors: once one has occurred the connection
//! stays failed; `goodbye` then gives the alert that names it. Source: RFC 8446 sections 4.6, 5 and 6; RFC
//! 5246 section 7.2.

use crate::net::page::{PAGE_BYTES, Page};
use crate::net::send::SendList;
use crate::net::stream::Received;
use crate::net::tls::error::{Kind, TlsError};
use crate::net::tls::fault::Fault;
use crate::net::tls::input::Input;
use crate::net::tls::record::{ALERT, APPLICATION_DATA, HANDSHAKE, Opener, PLAIN_MAX, Sealer, Version};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use std::io;

/// The longest message after the handshake (a ticket that carries a certificate chain).
pub const HANDSHAKE_MAX: usize = 32 * 1024;

/// Records without data, or key updates, that a peer may send in a row.
pub const IN_A_ROW_MAX: u8 = 32;

/// Plaintext that is sealed before the records are sent.
const BATCH_BYTES: usize = 64 * 1024;

/// What rustls keeps of a connection: it makes new keys and stores tickets.
pub enum Secrets {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// An established connection.
pub struct Session {
    version: Version,
    is_client: bool,
    /// Only TLS 1.3 needs it after the handshake.
    secrets: Option<Secrets>,
    limit: u64,
    opener: Opener,
    sealer: Sealer,
    input: Input,
    /// The start of a handshake message that continues in the next record.
    partial: Vec<u8>,
    in_a_row: u8,
    warnings: u8,
    /// A wish for a renegotiation was declined: the next one ends the connection.
    has_declined: bool,
    unsent: Vec<u8>,
    key_update_due: bool,
    warning_due: Option<u8>,
    receiving: Receiving,
    is_goodbye_said: bool,
}

/// Whether more can come from the peer.
enum Receiving {
    Open,
    /// The peer said that it has sent everything.
    Ended,
    /// The connection is broken. With the alert that tells the peer why.
    Failed(Box<TlsError>, Option<u8>),
}

/// What a handshake yields.
pub struct Established {
    pub version: Version,
    pub secrets: Secrets,
    pub opener: Opener,
    pub sealer: Sealer,
    /// Records that a key may protect.
    pub limit: u64,
    /// Bytes that the peer sent behind its handshake.
    pub unread: Vec<u8>,
    /// Sealed records (a server's tickets) that are to be sent before all others.
    pub unsent: Vec<u8>,
}

impl Session {
    pub fn new(from: Established) -> Session {
        let is_client = matches!(from.secrets, Secrets::Client(_));
        Session {
            version: from.version,
            is_client,
            secrets: (from.version == Version::Tls13).then_some(from.secrets),
            limit: from.limit,
            opener: from.opener,
            sealer: from.sealer,
            input: Input::with_ciphertext(&from.unread),
            partial: Vec::new(),
            in_a_row: 0,
            warnings: 0,
            has_declined: false,
            unsent: from.unsent,
            key_update_due: false,
            warning_due: None,
            receiving: Receiving::Open,
            is_goodbye_said: false,
        }
    }

    /// Whether `take` has something to say without another `fill`.
    pub fn is_ready(&self) -> bool {
        self.input.plain_len() > 0 || !matches!(self.receiving, Receiving::Open) || self.input.is_ready()
    }

    /// Hands on plaintext, as much as there is and fits into `page`: how much.
    pub fn take(&mut self, page: &mut Page) -> usize {
        let mut taken = 0;
        loop {
            taken += self.input.deliver(page);
            if page.room() == 0 || !self.next_plain() {
                return taken;
            }
        }
    }

    /// Opens records until plaintext waits: how much, 0 where there is none.
    pub fn peek(&mut self) -> usize {
        self.next_plain();
        self.input.plain_len()
    }

    /// Takes ciphertext in. To be called when `take` or `peek` gave nothing.
    pub fn fill(&mut self, read: impl FnOnce(&mut Page) -> io::Result<Received>) -> io::Result<Received> {
        if !matches!(self.receiving, Receiving::Open) {
            return Ok(Received::Nothing);
        }
        let received = self.input.fill(read)?;
        if received == Received::End {
            let detail =
                "the peer ended the connection without the closing alert of TLS: the data may be cut short";
            self.receiving = Receiving::Failed(Box::new(TlsError::new(Kind::Truncated, detail)), None);
        }
        Ok(received)
    }

    /// What to say where there is no plaintext: nothing yet, the end, or what went wrong.
    pub fn verdict(&self) -> Result<Received, TlsError> {
        match &self.receiving {
            Receiving::Open => Ok(Received::Nothing),
            Receiving::Ended => Ok(Received::End),
            Receiving::Failed(error, _) => Err(TlsError::clone(error)),
        }
    }

    /// Gives back what is not needed while the connection waits.
    pub fn settle(&mut self) {
        if !matches!(self.receiving, Receiving::Open) {
            self.input.forget_ciphertext();
        }
        self.input.settle();
    }

    /// Seals the next part of `list`, from its byte `from` on: the records, and how many bytes of the list
    /// are in them.
    pub fn seal(&mut self, list: &SendList, from: usize) -> Result<(SendList, usize), TlsError> {
        if self.is_goodbye_said {
            return Err(TlsError::new(
                Kind::Io(io::ErrorKind::BrokenPipe),
                "sending after the closing alert",
            ));
        }
        if let Receiving::Failed(error, _) = &self.receiving {
            return Err(TlsError::clone(error));
        }
        let mut records = SendList::new();
        self.seal_due(&mut records)?;
        let end = list.len().min(from + BATCH_BYTES);
        let mut at = from;
        while at < end {
            if self.sealer.is_spent() {
                self.update_sealer(&mut records)?;
            }
            let left = list.len() - at;
            let overhead = self.sealer.overhead();
            let (mut page, take) = if left <= PAGE_BYTES - overhead {
                (Page::rent(), left)
            } else {
                let take = left.min(PLAIN_MAX);
                (Page::with_room(take + overhead), take)
            };
            self.sealer.seal(APPLICATION_DATA, window(list, at, take), take, &mut page)?;
            records.push_slice(page.slice(0..page.bytes().len()));
            at += take;
        }
        Ok((records, at - from))
    }

    /// The alert that ends sending: why the connection failed, or that everything was sent. None the second
    /// time.
    pub fn goodbye(&mut self) -> Option<SendList> {
        if std::mem::replace(&mut self.is_goodbye_said, true) {
            return None;
        }
        let alert = match &self.receiving {
            Receiving::Failed(_, alert) => [FATAL, (*alert)?],
            _ => [WARNING, CLOSE_NOTIFY],
        };
        let mut records = SendList::new();
        self.push_unsent(&mut records);
        self.seal_small(ALERT, &alert, &mut records).ok()?;
        Some(records)
    }

    /// One record of any kind and content.
    #[cfg(test)]
    pub fn seal_any(&mut self, kind: u8, content: &[u8]) -> SendList {
        let mut records = SendList::new();
        self.push_unsent(&mut records);
        self.seal_small(kind, content, &mut records).expect("a record");
        records
    }

    /// Lets a key protect so many records only.
    #[cfg(test)]
    pub fn limit_records(&mut self, limit: u64) {
        self.limit = limit;
        self.sealer.limit_records(limit);
    }

    /// Opens records until plaintext waits; false where there is none.
    fn next_plain(&mut self) -> bool {
        while matches!(self.receiving, Receiving::Open) && self.input.plain_len() == 0 {
            match self.next_record() {
                Ok(true) => {}
                Ok(false) => return false,
                Err(fault) => {
                    self.receiving = Receiving::Failed(Box::new(fault.into()), fault.alert());
                    return false;
                }
            }
        }
        self.input.plain_len() > 0
    }

    /// Opens one record and acts on it; false where none is whole.
    fn next_record(&mut self) -> Result<bool, Fault> {
        let Some(record) = self.input.next_record()? else { return Ok(false) };
        let opened = self.opener.open(record)?;
        let record_len = record.len();
        let content = record.get(opened.plain.clone()).ok_or(Fault::Internal)?;
        if !self.partial.is_empty() && opened.kind != HANDSHAKE {
            return Err(Fault::UnexpectedMessage);
        }
        match opened.kind {
            APPLICATION_DATA if content.is_empty() => self.count_in_a_row("records without data")?,
            APPLICATION_DATA => {
                self.in_a_row = 0;
                self.input.hold_plain(record_len, opened.plain);
            }
            HANDSHAKE if content.is_empty() => return Err(Fault::UnexpectedMessage),
            HANDSHAKE => {
                self.partial.extend_from_slice(content);
                self.handshake_messages()?;
            }
            ALERT => {
                let alert: [u8; 2] = content.try_into().map_err(|_| Fault::Decode)?;
                self.alert(alert)?;
            }
            _ => return Err(Fault::UnexpectedMessage),
        }
        Ok(true)
    }

    fn alert(&mut self, [level, alert]: [u8; 2]) -> Result<(), Fault> {
        match (alert, level, self.version) {
            (CLOSE_NOTIFY, ..) => {
                self.receiving = Receiving::Ended;
                Ok(())
            }
            // In TLS 1.3 the level says nothing; in TLS 1.2 a warning may be ignored.
            (USER_CANCELED, ..) | (_, WARNING, Version::Tls12) => {
                self.warnings += 1;
                if self.warnings > WARNINGS_MAX { Err(Fault::TooMany("warnings")) } else { Ok(()) }
            }
            _ => Err(Fault::AlertReceived(alert)),
        }
    }

    /// Acts on every whole message in `partial`.
    fn handshake_messages(&mut self) -> Result<(), Fault> {
        let messages = std::mem::take(&mut self.partial);
        let mut rest = messages.as_slice();
        while let Some((&[kind, a, b, c], after)) = rest.split_first_chunk() {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if len > HANDSHAKE_MAX {
                return Err(Fault::Decode);
            }
            let Some((body, after)) = after.split_at_checked(len) else { break };
            rest = after;
            match self.version {
                Version::Tls13 => self.message_tls13(kind, body, rest.is_empty())?,
                Version::Tls12 => self.message_tls12(kind)?,
            }
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn message_tls13(&mut self, kind: u8, body: &[u8], is_last: bool) -> Result<(), Fault> {
        match (kind, &mut self.secrets) {
            (NEW_SESSION_TICKET, Some(Secrets::Client(secrets))) => {
                secrets.handle_new_session_ticket(body).map_err(|_| Fault::Decode)
            }
            (KEY_UPDATE, _) => {
                // Keys change between records, so that nothing may stand behind it in its own.
                if !is_last {
                    return Err(Fault::UnexpectedMessage);
                }
                self.count_in_a_row("key updates")?;
                match body {
                    [0] => {}
                    [1] => self.key_update_due = true,
                    [_] => return Err(Fault::IllegalParameter),
                    _ => return Err(Fault::Decode),
                }
                self.update_opener()
            }
            _ => Err(Fault::UnexpectedMessage),
        }
    }

    /// TLS 1.2 knows one message after the handshake, the wish for another handshake. A client may decline it
    /// and go on. A server's decline would leave a client waiting that sends nothing before its new
    /// handshake.
    fn message_tls12(&mut self, kind: u8) -> Result<(), Fault> {
        match (kind, self.is_client) {
            (HELLO_REQUEST, true) if !self.has_declined => {
                self.has_declined = true;
                self.warning_due = Some(NO_RENEGOTIATION);
                Ok(())
            }
            (HELLO_REQUEST, true) | (CLIENT_HELLO, false) => Err(Fault::Renegotiation),
            _ => Err(Fault::UnexpectedMessage),
        }
    }

    fn count_in_a_row(&mut self, what: &'static str) -> Result<(), Fault> {
        self.in_a_row += 1;
        if self.in_a_row > IN_A_ROW_MAX { Err(Fault::TooMany(what)) } else { Ok(()) }
    }

    /// Seals what the peer must be told before the next data.
    fn seal_due(&mut self, records: &mut SendList) -> Result<(), Fault> {
        self.push_unsent(records);
        if let Some(warning) = self.warning_due.take() {
            self.seal_small(ALERT, &[WARNING, warning], records)?;
        }
        if std::mem::take(&mut self.key_update_due) {
            self.update_sealer(records)?;
        }
        Ok(())
    }

    fn push_unsent(&mut self, records: &mut SendList) {
        if !self.unsent.is_empty() {
            records.push_bytes(std::mem::take(&mut self.unsent).into());
        }
    }

    fn seal_small(&mut self, kind: u8, content: &[u8], records: &mut SendList) -> Result<(), Fault> {
        let mut page = Page::with_room(content.len() + self.sealer.overhead());
        self.sealer.seal(kind, std::iter::once(content), content.len(), &mut page)?;
        records.push_slice(page.slice(0..page.bytes().len()));
        Ok(())
    }

    /// Tells the peer that new keys follow, and takes them. TLS 1.2 has no way to do that.
    fn update_sealer(&mut self, records: &mut SendList) -> Result<(), Fault> {
        if self.secrets.is_none() {
            return Err(Fault::Exhausted);
        }
        self.seal_small(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], records)?;
        self.renew_sealer()
    }

    pub(in crate::net::tls) fn renew_sealer(&mut self) -> Result<(), Fault> {
        let update = match &mut self.secrets {
            Some(Secrets::Client(secrets)) => secrets.update_tx_secret(),
            Some(Secrets::Server(secrets)) => secrets.update_tx_secret(),
            None => return Err(Fault::Exhausted),
        };
        let (sequence, keys) = update.map_err(|_| Fault::Internal)?;
        self.sealer = Sealer::new(self.version, sequence, &keys, self.limit).ok_or(Fault::Internal)?;
        Ok(())
    }

    fn update_opener(&mut self) -> Result<(), Fault> {
        let update = match &mut self.secrets {
            Some(Secrets::Client(secrets)) => secrets.update_rx_secret(),
            Some(Secrets::Server(secrets)) => secrets.update_rx_secret(),
            None => return Err(Fault::Internal),
        };
        let (sequence, keys) = update.map_err(|_| Fault::Internal)?;
        self.opener = Opener::new(self.version, sequence, &keys).ok_or(Fault::Internal)?;
        Ok(())
    }
}

/// `len` bytes of `list` from its byte `from` on, in pieces.
fn window(list: &SendList, from: usize, len: usize) -> impl Iterator<Item = &[u8]> {
    let mut skip = from;
    let mut left = len;
    list.pieces().map_while(move |piece| {
        if left == 0 {
            return None;
        }
        let part = piece.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(piece.len());
        let part = part.get(..left).unwrap_or(part);
        left -= part.len();
        Some(part)
    })
}

/// Warnings that a peer may send over the life of a connection.
const WARNINGS_MAX: u8 = 4;

/// Alert levels and alerts (RFC 8446 section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;

/// Handshake messages (RFC 8446 section 4).
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
