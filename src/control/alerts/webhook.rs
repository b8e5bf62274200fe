//! Delivers messages to a webhook: a POST of JSON for each, one after the other, on control.
//!
//! In: messages, which wait in a queue. Out: counts. A delivery is a status of 2xx; redirections are not
//! followed. Who is called, and how, is what the newest generation says.
//! Limits: `QUEUE_MAX` messages wait; a try takes `TRY_MAX` with connecting, TLS and the answer's head; there are
//! `TRIES` of them with growing pauses, and one for each further message until one is delivered. Errors: what
//! cannot be delivered is told on stderr and counted; what finds the queue full is counted. Absent: proxies,
//! connections that are kept, and messages that outlive the process.

use crate::control::tell::tell;
use crate::handler::snapshot::Webhook;
use crate::handler::worker::Published;
use crate::net::resolve;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Messages that wait.
pub const QUEUE_MAX: usize = 1_000;
const TRY_MAX: Duration = Duration::from_secs(5);
const TRIES: u32 = 4;
/// After the first try; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);

/// Where messages wait for their delivery.
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Value>,
    counts: Rc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    delivered: Cell<u64>,
    failed: Cell<u64>,
    dropped: Cell<u64>,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub delivered: u64,
    pub failed: u64,
    /// They found the queue full, or no webhook any more.
    pub dropped: u64,
}

impl Outbox {
    /// Begins to deliver, on the task set that runs.
    pub fn start(published: Arc<Published>) -> Outbox {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let counts = Rc::new(Counts::default());
        tokio::task::spawn_local(deliver_all(waiting, published, Rc::clone(&counts)));
        Outbox { queue, counts }
    }

    /// Leaves a message to be delivered.
    pub fn send(&self, message: Value) {
        if self.queue.try_send(message).is_err() {
            add_one(&self.counts.dropped);
        }
    }

    /// What became of messages so far.
    pub fn sent(&self) -> Sent {
        let Counts { delivered, failed, dropped } = &*self.counts;
        Sent { delivered: delivered.get(), failed: failed.get(), dropped: dropped.get() }
    }
}

