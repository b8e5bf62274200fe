//! The tunnel through an HTTP proxy: CONNECT, and the proxy's answer.
//!
//! Input: a connection to the proxy. Output: the same connection, which now leads to the origin. Plain HTTP
//! goes through a tunnel as well, so that a proxy never reads a request.
//! Limits: the answer's head as every head (`head`); the caller's deadline.
//! Errors: `Which::Proxy` with the status; 0 where no answer came that is one.
//! Absent: requests in absolute form, SOCKS, other authentication than Basic, TLS to the proxy itself.
//! Source: RFC 9110 sections 9.3.6 and 11.7.1, RFC 7617.

use super::failure::{ConnectFailure, Which};
use super::head::HeadReader;
use super::origin::{Proxy, authority};
use crate::base::secret::Secret;
use crate::codec::http1::{Asked, HeadWriter};
use crate::net::conn::Conn;
use crate::net::send::SendList;

/// Lets the proxy behind `conn` connect to `host` and `port`; `conn` leads there then.
pub(super) async fn tunnel(conn: &Conn, proxy: &Proxy, host: &str, port: u16) -> Result<(), ConnectFailure> {
    let request = request(proxy, &authority(host, port))?;
    let broken = |message: String| ConnectFailure::new(Which::Proxy(0), message);
    conn.send(request).await.map_err(|_| broken("the proxy closed the connection".to_owned()))?;
    let mut head = HeadReader::new(Asked::Connect);
    head.read(conn).await.map_err(|error| broken(format!("no tunnel from the proxy: {error}")))?;
    let Some((answer, unread)) = head.take() else {
        return Err(broken("no tunnel from the proxy".to_owned()));
    };
    match answer.status {
        // The origin speaks only when spoken to, and nobody has spoken to it yet.
        200..300 if unread.is_none() => Ok(()),
        200..300 => Err(broken("the proxy sent bytes before the origin could".to_owned())),
        status => {
            let message = format!("the proxy answered {status} instead of opening a tunnel");
            Err(ConnectFailure::new(Which::Proxy(status), message))
        }
    }
}

fn request(proxy: &Proxy, authority: &str) -> Result<SendList, ConnectFailure> {
    let mut list = SendList::new();
    let mut written = Ok(());
    list.push_with(|own| {
        let mut head = HeadWriter::request(own, "CONNECT", authority);
        head.field(b"host", authority.as_bytes());
        if let Some(credential) = &proxy.credential {
            head.field(b"proxy-authorization", &basic(credential));
        }
        written = head.finish();
    });
    written
        .map_err(|fault| ConnectFailure::new(Which::Proxy(0), format!("no request to the proxy: {fault}")))?;
    Ok(list)
}

/// `Basic` and the credential in base 64 (RFC 4648 section 4).
fn basic(credential: &Secret) -> Vec<u8> {
    let mut value = b"Basic ".to_vec();
    for group in credential.expose_secret().chunks(3) {
        let at = |n| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * n) & 63).unwrap_or(0);
            value.push(if n <= group.len() { ALPHABET[digit] } else { b'=' });
        }
    }
    value
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::super::stage::{Peer, hear, hear_end, join, on_each_driver, origin_with, pools, say};
    use super::basic;
    use crate::base::error::Timer;
    use crate::base::secret::Secret;
    use crate::net::resolve::Addresses;
    use crate::net::upstream::{Origin, Proxy, Settings, Which};
    use std::sync::Arc;

    const CONNECT: &[u8] = b"CONNECT api.test:443 HTTP/1.1\r\nhost: api.test:443\r\n\
        proxy-authorization: Basic dXNlcjpwYXNz\r\n\r\n";

    /// An origin that nobody resolves, behind the peer.
    fn origin(peer: &Peer) -> Arc<Origin> {
        let proxy = Proxy {
            host: "proxy.test".to_owned(),
            port: 3128,
            addresses: Addresses::known([peer.address]),
            credential: Some(Secret::new("user:pass")),
        };
        origin_with(|settings| Settings {
            host: "api.test".to_owned(),
            port: 443,
            addresses: Addresses::pending(),
            proxy: Some(proxy),
            ..settings
        })
    }

    #[test]
    fn a_tunnel_is_opened_once_and_its_connection_is_used_again() {
        on_each_driver(async || {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = origin(&peer);
            let proxy = async {
                let end = peer.accept().await;
                hear(&end, CONNECT).await;
                say(&end, b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n").await;
                end
            };
            let (lease, end) = join(pools.checkout(&origin), proxy).await;
            let lease = lease.expect("a tunnel");
            say(&lease, b"ping").await;
            hear(&end, b"ping").await;
            lease.give_back();
            assert!(pools.checkout(&origin).await.expect("the tunnel").reused);
            assert_eq!(counters.opened.value(), 1);
        });
    }

    #[test]
    fn what_is_no_tunnel_is_told_with_the_proxys_status() {
        let no_tunnel = "no tunnel from the proxy: the upstream's answer has an invalid head: no status line";
        let closed = "no tunnel from the proxy: the upstream closed the connection without an answer";
        on_each_driver(async || {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = origin(&peer);
            for (answer, status, message) in [
                ("HTTP/1.1 407 No\r\n\r\n", 407, "the proxy answered 407 instead of opening a tunnel"),
                ("HTTP/1.0 502 No\r\n\r\nno", 502, "the proxy answered 502 instead of opening a tunnel"),
                ("HTTP/1.1 200 Yes\r\n\r\n\x16", 0, "the proxy sent bytes before the origin could"),
                ("SSH-2.0\r\n", 0, no_tunnel),
                ("", 0, closed),
            ] {
                let proxy = async {
                    let end = peer.accept().await;
                    hear(&end, CONNECT).await;
                    say(&end, answer.as_bytes()).await;
                };
                let (lease, ()) = join(pools.checkout(&origin), proxy).await;
                let failure = lease.err().expect("no tunnel");
                assert_eq!((failure.which, &*failure.message), (Which::Proxy(status), message));
                assert_eq!(failure.address, Some(peer.address));
            }
            assert_eq!((counters.open.value(), counters.failed.value()), (0, 5));
        });
    }

    #[test]
    fn a_proxy_that_says_nothing_is_a_connect_timeout() {
        on_each_driver(async || {
            let (peer, (pools, counters)) = (Peer::listen(), pools());
            let origin = origin(&peer);
            let proxy = async {
                let end = peer.accept().await;
                hear(&end, CONNECT).await;
                hear_end(&end).await;
            };
            let (lease, ()) = join(pools.checkout(&origin), proxy).await;
            let failure = lease.err().expect("no tunnel");
            assert_eq!(failure.which, Which::Timeout(Timer::Connect));
            assert_eq!(failure.message, "no tunnel from the proxy within 200 ms (connect_ms)");
            assert_eq!(counters.open.value(), 0);
        });
    }

    #[test]
    fn a_credential_is_written_in_base_64() {
        for (credential, expected) in [
            ("", "Basic "),
            ("f", "Basic Zg=="),
            ("fo", "Basic Zm8="),
            ("foo", "Basic Zm9v"),
            ("foobar", "Basic Zm9vYmFy"),
            ("\u{ff}\u{3bf}", "Basic w7/Ovw=="),
        ] {
            let value = basic(&Secret::new(credential));
            assert_eq!(String::from_utf8_lossy(&value), expected, "{credential}");
        }
    }
}
