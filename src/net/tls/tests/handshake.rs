//! Handshakes over the simulated network: what succeeds, what is refused and how that is named.

use super::authority::{Authority, NAME};
use super::network::{connected, read, send, shake, simulated, streams, together};
use crate::net::conn::Conn;
use crate::net::send::SendList;
use crate::net::tls::{
    self, AcceptError, ClientSide, Kind, MinVersion, Roots, ServerSide, Version, server_name,
};
use rcgen::{SanType, date_time_ymd};

/// What both sides say of a handshake that must fail.
fn refusal(client: ClientSide, server: ServerSide) -> (Kind, Kind) {
    simulated(async {
        let (client, server) = shake(client, server).await;
        let client = client.err().expect("the client refuses");
        match server {
            Err(AcceptError::Failed(server)) => (client.kind, server.kind),
            // TLS 1.3: the server is ready before it hears that the client is not.
            Ok(conn) => {
                let error = read(&conn, 1).await.expect_err("an alert");
                let kind = tls::TlsError::in_io(&error).map(|error| error.kind);
                (client.kind, kind.expect("an error of TLS"))
            }
            Err(AcceptError::PlainHttp(_)) => unreachable!("a client of TLS"),
        }
    })
}

#[test]
fn a_certificate_that_is_wrong_is_refused_and_said_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let expired = authority.leaf_with("expired", |params| params.not_after = date_time_ymd(2025, 12, 31));
    let early = authority.leaf_with("early", |params| params.not_before = date_time_ymd(2026, 1, 2));
    let misnamed = authority.leaf_with("misnamed", |params| {
        params.subject_alt_names = vec![SanType::DnsName("other.test".try_into().expect("a name"))];
    });
    let client = || authority.client_side(&[]);
    let cases = [
        ("unknown CA", client(), other.server_side(&[]), Kind::UnknownIssuer),
        // The clock of the simulation starts with the year 2026.
        ("expired", client(), authority.server_side_with(&expired, &[]), Kind::Expired),
        ("not yet valid", client(), authority.server_side_with(&early, &[]), Kind::NotYetValid),
        ("other name", client(), authority.server_side_with(&misnamed, &[]), Kind::NameMismatch),
    ];
    for (name, client, server, kind) in cases {
        assert_eq!(refusal(client, server), (kind, Kind::Alert), "{name}");
    }
}

#[test]
fn protocols_are_agreed_on_or_the_handshake_is_refused() {
    let authority = Authority::new();
    simulated(async {
        let (client, server) =
            shake(authority.client_side(&["h2", "http/1.1"]), authority.server_side(&["http/1.1"])).await;
        for conn in [client.expect("a connection"), server.ok().expect("a connection")] {
            assert_eq!(conn.agreed().and_then(|agreed| agreed.alpn.as_deref()), Some(&b"http/1.1"[..]));
        }
        let (client, server) = connected(&authority).await;
        for conn in [client, server] {
            assert_eq!(conn.agreed().and_then(|agreed| agreed.alpn.as_deref()), None);
        }
    });
    let kinds = refusal(authority.client_side(&["h2"]), authority.server_side(&["http/1.1"]));
    assert_eq!(kinds, (Kind::Protocol, Kind::Protocol));
}

#[test]
fn a_second_connection_takes_the_session_of_the_first_up_again() {
    let authority = Authority::new();
    let server = authority.server_side(&[]);
    let (client, stranger) = (authority.client_side(&[]), authority.client_side(&[]));
    let resumed = |client: &ClientSide| {
        let (client, server) = (client.clone(), server.clone());
        simulated(async move {
            let (client, server) = shake(client, server).await;
            let (client, server) = (client.expect("a connection"), server.ok().expect("a connection"));
            // The tickets come before the first bytes.
            send(&server, b"x").await.expect("sent");
            assert_eq!(read(&client, 1).await.expect("a byte"), b"x");
            let is_resumed = |conn: &Conn| conn.agreed().is_some_and(|agreed| agreed.is_resumed);
            assert_eq!(is_resumed(&client), is_resumed(&server));
            is_resumed(&client)
        })
    };
    assert!(!resumed(&client), "the first");
    assert!(resumed(&client), "the second");
    assert!(resumed(&client), "the third");
    assert!(!resumed(&stranger), "a client with other settings shares nothing");
}

#[test]
fn what_is_not_tls_is_named_so() {
    let authority = Authority::new();
    let (client, server) = (authority.client_side(&[]), authority.server_side(&[]));
    for (bytes, kind) in [
        (&b"\x05\x01\x00"[..], Kind::NotTls),
        (b"\x80\x2e\x01\x03\x01\x00\x15", Kind::NotTls),
        (b"\x16\x03\x01\xff\xff\x01\x02", Kind::Misbehaved),
        (b"\x16\x03\x01", Kind::Closed),
        (b"", Kind::Closed),
    ] {
        let server = server.clone();
        let found = simulated(async move {
            let (near, far) = streams().await;
            let mut list = SendList::new();
            list.push_copy(bytes);
            near.send(list).await.expect("sent");
            near.shutdown_send();
            match tls::accept(far, &server).await {
                Err(AcceptError::Failed(error)) => error.kind,
                _ => unreachable!("{bytes:?} is no handshake"),
            }
        });
        assert_eq!(found, kind, "{bytes:?}");
    }
    let found = simulated(async move {
        let (near, far) = streams().await;
        let (name, far) = (server_name(NAME).expect("a name"), Conn::Plain(far));
        let (connected, answered) =
            together(async move { tls::connect(near, &client, &name).await }, async move {
                send(&far, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.map(|()| far)
            })
            .await;
        answered.expect("sent");
        connected.err().expect("no TLS").kind
    });
    assert_eq!(found, Kind::NotTls);
}

#[test]
fn a_side_that_wants_tls13_only_refuses_less() {
    let authority = Authority::new();
    let leaf = authority.leaf();
    let strict =
        ServerSide::from_files(&leaf.chain, &leaf.key, MinVersion::Tls13, &[]).expect("a server side");
    let roots = authority.roots();
    let strict_client = ClientSide::new(Roots::File(&roots), MinVersion::Tls13, &[]).expect("a client side");
    simulated(async {
        let (client, _server) = shake(strict_client, strict).await;
        let agreed = client.expect("a connection").agreed().cloned();
        assert_eq!(agreed.map(|agreed| agreed.version), Some(Version::Tls13));
    });
}
