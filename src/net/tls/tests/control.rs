//! Records that are not data: alerts, key updates, tickets, wishes to renegotiate, and what has no place.

use super::authority::{Authority, NAME};
use super::peer::{Ours, Pair, joined, list_of, only_client, ours_reads, sealed};
use crate::net::page::{PAGE_BYTES, rented_pages};
use crate::net::stream::Received;
use crate::net::tls::record::{ALERT, APPLICATION_DATA, HANDSHAKE, PLAIN_MAX, RECORD_MAX};
use crate::net::tls::session::{HANDSHAKE_MAX, IN_A_ROW_MAX, Session};
use crate::net::tls::{ClientSide, Kind, Version, in_memory, server_name};
use proptest::prelude::*;
use rustls::{AlertDescription, CipherSuite, Error};

const CHANGE_CIPHER_SPEC: u8 = 20;
const SUITES: [(Version, CipherSuite); 2] = [
    (Version::Tls12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    (Version::Tls13, CipherSuite::TLS13_AES_128_GCM_SHA256),
];

/// A client's and a server's session, both ours.
fn sessions(authority: &Authority, suite: CipherSuite) -> (Session, Session) {
    let client = ClientSide { config: only_client(authority, suite) };
    let name = server_name(NAME).expect("a name");
    in_memory(&client, &authority.server_side(&[]), &name).expect("a handshake")
}

fn read(session: &mut Session, records: &[u8]) -> (Vec<u8>, Result<Received, Kind>) {
    let (plain, end) = ours_reads(session, records, || RECORD_MAX, || PAGE_BYTES);
    (plain, end.map_err(|error| error.kind))
}

/// Records by type and content, and what is made of them.
type Sent = &'static [(u8, &'static [u8])];
type Made = Result<Received, Kind>;

/// What a server of each version makes of records of a client.
#[test]
fn what_is_not_data_is_acted_on_or_refused() {
    const NOTHING: Made = Ok(Received::Nothing);
    const MISBEHAVED: Made = Err(Kind::Misbehaved);
    const ALERTED: Made = Err(Kind::Alert);
    const ENDED: Made = Ok(Received::End);
    let update_first: Sent = &[(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])];
    let between: Sent = &[(HANDSHAKE, &[24, 0, 0]), (APPLICATION_DATA, b"x"), (HANDSHAKE, &[1, 0])];
    let cases: [(&str, Sent, Made, Made); 20] = [
        ("closing alert", &[(ALERT, &[1, 0])], ENDED, ENDED),
        ("closing alert, fatal", &[(ALERT, &[2, 0])], ENDED, ENDED),
        (
            "data after the closing alert",
            &[(ALERT, &[1, 0]), (APPLICATION_DATA, b"x")],
            Ok(Received::End),
            Ok(Received::End),
        ),
        ("fatal alert", &[(ALERT, &[2, 80])], ALERTED, ALERTED),
        ("warning", &[(ALERT, &[1, 112])], NOTHING, ALERTED),
        ("user_canceled", &[(ALERT, &[1, 90])], NOTHING, NOTHING),
        ("alert of one byte", &[(ALERT, &[1])], MISBEHAVED, MISBEHAVED),
        ("alert of three bytes", &[(ALERT, &[1, 0, 0])], MISBEHAVED, MISBEHAVED),
        ("two alerts in a record", &[(ALERT, &[1, 90, 1, 0])], MISBEHAVED, MISBEHAVED),
        ("key update", &[(HANDSHAKE, &[24, 0, 0, 1, 0])], MISBEHAVED, NOTHING),
        ("key update, value 2", &[(HANDSHAKE, &[24, 0, 0, 1, 2])], MISBEHAVED, MISBEHAVED),
        ("key update without value", &[(HANDSHAKE, &[24, 0, 0, 0])], MISBEHAVED, MISBEHAVED),
        ("key update before a message", update_first, MISBEHAVED, MISBEHAVED),
        ("data within a message", between, MISBEHAVED, MISBEHAVED),
        ("ticket from a client", &[(HANDSHAKE, &[4, 0, 0, 0])], MISBEHAVED, MISBEHAVED),
        ("client hello", &[(HANDSHAKE, &[1, 0, 0, 0])], MISBEHAVED, MISBEHAVED),
        ("finished", &[(HANDSHAKE, &[20, 0, 0, 0])], MISBEHAVED, MISBEHAVED),
        ("handshake record without content", &[(HANDSHAKE, &[])], MISBEHAVED, MISBEHAVED),
        ("change of cipher", &[(CHANGE_CIPHER_SPEC, &[1])], MISBEHAVED, MISBEHAVED),
        ("unknown type", &[(99, &[1])], MISBEHAVED, MISBEHAVED),
    ];
    let authority = Authority::new();
    for (name, sent, tls12, tls13) in cases {
        for ((version, suite), expected) in SUITES.into_iter().zip([tls12, tls13]) {
            let (mut client, mut server) = sessions(&authority, suite);
            let records: Vec<u8> =
                sent.iter().flat_map(|(kind, content)| joined(&client.seal_any(*kind, content))).collect();
            let (plain, end) = read(&mut server, &records);
            assert_eq!((plain, end), (Vec::new(), expected), "{name}, {version:?}");
        }
    }
}

