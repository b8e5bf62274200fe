//! How a peer can break the protocol after the handshake, and the alert that answers it.

use crate::net::tls::error::{Kind, TlsError};

/// A reason to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A record failed its authentication.
    BadRecord,
    /// A record is longer than the protocol allows.
    RecordOverflow,
    /// A message that has no place here.
    UnexpectedMessage,
    /// A message that cannot be read.
    Decode,
    /// A field with a value that is not allowed.
    IllegalParameter,
    /// A record of another protocol version.
    Version,
    /// More of what costs us work and carries no data than is tolerated.
    TooMany(&'static str),
    /// The peer wants another handshake on this connection.
    Renegotiation,
    /// The keys have protected as many records as they may.
    Exhausted,
    /// The peer sent this fatal alert.
    AlertReceived(u8),
    /// A rule of our own code was broken.
    Internal,
}

impl Fault {
    /// The alert for the peer (RFC 8446 section 6); none where it sent one itself.
    pub fn alert(self) -> Option<u8> {
        match self {
            Fault::BadRecord => Some(20),
            Fault::RecordOverflow => Some(22),
            Fault::UnexpectedMessage | Fault::TooMany(_) => Some(10),
            Fault::Decode => Some(50),
            Fault::IllegalParameter => Some(47),
            Fault::Version => Some(70),
            Fault::Renegotiation => Some(100),
            Fault::Exhausted | Fault::Internal => Some(80),
            Fault::AlertReceived(_) => None,
        }
    }
}

impl From<Fault> for TlsError {
    fn from(fault: Fault) -> TlsError {
        match fault {
            Fault::BadRecord => TlsError::new(Kind::Tampered, "a record failed its authentication"),
            Fault::RecordOverflow => TlsError::new(
                Kind::Misbehaved,
                "a record is longer than the 16,384 bytes of plaintext that are allowed",
            ),
            Fault::UnexpectedMessage => {
                TlsError::new(Kind::Misbehaved, "a message that has no place after the handshake")
            }
            Fault::Decode => TlsError::new(Kind::Misbehaved, "a message that cannot be read"),
            Fault::IllegalParameter => {
                TlsError::new(Kind::Misbehaved, "a field with a value that is not allowed")
            }
            Fault::Version => TlsError::new(Kind::Misbehaved, "a record of another protocol version"),
            Fault::TooMany(what) => TlsError::new(Kind::Misbehaved, format!("too many {what} in a row")),
            Fault::Renegotiation => TlsError::new(Kind::Misbehaved, "a renegotiation, which is not allowed"),
            Fault::Exhausted => {
                TlsError::new(Kind::Exhausted, "the keys have protected as many records as they may")
            }
            Fault::AlertReceived(alert) => {
                let alert = rustls::AlertDescription::from(alert);
                TlsError::new(Kind::Alert, format!("the peer ended the connection with the alert {alert:?}"))
            }
            Fault::Internal => TlsError::new(Kind::Internal, "the TLS layer broke a rule of its own"),
        }
    }
}
