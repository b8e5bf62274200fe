//! TLS on both sides: a stream in, a connection with the calls of `Conn` out.
//!
//! `accept` and `connect` make the handshake with rustls (unbuffered, ring, TLS 1.2 and 1.3). After it rustls
//! keeps the secrets (key updates, tickets) and hands the keys over; the records are opened and sealed here,
//! in our pages, without an allocation per event and with one copy of a byte. Order of the files: `config`
//! (what control builds), `handshake`, `stream` (what `Conn` calls), `session`, `input`, `record`. Both
//! futures may be dropped, which drops the connection; the caller bounds them by a deadline. Absent: early
//! data, renegotiation (refused), client certificates (but on control's own listener: `ServerSide::config`).

use crate::net::conn::Conn;
use crate::net::stream::Stream;
use handshake::Half;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use std::sync::Arc;

pub mod config;
pub mod error;
pub mod session;
pub mod stream;

mod fault;
mod handshake;
mod input;
mod record;
mod sessions;

pub use config::{ClientSide, MinVersion, Pem, Roots, ServerSide, SetupError, server_name};
pub use error::{Kind, TlsError};
pub use record::Version;
pub use rustls::pki_types::ServerName as PeerName;
pub use session::Session;
pub use stream::{Agreed, TlsStream};

/// Why no TLS connection came of an accepted stream.
pub enum AcceptError {
    /// The client speaks HTTP without TLS. It can be told so on this connection, of which the first bytes are
    /// gone.
    PlainHttp(Conn),
    Failed(TlsError),
}

/// Makes the handshake as the server. What was agreed on (ALPN) is in `Conn::agreed`.
pub async fn accept(stream: Stream, side: &ServerSide) -> Result<Conn, AcceptError> {
    let mut pending = handshake::Pending::default();
    // The state of rustls is made when the first record is there: a client that stalls costs what it has
    // sent.
    while !pending.has_record() {
        pending.read(&stream, handshake::CLIENT_INPUT_MAX).await.map_err(AcceptError::Failed)?;
        // A record begins with a small number, a method of HTTP with a letter.
        if pending.first().is_some_and(|byte| byte.is_ascii_uppercase()) {
            return Err(AcceptError::PlainHttp(Conn::Plain(stream)));
        }
    }
    let machine = UnbufferedServerConnection::new(Arc::clone(&side.config));
    let machine = machine.map_err(|error| AcceptError::Failed(error.into()))?;
    let stream = handshake::run(stream, Box::new(machine), pending, handshake::CLIENT_INPUT_MAX).await;
    stream.map(|stream| Conn::Tls(Box::new(stream))).map_err(AcceptError::Failed)
}

/// Makes the handshake as the client: the server's certificate must be for `name` and come from a trusted CA.
pub async fn connect(
    stream: Stream,
    side: &ClientSide,
    name: &ServerName<'static>,
) -> Result<Conn, TlsError> {
    let machine = UnbufferedClientConnection::new(Arc::clone(&side.config), name.clone())?;
    let pending = handshake::Pending::default();
    let stream = handshake::run(stream, Box::new(machine), pending, handshake::SERVER_INPUT_MAX).await?;
    Ok(Conn::Tls(Box::new(stream)))
}

/// The sessions of a client and of a server that have made their handshake with each other in memory: for
/// benches and tests of what comes after it.
pub fn in_memory(
    client: &ClientSide,
    server: &ServerSide,
    name: &ServerName<'static>,
) -> Result<(Session, Session), TlsError> {
    let mut client = Half::new(UnbufferedClientConnection::new(Arc::clone(&client.config), name.clone())?);
    let mut server = Half::new(UnbufferedServerConnection::new(Arc::clone(&server.config))?);
    loop {
        let (to_server, client_is_done) = client.advance()?;
        server.receive(&to_server);
        let (to_client, server_is_done) = server.advance()?;
        client.receive(&to_client);
        if client_is_done && server_is_done {
            return Ok((client.finish()?, server.finish()?));
        }
        if to_server.is_empty() && to_client.is_empty() {
            return Err(TlsError::new(Kind::Closed, "both sides wait"));
        }
    }
}

#[cfg(test)]
pub(in crate::net) mod tests;