#[test]
fn what_costs_work_and_carries_nothing_is_bounded() {
    let authority = Authority::new();
    let empty: Sent = &[(APPLICATION_DATA, &[])];
    let update: Sent = &[(HANDSHAKE, &[24, 0, 0, 1, 0])];
    let canceled: Sent = &[(ALERT, &[1, 90])];
    let in_a_row = usize::from(IN_A_ROW_MAX);
    for (name, sent, version, most, data_resets) in [
        ("empty records", empty, Version::Tls12, in_a_row, true),
        ("empty records", empty, Version::Tls13, in_a_row, true),
        ("key updates", update, Version::Tls13, in_a_row, true),
        ("warnings", canceled, Version::Tls12, 4, false),
        ("warnings", canceled, Version::Tls13, 4, false),
    ] {
        let suite = SUITES.iter().find(|(of, _)| *of == version).expect("a suite").1;
        let (mut client, mut server) = sessions(&authority, suite);
        let send = |client: &mut Session, server: &mut Session| {
            let (kind, content) = sent[0];
            let records = joined(&client.seal_any(kind, content));
            if name == "key updates" {
                client.renew_sealer().expect("new keys");
            }
            read(server, &records).1
        };
        for _ in 0..most {
            assert_eq!(send(&mut client, &mut server), Ok(Received::Nothing), "{name}, {version:?}");
        }
        let data = sealed(&mut client, &list_of(b"x"));
        assert_eq!(read(&mut server, &data).0, b"x", "{name}, {version:?}: data after {most}");
        let expected = if data_resets { Ok(Received::Nothing) } else { Err(Kind::Misbehaved) };
        assert_eq!(send(&mut client, &mut server), expected, "{name}, {version:?}: one more after data");
        for _ in 1..most {
            let _ = send(&mut client, &mut server);
        }
        assert_eq!(
            send(&mut client, &mut server),
            Err(Kind::Misbehaved),
            "{name}, {version:?}: one too many"
        );
    }
}

#[test]
fn records_are_as_long_as_the_protocol_allows_and_no_longer() {
    let authority = Authority::new();
    for (version, suite) in SUITES {
        let (mut client, mut server) = sessions(&authority, suite);
        let full = joined(&client.seal_any(APPLICATION_DATA, &[7; PLAIN_MAX]));
        let (plain, end) = read(&mut server, &full);
        assert_eq!((plain.len(), end), (PLAIN_MAX, Ok(Received::Nothing)), "{version:?}");
        let more = joined(&client.seal_any(APPLICATION_DATA, &[7; PLAIN_MAX + 1]));
        assert_eq!(read(&mut server, &more), (Vec::new(), Err(Kind::Misbehaved)), "{version:?}");
    }
    for (len, kind) in [(RECORD_MAX - 5, Kind::Tampered), (RECORD_MAX - 4, Kind::Misbehaved)] {
        let (_, mut server) = sessions(&authority, SUITES[1].1);
        let mut record = vec![0; len + 5];
        record[..3].copy_from_slice(&[APPLICATION_DATA, 3, 3]);
        record[3..5].copy_from_slice(&u16::try_from(len).expect("a length").to_be_bytes());
        assert_eq!(read(&mut server, &record).1, Err(kind), "{len} bytes after the header");
    }
}

