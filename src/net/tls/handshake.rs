//! Drives rustls' unbuffered connection over a stream until the handshake is complete, then takes its keys.
//!
//! rustls sees one record at a time and none after its last, so that what a peer sends behind its handshake
//! stays ours, unopened. Limits: `input_max` bytes wait at any time. Bytes are kept in a vector of what came,
//! not in a page: a client that stalls in its first record costs what it sent, and no state of rustls.
//! Errors: what rustls found, after its alert was sent to the peer. Dropping the future drops the connection.

use crate::net::page::Page;
use crate::net::race::{First, race};
use crate::net::send::SendList;
use crate::net::stream::{Received, Stream};
use crate::net::tls::error::{Kind, TlsError};
use crate::net::tls::fault::Fault;
use crate::net::tls::record::{Opener, RECORD_MAX, Sealer, Version, record_len};
use crate::net::tls::session::{Established, Secrets, Session};
use crate::net::tls::stream::{Agreed, TlsStream};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, ExtractedSecrets, HandshakeKind, ProtocolVersion, SupportedCipherSuite};
use std::pin::pin;

/// What a client may have sent that was not understood yet: one record of any size.
pub const CLIENT_INPUT_MAX: usize = RECORD_MAX;

/// The same of a server, whose certificate chain may be long: a message as large as rustls takes.
pub const SERVER_INPUT_MAX: usize = 64 * 1024 + RECORD_MAX;

/// One side of a handshake in rustls.
pub trait Machine {
    type Data;
    const IS_SERVER: bool;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn extract(self) -> Result<(ExtractedSecrets, Secrets), rustls::Error>;
}

/// Received bytes of a handshake.
#[derive(Default)]
pub struct Pending {
    bytes: Vec<u8>,
    /// How many of them rustls has seen: whole records.
    seen: usize,
}

impl Pending {
    /// What came first.
    pub fn first(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    /// Whether a whole record is there that rustls has not seen, or bytes that are no record.
    pub fn has_record(&self) -> bool {
        self.next_len().is_some()
    }

    /// Appends what was received.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets rustls see the next record; false where none is there as a whole.
    pub fn show_next(&mut self) -> bool {
        let len = self.next_len();
        self.seen += len.unwrap_or(0);
        len.is_some()
    }

    /// Waits for bytes and appends them. An end is an error here.
    pub async fn read(&mut self, stream: &Stream, input_max: usize) -> Result<(), TlsError> {
        if self.bytes.len() > input_max {
            let detail = format!("a handshake message is longer than the {input_max} bytes that are allowed");
            return Err(TlsError::new(Kind::Misbehaved, detail));
        }
        loop {
            stream.readable().await?;
            let ended = match self.try_read(stream)? {
                Received::Bytes(_) => return Ok(()),
                Received::Nothing => continue,
                Received::End if self.bytes.is_empty() => "without a word",
                Received::End => "within the handshake",
            };
            return Err(TlsError::new(Kind::Closed, format!("the peer ended the connection {ended}")));
        }
    }

    fn try_read(&mut self, stream: &Stream) -> Result<Received, TlsError> {
        let mut page = Page::rent();
        let received = stream.try_recv(&mut page)?;
        self.append(page.bytes());
        Ok(received)
    }

    fn next_len(&self) -> Option<usize> {
        let unseen = self.bytes.get(self.seen..)?;
        match (record_len(unseen), unseen.first()) {
            (Ok(Some(len)), Some(20..=23)) => (unseen.len() >= len).then_some(len),
            (Ok(None), Some(20..=23)) | (_, None) => None,
            // No record: rustls is to find that out and to word the alert.
            _ => Some(unseen.len()),
        }
    }
}

/// Runs a handshake to its end.
pub async fn run<M: Machine>(
    stream: Stream,
    mut machine: Box<M>,
    mut pending: Pending,
    input_max: usize,
) -> Result<TlsStream, TlsError> {
    let mut output = Vec::new();
    loop {
        match step(&mut *machine, &mut pending, &mut output) {
            Ok(Step::Again) => {}
            Ok(Step::Flush) if waits_for_data(&*machine) => {}
            Ok(Step::Flush) => flush(&stream, &mut output, &mut pending, input_max).await?,
            Ok(Step::Done) => break,
            Ok(Step::Blocked) if pending.show_next() => {}
            Ok(Step::Blocked) => pending.read(&stream, input_max).await?,
            Err(error) => {
                say_alert(&stream, &mut *machine, &mut pending, output).await;
                return Err(error);
            }
        }
    }
    let (session, agreed) = establish(*machine, &pending, output)?;
    Ok(TlsStream::new(stream, session, agreed))
}

/// Whether what is to be sent waits for the first data: a server's tickets, as a client need not read before
/// it has sent.
fn waits_for_data<M: Machine>(machine: &M) -> bool {
    let common = machine.common();
    let is_tls13 = common.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    M::IS_SERVER && is_tls13 && !common.is_handshaking()
}

/// What a step asks for.
pub enum Step {
    Again,
    /// The output is to be sent.
    Flush,
    /// rustls is to see another record.
    Blocked,
    /// The handshake is complete and everything is sent.
    Done,
}

/// Lets rustls go on with what it has seen. What it wants to send is appended to `output`.
pub fn step<M: Machine>(
    machine: &mut M,
    pending: &mut Pending,
    output: &mut Vec<u8>,
) -> Result<Step, TlsError> {
    let seen = pending.bytes.get_mut(..pending.seen).unwrap_or_default();
    let UnbufferedStatus { discard, state } = machine.process(seen);
    let mut may_be_done = false;
    let step = match state {
        Err(error) => Err(error.into()),
        Ok(ConnectionState::EncodeTlsData(encode)) => encode_into(encode, output).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Flush)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => {
            may_be_done = true;
            Ok(Step::Blocked)
        }
        Ok(_) => Err(TlsError::new(Kind::Closed, "the peer ended the connection within the handshake")),
    };
    pending.bytes.drain(..discard.min(pending.seen));
    pending.seen = pending.seen.saturating_sub(discard);
    if may_be_done && !machine.common().is_handshaking() { Ok(Step::Done) } else { step }
}

