//! Handshakes over the simulated network: what succeeds, what is refused and how that is named.

use super::authority::{Authority, NAME};
use super::network::{connected, read, send, shake, simulated, streams, together};
use crate::base::rng;
use crate::net::conn::Conn;
use crate::net::deadline::Deadline;
use crate::net::memory::{Faults, Simulation, each_seed};
use crate::net::page::Page;
use crate::net::runtime;
use crate::net::send::SendList;
use crate::net::stream::{Received, Stream};
use crate::net::tls::handshake::CLIENT_INPUT_MAX;
use crate::net::tls::{
    self, AcceptError, ClientSide, Kind, MinVersion, Roots, ServerSide, Version, server_name,
};
use rcgen::{SanType, date_time_ymd};
use std::rc::Rc;
use std::time::Duration;

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

/// Passes bytes on, with one of them changed.
async fn pass(from: Rc<Stream>, to: Rc<Stream>, changed: Option<(usize, u8)>) {
    let mut seen = 0;
    loop {
        let mut page = Page::rent();
        if from.readable().await.is_err() {
            return;
        }
        match from.try_recv(&mut page) {
            Ok(Received::Bytes(n)) => {
                if let (Some((place, change)), Some(bytes)) = (changed, page.bytes_mut())
                    && let Some(byte) = place.checked_sub(seen).and_then(|place| bytes.get_mut(place))
                {
                    *byte ^= change;
                }
                seen += n;
                let mut list = SendList::new();
                list.push_slice(page.slice(0..n));
                if to.send(list).await.is_err() {
                    return;
                }
            }
            Ok(Received::Nothing) => {}
            Ok(Received::End) | Err(_) => return to.shutdown_send(),
        }
    }
}

#[test]
fn a_byte_changed_anywhere_in_a_handshake_never_leads_to_other_data() {
    let authority = Authority::new();
    let (client, server) = (authority.client_side(&["a"]), authority.server_side(&["a"]));
    let (mut completed, mut all) = (0, 0);
    each_seed(0..150, |seed| {
        let (client, server) = (client.clone(), server.clone());
        let main = async move {
            let (near, near_end) = streams().await;
            let (far_end, far) = streams().await;
            let (near_end, far_end) = (Rc::new(near_end), Rc::new(far_end));
            let change = Some((rng::below(600) as usize, 1 << rng::below(8)));
            let (to_server, to_client) = if rng::below(2) == 0 { (change, None) } else { (None, change) };
            runtime::spawn(pass(Rc::clone(&near_end), Rc::clone(&far_end), to_server));
            runtime::spawn(pass(far_end, near_end, to_client));
            let deadline = Deadline::unset();
            deadline.set(Duration::from_secs(10));
            deadline.bound(question_and_answer(near, far, client, server)).await
        };
        let outcome = Simulation::new(seed, Faults::none()).run(main).finished();
        completed += u32::from(matches!(outcome, Ok(true)));
        all += 1;
    });
    // A few bytes mean nothing: the version before a record, a change of cipher that is ignored.
    assert!(completed * 3 <= all, "{completed} of {all} handshakes did not notice");
}

/// Whether both sides read what the other sent. What they read is never anything else.
async fn question_and_answer(near: Stream, far: Stream, client: ClientSide, server: ServerSide) -> bool {
    let asking = async move {
        let name = server_name(NAME).expect("a name");
        let Ok(conn) = tls::connect(near, &client, &name).await else { return false };
        let asked = send(&conn, b"question").await;
        let answer = read(&conn, 6).await.unwrap_or_default();
        assert!(b"answer".starts_with(&answer[..]), "{answer:?}");
        asked.is_ok() && answer.len() == 6
    };
    let answering = async move {
        let Ok(conn) = tls::accept(far, &server).await else { return false };
        let question = read(&conn, 8).await.unwrap_or_default();
        assert!(b"question".starts_with(&question[..]), "{question:?}");
        send(&conn, b"answer").await.is_ok() && question.len() == 8
    };
    let (asked, answered) = together(asking, answering).await;
    asked && answered
}

#[test]
fn a_hello_longer_than_its_bound_is_refused() {
    let authority = Authority::new();
    // A handshake message that says it is long, in records that are each allowed.
    for (total, is_refused) in [(CLIENT_INPUT_MAX - 5, false), (CLIENT_INPUT_MAX + 20, true)] {
        let server = authority.server_side(&[]);
        let kind = simulated(async move {
            let (near, far) = streams().await;
            runtime::spawn(async move {
                let mut list = SendList::new();
                let mut left = total;
                let mut content = vec![1, 0, 200, 0];
                while left > 0 {
                    let n = left.min(8000);
                    content.resize(n - 5, 0);
                    list.push_copy(&[22, 3, 1, ((n - 5) >> 8) as u8, (n - 5) as u8]);
                    list.push_copy(&content);
                    content.clear();
                    left -= n;
                }
                near.send(list).await.expect("sent");
                // Stays open, so that only the bound can end it.
                runtime::sleep(Duration::from_secs(20)).await;
            });
            let deadline = Deadline::unset();
            deadline.set(Duration::from_secs(10));
            match deadline.bound(tls::accept(far, &server)).await {
                Ok(Err(AcceptError::Failed(error))) => Some(error.kind),
                Ok(_) => unreachable!("no hello"),
                Err(_) => None,
            }
        });
        assert_eq!(kind, is_refused.then_some(Kind::Misbehaved), "{total} bytes");
    }
}

#[test]
fn a_certificate_of_several_records_is_taken() {
    let authority = Authority::new();
    let leaf = authority.leaf_with("large", |params| {
        for number in 0..2000 {
            let name = format!("name-{number}.example");
            params.subject_alt_names.push(SanType::DnsName(name.try_into().expect("a name")));
        }
    });
    let (client, server) = (authority.client_side(&[]), authority.server_side_with(&leaf, &[]));
    each_seed(0..5, |seed| {
        let (client, server) = (client.clone(), server.clone());
        let main = async move {
            let (near, far) = streams().await;
            assert!(question_and_answer(near, far, client, server).await);
        };
        Simulation::new(seed, Faults::harmless(seed)).run(main).finished();
    });
}
