//! Settings that cannot work name their file and what is wrong with it.

use super::authority::{Authority, NAME};
use crate::net::tls::{ClientSide, MinVersion, Roots, ServerSide, server_name};
use std::path::Path;

#[test]
fn a_setting_that_cannot_work_is_refused_by_name_and_reason() {
    let authority = Authority::new();
    let (leaf, other) = (authority.leaf(), authority.leaf_with("other", |_| {}));
    let torn = authority.file("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let noise = authority.file("noise.pem", "-----BEGIN CERTIFICATE-----\n?!?\n-----END CERTIFICATE-----\n");
    let short = authority.file("short.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = authority.file("locked.key", locked);
    let odd = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    let odd = authority.file("odd.key", odd);
    let empty = authority.file("empty.pem", "");
    let absent = authority.file("x", "").with_file_name("absent.pem");
    let cases: [(&str, &Path, &Path, &Path, &str); 9] = [
        ("absent chain", &absent, &leaf.key, &absent, "No such file"),
        ("absent key", &leaf.chain, &absent, &absent, "No such file"),
        ("no certificate", &leaf.key, &leaf.key, &leaf.key, "no certificate in it"),
        ("empty chain", &empty, &leaf.key, &empty, "no certificate in it"),
        ("torn chain", &torn, &leaf.key, &torn, "no END line"),
        ("noise", &noise, &leaf.key, &noise, "not base64"),
        ("not a certificate", &short, &leaf.key, &short, "certificate"),
        ("no key", &leaf.chain, &leaf.chain, &leaf.chain, "no private key in it"),
        ("encrypted key", &leaf.chain, &locked, &locked, "without a passphrase"),
    ];
    let server = |chain: &Path, key: &Path| {
        ServerSide::from_files(chain, key, MinVersion::Tls12, &[]).expect_err("a setting that is refused")
    };
    for (name, chain, key, at_fault, reason) in cases {
        let error = server(chain, key);
        assert_eq!(error.file.as_deref(), Some(at_fault), "{name}: {error}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
    }
    let error = server(&leaf.chain, &odd);
    assert_eq!(error.file.as_deref(), Some(&*odd), "{error}");
    let error = server(&leaf.chain, &other.key);
    assert!(error.to_string().contains("does not belong to the certificate in"), "{error}");
    assert_eq!(error.file.as_deref(), Some(&*other.key));
}

#[test]
fn roots_come_from_the_file_that_is_given() {
    let authority = Authority::new();
    let absent = authority.file("x", "").with_file_name("absent.pem");
    let error = ClientSide::new(Roots::File(&absent), MinVersion::Tls12, &[]).expect_err("no such file");
    assert_eq!(error.file.as_deref(), Some(&*absent));
    let roots = authority.roots();
    assert!(ClientSide::new(Roots::File(&roots), MinVersion::Tls13, &["http/1.1"]).is_ok());
}

#[test]
fn names_and_addresses_are_told_from_what_is_neither() {
    for good in [NAME, "localhost", "127.0.0.1", "::1", "[::1]", "xn--bcher-kva.example"] {
        assert!(server_name(good).is_ok(), "{good}");
    }
    for bad in ["", " ", "a b", "bücher.example", "host:443", "-x.example", "a..b", "https://a"] {
        assert!(server_name(bad).is_err(), "{bad}");
    }
}
