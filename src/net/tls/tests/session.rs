//! The session without a socket, against a peer whose record layer is rustls' own.

use super::authority::Authority;
use super::peer::{Ours, Pair, list_of, ours_reads, sealed};
use crate::net::page::{PAGE_BYTES, Page, rented_pages};
use crate::net::send::SendList;
use crate::net::stream::Received;
use crate::net::tls::record::{PLAIN_MAX, RECORD_MAX};
use crate::net::tls::{Kind, Version};
use proptest::prelude::*;
use rustls::CipherSuite;

/// Every suite that is spoken: all of TLS 1.3's, and of TLS 1.2 those for our kind of key.
const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

const SIZES: [usize; 8] =
    [1, 150, PAGE_BYTES - 23, PAGE_BYTES - 22, PAGE_BYTES - 21, PLAIN_MAX, PLAIN_MAX + 1, 200_000];

fn each_pair(test: impl Fn(&str, Pair)) {
    let authority = Authority::new();
    for suite in SUITES {
        for ours in [Ours::Client, Ours::Server] {
            test(&format!("{suite:?}, ours is the {ours:?}"), Pair::new(&authority, ours, suite));
        }
    }
}

fn some_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn bytes_pass_both_ways_in_every_suite_and_size() {
    each_pair(|name, mut pair| {
        let is_tls13 = pair.agreed.version == Version::Tls13;
        assert_eq!(is_tls13, name.starts_with("TLS13"), "{name}");
        for size in SIZES {
            let bytes = some_bytes(size);
            let records = sealed(&mut pair.ours, &list_of(&bytes));
            assert_eq!(pair.peer_reads(&records), Ok(bytes.clone()), "{name}, {size} bytes sent");
            let records = pair.peer_sends(&bytes);
            let (read, end) = ours_reads(&mut pair.ours, &records, || RECORD_MAX, || PAGE_BYTES);
            assert!(
                read == bytes && matches!(end, Ok(Received::Nothing)),
                "{name}, {size} bytes read, {end:?}"
            );
        }
        assert_eq!(rented_pages(), 0, "{name}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunking_gives_the_same_bytes(
        suite in 0..SUITES.len(),
        parts in prop::collection::vec(0..40_000_usize, 1..6),
        chunks in prop::collection::vec(1..20_000_usize, 1..20),
        rooms in prop::collection::vec(1..20_000_usize, 1..20),
        tiny: bool,
    ) {
        let mut pair = Pair::new(&Authority::new(), Ours::Client, SUITES[suite]);
        let divide = if tiny { 100 } else { 1 };
        let mut list = SendList::new();
        let mut expected = Vec::new();
        let mut records = Vec::new();
        for part in &parts {
            let bytes = some_bytes(part / divide);
            let mut page = Page::with_room(bytes.len());
            page.append(&bytes);
            list.push_copy(&bytes[..bytes.len() / 3]);
            list.push_slice(page.slice(bytes.len() / 3..bytes.len()));
            records.extend(pair.peer_sends(&bytes));
            expected.extend(bytes);
        }
        let sent = sealed(&mut pair.ours, &list);
        let peer_read = pair.peer_reads(&sent);
        prop_assert!(peer_read.as_ref() == Ok(&expected), "the peer read other bytes");
        let (mut chunks, mut rooms) = (chunks.iter().cycle(), rooms.iter().cycle());
        let next = |sizes: &mut dyn Iterator<Item = &usize>| sizes.next().map_or(1, |n| n.div_ceil(divide));
        let (read, end) = ours_reads(&mut pair.ours, &records, || next(&mut chunks), || next(&mut rooms));
        prop_assert!(matches!(end, Ok(Received::Nothing)), "{:?}", end);
        prop_assert!(read == expected);
        prop_assert_eq!(rented_pages(), 0);
    }
}

#[test]
fn a_record_that_was_changed_anywhere_is_refused() {
    let authority = Authority::new();
    for suite in SUITES {
        let mut clean = Pair::new(&authority, Ours::Server, suite);
        let length = clean.peer_sends(b"payload").len();
        for place in 0..length {
            let mut pair = Pair::new(&authority, Ours::Server, suite);
            let mut records = pair.peer_sends(b"payload");
            records[place] ^= 0x10;
            // A longer length only makes it wait: give it something to wait for.
            records.resize(length + 20_000, 0);
            let (read, end) = ours_reads(&mut pair.ours, &records, || RECORD_MAX, || PAGE_BYTES);
            let kind = end.map_err(|error| error.kind);
            assert!(read.is_empty(), "{suite:?}, byte {place}: {read:?}");
            assert!(
                matches!(kind, Err(Kind::Tampered | Kind::Misbehaved)),
                "{suite:?}, byte {place}: {kind:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_to_the_ciphertext_only_what_was_sent_is_read(
        suite in 0..SUITES.len(),
        sizes in prop::collection::vec(0..2_000_usize, 1..5),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
        chunk in 1..4_000_usize,
    ) {
        let authority = Authority::new();
        let mut pair = Pair::new(&authority, Ours::Server, SUITES[suite]);
        let (mut expected, mut records) = (Vec::new(), Vec::new());
        for size in sizes {
            records.extend(pair.peer_sends(&some_bytes(size)));
            expected.extend(some_bytes(size));
        }
        for (place, byte, how) in changes {
            if records.is_empty() {
                break;
            }
            let place = place.index(records.len());
            match how {
                0 => records[place] ^= byte,
                1 => records.truncate(place),
                2 => records.insert(place, byte),
                _ => drop(records.drain(place..(place + usize::from(byte)).min(records.len()))),
            }
        }
        let (read, _) = ours_reads(&mut pair.ours, &records, || chunk, || 777);
        prop_assert!(expected.starts_with(&read), "{} bytes read", read.len());
        // It asked for none once: a changed length that makes it wait with more than `REST_SMALL_BYTES` keeps one.
        prop_assert!(rented_pages() <= 1);
        drop(pair);
        prop_assert_eq!(rented_pages(), 0);
    }
}