#[test]
fn a_record_that_comes_twice_or_too_early_is_refused() {
    let authority = Authority::new();
    for (version, suite) in SUITES {
        let (mut client, mut server) = sessions(&authority, suite);
        let first = sealed(&mut client, &list_of(b"first"));
        let second = sealed(&mut client, &list_of(b"second"));
        assert_eq!(read(&mut server, &first).0, b"first");
        assert_eq!(read(&mut server, &first).1, Err(Kind::Tampered), "{version:?}, twice");
        let (mut client, mut server) = sessions(&authority, suite);
        let _lost = sealed(&mut client, &list_of(b"first"));
        let early = sealed(&mut client, &list_of(b"second"));
        assert_eq!(read(&mut server, &early).1, Err(Kind::Tampered), "{version:?}, too early");
        drop(second);
    }
}

#[test]
fn both_directions_go_on_after_key_updates_of_either_side() {
    let authority = Authority::new();
    for ours in [Ours::Client, Ours::Server] {
        let mut pair = Pair::new(&authority, ours, CipherSuite::TLS13_AES_256_GCM_SHA384);
        // Ours changes its keys every third record, the peer when it is told to.
        pair.ours.limit_records(5);
        for round in 0..12_u8 {
            pair.peer.refresh_traffic_keys().expect("a key update");
            let records = pair.peer_sends(&[round; 100]);
            assert_eq!(read(&mut pair.ours, &records), (vec![round; 100], Ok(Received::Nothing)));
            let records = sealed(&mut pair.ours, &list_of(&[round; 200]));
            assert_eq!(pair.peer_reads(&records), Ok(vec![round; 200]), "{ours:?}, round {round}");
        }
    }
}

#[test]
fn keys_of_tls12_end_with_their_allowance() {
    let authority = Authority::new();
    let (mut client, mut server) = sessions(&authority, SUITES[0].1);
    // One record, the handshake's last, is behind it.
    client.limit_records(1 + 3 + 2);
    for _ in 0..3 {
        let records = sealed(&mut client, &list_of(b"x"));
        assert_eq!(read(&mut server, &records).0, b"x");
    }
    let refused = client.seal(&list_of(b"x"), 0).err().map(|error| error.kind);
    assert_eq!(refused, Some(Kind::Exhausted));
    let goodbye = client.goodbye().expect("an alert");
    assert_eq!(read(&mut server, &joined(&goodbye)).1, Ok(Received::End));
}

#[test]
fn a_failure_is_told_to_the_peer_once_and_stays() {
    let authority = Authority::new();
    for (version, suite) in SUITES {
        let mut pair = Pair::new(&authority, Ours::Server, suite);
        let mut records = pair.peer_sends(b"payload");
        *records.last_mut().expect("a record") ^= 1;
        for _ in 0..2 {
            assert_eq!(read(&mut pair.ours, &records).1, Err(Kind::Tampered), "{version:?}");
        }
        assert_eq!(pair.ours.seal(&list_of(b"x"), 0).err().map(|error| error.kind), Some(Kind::Tampered));
        let goodbye = pair.ours.goodbye().expect("an alert");
        let told = pair.peer_reads(&joined(&goodbye));
        assert_eq!(told, Err(Error::AlertReceived(AlertDescription::BadRecordMac)), "{version:?}");
        assert!(pair.ours.goodbye().is_none());
    }
}

#[test]
fn goodbyes_are_understood_both_ways() {
    let authority = Authority::new();
    for (version, suite) in SUITES {
        let mut pair = Pair::new(&authority, Ours::Client, suite);
        pair.peer.send_close_notify();
        let records = super::peer::written(&mut pair.peer);
        assert_eq!(read(&mut pair.ours, &records).1, Ok(Received::End), "{version:?}");
        let goodbye = joined(&pair.ours.goodbye().expect("an alert"));
        assert_eq!(pair.peer_reads(&goodbye), Ok(Vec::new()));
        let state = pair.peer.process_new_packets().expect("no error");
        assert!(state.peer_has_closed(), "{version:?}");
    }
}