fn encode_into<D>(mut encode: EncodeTlsData<'_, D>, output: &mut Vec<u8>) -> Result<(), TlsError> {
    let start = output.len();
    if let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut []) {
        output.resize(start + size.required_size, 0);
    }
    let place = output.get_mut(start..).unwrap_or_default();
    encode.encode(place).map_err(|error| TlsError::new(Kind::Internal, error.to_string()))?;
    Ok(())
}

/// Sends what rustls has written. Reads meanwhile: where both sides only sent, full buffers would stop both.
async fn flush(
    stream: &Stream,
    output: &mut Vec<u8>,
    pending: &mut Pending,
    input_max: usize,
) -> Result<(), TlsError> {
    if output.is_empty() {
        return Ok(());
    }
    let mut list = SendList::new();
    list.push_bytes(std::mem::take(output).into());
    let mut sending = pin!(stream.send(list));
    while pending.bytes.len() <= input_max {
        match race(sending.as_mut(), stream.readable()).await {
            First::One(sent) => return Ok(sent?),
            First::Two(readable) => readable?,
        }
        // An end is found again by the next read; only what came before it must be taken now.
        if pending.try_read(stream)? == Received::End {
            break;
        }
    }
    Ok(sending.await?)
}

/// Sends the alert that rustls queued with its error, where it did. A peer that is gone does not hear it.
async fn say_alert<M: Machine>(stream: &Stream, machine: &mut M, pending: &mut Pending, mut output: Vec<u8>) {
    // Only what is queued: rustls would read the same bytes again, and a debug build panics at its second
    // alert.
    while machine.common().wants_write() && matches!(step(machine, pending, &mut output), Ok(Step::Again)) {}
    let mut list = SendList::new();
    list.push_bytes(output.into());
    if stream.send(list).await.is_ok() {
        stream.shutdown_send();
    }
}

/// Takes the keys of a completed handshake. `unsent` holds records that are to be sent before all others.
pub fn establish<M: Machine>(
    machine: M,
    pending: &Pending,
    unsent: Vec<u8>,
) -> Result<(Session, Agreed), TlsError> {
    let common = machine.common();
    let version = match common.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
        _ => Version::Tls12,
    };
    let limit = match common.negotiated_cipher_suite() {
        Some(SupportedCipherSuite::Tls13(suite)) => suite.common.confidentiality_limit,
        Some(SupportedCipherSuite::Tls12(suite)) => suite.common.confidentiality_limit,
        None => 0,
    };
    let agreed = Agreed {
        version,
        alpn: common.alpn_protocol().map(Box::from),
        is_resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
    };
    let (ExtractedSecrets { tx, rx }, secrets) = machine.extract()?;
    let sealer = Sealer::new(version, tx.0, &tx.1, limit).ok_or(Fault::Internal)?;
    let opener = Opener::new(version, rx.0, &rx.1).ok_or(Fault::Internal)?;
    let unread = pending.bytes.get(pending.seen..).unwrap_or_default().to_vec();
    let session = Session::new(Established { version, secrets, opener, sealer, limit, unread, unsent });
    Ok((session, agreed))
}

/// One side of a handshake without a stream.
pub struct Half<M> {
    machine: M,
    pending: Pending,
    /// Records that go out with the first data.
    unsent: Vec<u8>,
}

impl<M: Machine> Half<M> {
    pub fn new(machine: M) -> Half<M> {
        Half { machine, pending: Pending::default(), unsent: Vec::new() }
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.pending.append(bytes);
    }

    /// Goes on with what was received: what is to be sent, and whether the handshake is complete.
    pub fn advance(&mut self) -> Result<(Vec<u8>, bool), TlsError> {
        let mut output = Vec::new();
        loop {
            match step(&mut self.machine, &mut self.pending, &mut output)? {
                Step::Flush if waits_for_data(&self.machine) => self.unsent.append(&mut output),
                Step::Again | Step::Flush => {}
                Step::Blocked if self.pending.show_next() => {}
                Step::Blocked => return Ok((output, false)),
                Step::Done => return Ok((output, true)),
            }
        }
    }

    pub fn finish(self) -> Result<Session, TlsError> {
        Ok(establish(self.machine, &self.pending, self.unsent)?.0)
    }
}

impl Machine for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_SERVER: bool = true;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn extract(self) -> Result<(ExtractedSecrets, Secrets), rustls::Error> {
        let (keys, secrets) = self.dangerous_into_kernel_connection()?;
        Ok((keys, Secrets::Server(Box::new(secrets))))
    }
}

impl Machine for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_SERVER: bool = false;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn extract(self) -> Result<(ExtractedSecrets, Secrets), rustls::Error> {
        let (keys, secrets) = self.dangerous_into_kernel_connection()?;
        Ok((keys, Secrets::Client(Box::new(secrets))))
    }
}
