//! What can go wrong with TLS, in words for a log and as a kind for a counter. Nothing here holds a secret.
//!
//! `Kind` is the closed list; `detail` names what was found (names in a certificate, the peer's alert).
//! A failure of a running connection travels as `io::Error` with a `TlsError` inside: `TlsError::in_io` finds
//! it again.

use rustls::{CertificateError, InvalidMessage, PeerIncompatible};
use std::borrow::Cow;
use std::fmt;
use std::io;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The peer ended the connection before the handshake was complete.
    Closed,
    /// The peer ended the connection without a closing alert: what was received may be cut short.
    Truncated,
    /// What came is not TLS.
    NotTls,
    /// No protocol version in common.
    Version,
    /// No cipher suite, key exchange or signature scheme in common.
    Cipher,
    /// No application protocol (ALPN) in common.
    Protocol,
    /// The peer's certificate was not issued by a CA that is trusted here.
    UnknownIssuer,
    /// The peer's certificate is for other names.
    NameMismatch,
    /// The peer's certificate has expired.
    Expired,
    /// The peer's certificate is not valid yet.
    NotYetValid,
    /// The peer's certificate is wrong in another way.
    Certificate,
    /// The peer refused, with the alert that `detail` names.
    Alert,
    /// A record was changed on its way.
    Tampered,
    /// The peer broke a rule of the protocol.
    Misbehaved,
    /// The keys of the connection have protected as many records as they may.
    Exhausted,
    /// The connection below failed.
    Io(io::ErrorKind),
    /// A failure on our side.
    Internal,
}

impl Kind {
    /// The name in counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Closed => "closed",
            Kind::Truncated => "truncated",
            Kind::NotTls => "not_tls",
            Kind::Version => "version",
            Kind::Cipher => "cipher",
            Kind::Protocol => "protocol",
            Kind::UnknownIssuer => "unknown_issuer",
            Kind::NameMismatch => "name_mismatch",
            Kind::Expired => "expired",
            Kind::NotYetValid => "not_yet_valid",
            Kind::Certificate => "certificate",
            Kind::Alert => "alert",
            Kind::Tampered => "tampered",
            Kind::Misbehaved => "misbehaved",
            Kind::Exhausted => "exhausted",
            Kind::Io(_) => "io",
            Kind::Internal => "internal",
        }
    }
}

/// A failure of a handshake or of a connection.
#[derive(Clone, Debug)]
pub struct TlsError {
    pub kind: Kind,
    detail: Cow<'static, str>,
}

impl TlsError {
    pub(in crate::net) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> TlsError {
        TlsError { kind, detail: detail.into() }
    }

    /// The TLS failure inside an error of a running connection.
    pub fn in_io(error: &io::Error) -> Option<&TlsError> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for TlsError {}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        TlsError::new(Kind::Io(error.kind()), error.to_string())
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> io::Error {
        let kind = match error.kind {
            Kind::Truncated | Kind::Closed => io::ErrorKind::UnexpectedEof,
            Kind::Io(kind) => kind,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        use rustls::Error as E;
        let kind = match &error {
            E::AlertReceived(rustls::AlertDescription::ProtocolVersion) => Kind::Version,
            E::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => Kind::Protocol,
            E::AlertReceived(_) => Kind::Alert,
            E::DecryptError => Kind::Tampered,
            E::InvalidCertificate(what) => certificate_kind(what),
            E::NoCertificatesPresented => Kind::Certificate,
            E::NoApplicationProtocol => Kind::Protocol,
            E::PeerIncompatible(what) => incompatible_kind(what),
            E::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Kind::NotTls,
            E::InvalidMessage(_)
            | E::InappropriateMessage { .. }
            | E::InappropriateHandshakeMessage { .. } => Kind::Misbehaved,
            E::PeerMisbehaved(_) | E::PeerSentOversizedRecord => Kind::Misbehaved,
            _ => Kind::Internal,
        };
        TlsError::new(kind, error.to_string())
    }
}

fn certificate_kind(what: &CertificateError) -> Kind {
    match what {
        CertificateError::UnknownIssuer => Kind::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Kind::NameMismatch
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Kind::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Kind::NotYetValid,
        _ => Kind::Certificate,
    }
}

fn incompatible_kind(what: &PeerIncompatible) -> Kind {
    match what {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => Kind::Version,
        _ => Kind::Cipher,
    }
}