async fn deliver_all(mut waiting: mpsc::Receiver<Value>, published: Arc<Published>, counts: Rc<Counts>) {
    let mut tries = TRIES;
    while let Some(message) = waiting.recv().await {
        let body = Bytes::from(message.to_string());
        let mut pause = PAUSE;
        for left in (0..tries).rev() {
            let snapshot = published.newest();
            // A newer generation may have none.
            let Some(webhook) = &snapshot.webhook else {
                add_one(&counts.dropped);
                break;
            };
            let tried = tokio::time::timeout(TRY_MAX, post(webhook, body.clone())).await;
            let error = match tried {
                Ok(Ok(())) => {
                    add_one(&counts.delivered);
                    tries = TRIES;
                    break;
                }
                Ok(Err(error)) => error,
                Err(_) => format!("no answer within {} s", TRY_MAX.as_secs()),
            };
            if left == 0 {
                add_one(&counts.failed);
                tell(format_args!("tollgate: an alert is not delivered to {}: {error}", webhook.host));
                tries = 1;
                break;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

async fn post(webhook: &Webhook, body: Bytes) -> Result<(), String> {
    let addresses = match &*webhook.addresses.current() {
        resolve::Published::Known(addresses) => addresses.clone(),
        resolve::Published::Pending => return Err("its name is not resolved yet".to_owned()),
        resolve::Published::Failed(reason) => return Err(reason.clone()),
    };
    let stream = TcpStream::connect(&*addresses).await.map_err(|error| error.to_string())?;
    match &webhook.tls {
        None => exchange(stream, webhook, body).await,
        Some((side, name)) => {
            let connector = TlsConnector::from(side.config());
            let stream = connector.connect(name.clone(), stream).await.map_err(|error| error.to_string())?;
            exchange(stream, webhook, body).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    webhook: &Webhook,
    body: Bytes,
) -> Result<(), String> {
    let request = Request::post(webhook.target.expose_secret())
        .header("host", &*webhook.authority)
        .header("content-type", "application/json")
        .header("user-agent", concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    let request = match &webhook.token {
        Some(token) => {
            request.header("authorization", [b"Bearer ", token.expose_secret()].concat().as_slice())
        }
        None => request,
    };
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with this call, whatever becomes of it.
    let mut driver = JoinSet::new();
    driver.spawn_local(async move { drop(connection.await) });
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answers {status}")),
    }
}

fn add_one(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::{Outbox, QUEUE_MAX, Sent, post};
    use crate::base::secret::Secret;
    use crate::handler::snapshot::{Snapshot, Webhook};
    use crate::handler::worker::Published;
    use crate::net::resolve::Addresses;
    use crate::net::tls::{ClientSide, MinVersion, Pem, Roots, ServerSide, server_name};
    use hyper::body::Bytes;
    use serde_json::json;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let timed = async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("in time") };
        LocalSet::new().block_on(&runtime, timed);
    }

    async fn listen() -> (TcpListener, Webhook) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let webhook = Webhook {
            host: "localhost".into(),
            authority: format!("localhost:{}", address.port()).into(),
            target: Secret::new("/hook?a=b"),
            addresses: Addresses::known([address]),
            token: Some(Secret::new("t0ken")),
            tls: None,
        };
        (listener, webhook)
    }

    /// Reads one request whole, answers it, and says what it was.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"}") {
            assert!(stream.read_buf(&mut read).await.expect("a request") > 0, "{read:?}");
        }
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a reader");
        String::from_utf8(read).expect("text")
    }

    #[test]
    fn a_message_is_posted_again_until_it_is_taken() {
        run(async {
            let (listener, webhook) = listen().await;
            let authority = webhook.authority.clone();
            let snapshot = Snapshot { webhook: Some(webhook), ..Snapshot::default() };
            let outbox = Outbox::start(Arc::new(Published::new(snapshot)));
            outbox.send(json!({ "percent": 80 }));
            for status in ["500 No", "204 Yes"] {
                let (stream, _) = listener.accept().await.expect("a caller");
                let request = answer(stream, status).await.to_lowercase();
                assert!(request.starts_with("post /hook?a=b http/1.1\r\n"), "{request}");
                assert!(request.ends_with("\r\n\r\n{\"percent\":80}"), "{request}");
                for field in ["authorization: bearer t0ken", &format!("host: {authority}")] {
                    assert!(request.contains(&format!("\r\n{field}\r\n")), "{request}");
                }
            }
            while outbox.sent() != (Sent { delivered: 1, ..Sent::default() }) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    #[test]
    fn a_message_goes_over_tls_to_whom_the_certificate_is_for() {
        run(async {
            let (listener, mut webhook) = listen().await;
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            let pem = |text: &'static str, of| Pem { path: Path::new(text), text: of };
            let server = ServerSide::from_pem(
                pem("chain", chain.as_bytes()),
                pem("key", key.as_bytes()),
                MinVersion::default(),
                &["http/1.1"],
            );
            let acceptor = tokio_rustls::TlsAcceptor::from(server.expect("a pair").config());
            let roots = Roots::Pem(pem("chain", chain.as_bytes()));
            let side = ClientSide::new(roots, MinVersion::default(), &["http/1.1"]).expect("roots");
            webhook.tls = Some((side.clone(), server_name("localhost").expect("a name")));
            let body = || Bytes::from_static(b"{}");
            let serve = async {
                let (stream, _) = listener.accept().await.expect("a caller");
                answer(acceptor.accept(stream).await.expect("a handshake"), "200 OK").await
            };
            let (posted, request) = tokio::join!(post(&webhook, body()), serve);
            assert_eq!(posted, Ok(()), "{request}");
            webhook.tls = Some((side, server_name("elsewhere").expect("a name")));
            let refuse =
                async { acceptor.accept(listener.accept().await.expect("a caller").0).await.is_err() };
            let (posted, refused) = tokio::join!(post(&webhook, body()), refuse);
            assert!(refused && posted.is_err(), "{posted:?}");
        });
    }

    #[test]
    fn what_is_no_delivery_is_an_error() {
        run(async {
            let (listener, mut webhook) = listen().await;
            for status in ["302 Elsewhere", "404 None", "503 Later"] {
                let serve = async { answer(listener.accept().await.expect("a caller").0, status).await };
                let (posted, _) = tokio::join!(post(&webhook, Bytes::from_static(b"{}")), serve);
                assert!(posted.clone().is_err_and(|error| error.contains(&status[..3])), "{posted:?}");
            }
            let hang_up = async { drop(listener.accept().await) };
            let (posted, ()) = tokio::join!(post(&webhook, Bytes::from_static(b"{}")), hang_up);
            assert!(posted.is_err(), "{posted:?}");
            drop(listener);
            assert!(post(&webhook, Bytes::new()).await.is_err(), "nobody listens");
            webhook.addresses = Addresses::pending();
            assert!(post(&webhook, Bytes::new()).await.is_err(), "no address");
        });
    }

    #[test]
    fn a_full_queue_is_counted() {
        run(async {
            let outbox = Outbox::start(Arc::new(Published::new(Snapshot::default())));
            (0..QUEUE_MAX + 2).for_each(|at| outbox.send(json!(at)));
            assert_eq!(outbox.sent(), Sent { dropped: 2, ..Sent::default() });
        });
    }
}