#[test]
fn a_client_declines_one_renegotiation_by_a_warning_and_ends_at_the_second() {
    let authority = Authority::new();
    let (mut client, mut server) = sessions(&authority, SUITES[0].1);
    let wish = joined(&server.seal_any(HANDSHAKE, &[0, 0, 0, 0]));
    assert_eq!(read(&mut client, &wish).1, Ok(Received::Nothing));
    let records = sealed(&mut client, &list_of(b"x"));
    assert_eq!(&records[..3], &[ALERT, 3, 3]);
    // The server takes the warning for what it is, and the data behind it.
    assert_eq!(read(&mut server, &records), (b"x".to_vec(), Ok(Received::Nothing)));
    let wish = joined(&server.seal_any(HANDSHAKE, &[0, 0, 0, 0]));
    assert_eq!(read(&mut client, &wish).1, Err(Kind::Misbehaved));
}

#[test]
fn tickets_are_taken_whole_or_in_parts_up_to_their_bound() {
    let authority = Authority::new();
    for (len, expected) in [
        (100, Ok(Received::Nothing)),
        (HANDSHAKE_MAX - 13, Ok(Received::Nothing)),
        (HANDSHAKE_MAX - 12, Err(Kind::Misbehaved)),
    ] {
        let (mut client, mut server) = sessions(&authority, SUITES[1].1);
        let message = ticket(len);
        let mut records = Vec::new();
        for part in message.chunks(PLAIN_MAX - 1000) {
            records.append(&mut joined(&server.seal_any(HANDSHAKE, part)));
        }
        assert_eq!(read(&mut client, &records).1, expected, "a ticket of {len} bytes");
        if expected.is_ok() {
            let data = sealed(&mut server, &list_of(b"x"));
            assert_eq!(read(&mut client, &data).0, b"x");
        }
    }
    let (mut client, mut server) = sessions(&authority, SUITES[1].1);
    let torn = joined(&server.seal_any(HANDSHAKE, &[4, 0, 0, 3, 1, 2, 3]));
    assert_eq!(read(&mut client, &torn).1, Err(Kind::Misbehaved));
}

/// A NewSessionTicket (RFC 8446 section 4.6.1) with a ticket of `len` bytes: 13 bytes more after its header.
fn ticket(len: usize) -> Vec<u8> {
    let mut body = vec![0, 0, 14, 16, 1, 2, 3, 4, 0];
    body.extend(u16::try_from(len).expect("a length").to_be_bytes());
    body.resize(body.len() + len, 7);
    body.extend([0, 0]);
    let mut message = vec![4];
    message.extend(&u32::try_from(body.len()).expect("a length").to_be_bytes()[1..]);
    message.append(&mut body);
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_a_peer_with_the_keys_sends_only_its_data_before_the_first_fault_is_read(
        version in 0..2_usize,
        sent in prop::collection::vec((0..8_u8, prop::collection::vec(any::<u8>(), 0..12)), 0..12),
        chunk in 1..200_usize,
    ) {
        let authority = Authority::new();
        let (mut client, mut server) = sessions(&authority, SUITES[version].1);
        let (mut data, mut records) = (Vec::new(), Vec::new());
        for (choice, bytes) in sent {
            let (kind, content) = match choice {
                0 => (ALERT, vec![1, 90]),
                1 => (ALERT, bytes),
                2 => (HANDSHAKE, vec![24, 0, 0, 1, bytes.len() as u8 % 3]),
                3 => (HANDSHAKE, bytes),
                4 => (bytes.first().copied().unwrap_or(0), bytes),
                _ => (APPLICATION_DATA, bytes),
            };
            if kind == APPLICATION_DATA {
                data.extend_from_slice(&content);
            }
            records.append(&mut joined(&client.seal_any(kind, &content)));
            if choice == 2 {
                // A server of TLS 1.2 refuses the update before new keys would matter.
                let _ = client.renew_sealer();
            }
        }
        let (read, end) = ours_reads(&mut server, &records, || chunk, || 5);
        prop_assert!(data.starts_with(&read), "{:?} is read of {:?}", read, data);
        prop_assert!(end.is_err() || matches!(end, Ok(Received::End)) || read == data);
        prop_assert_eq!(rented_pages(), 0);
    }
}
