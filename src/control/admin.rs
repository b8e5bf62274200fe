//! The admin listener: metrics, health, the config that serves. On control, on loopback or a unix socket, or
//! behind a token, a client certificate, or both.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while it takes requests, 503 while it drains |
//! | `/metrics` | Prometheus text |
//! | `/admin/v1/config` | the config that serves, with every default, secrets masked |
//! | `/admin/v1/limits?owner=team:blue&over=80` | how full limits are: an owner's, those filled to 80 percent |
//! | `/admin/v1/usage?by=key,model&since=24h&until=...` | what was used, as `tollgate usage --format json` |
//!
//! Health and readiness need neither: a load balancer has none. Certificates are those of the newest
//! generation. Limits: `CONNECTIONS_MAX`; `REQUEST_TIMEOUT` for a head and for a TLS handshake. Absent: changing
//! anything; that is done by editing the config.

pub mod place;

use crate::base::clock;
use crate::base::secret::Secret;
use crate::control::ledger::query::Query;
use crate::control::limits::Selection;
use crate::control::tell::tell;
use crate::handler::snapshot::AdminTls;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use place::Place;
use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

const CONNECTIONS_MAX: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the pages are made of.
pub trait Pages {
    fn is_ready(&self) -> bool;
    fn metrics(&self) -> String;
    fn config(&self) -> String;
    /// How full limits are.
    fn limits(&self, selection: &Selection) -> String;
    /// What callers must present; none: the address protects it.
    fn token(&self) -> Option<Secret>;
    /// None: callers speak plain HTTP.
    fn tls(&self) -> Option<AdminTls>;
    /// Where the ledger stands; none: none is kept.
    fn ledger(&self) -> Option<PathBuf>;
}

/// What a connection says of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Unknown,
    /// It has presented a certificate that was asked for.
    Certified,
}

/// Answers until it is dropped, or has left its place to a successor: it looks for one once `draining` is
/// told.
pub async fn serve(mut place: Place, pages: Rc<dyn Pages>, draining: Rc<Notify>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = place.accept() => accepted,
            () = draining.notified() => {
                drop(seat);
                let take = |caller| match Arc::clone(&seats).try_acquire_owned() {
                    Ok(seat) => welcome(caller, &pages, seat),
                    Err(_) => drop(caller),
                };
                match place.unless_taken_over(take) {
                    Ok(Some(kept)) => place = kept,
                    Ok(None) => return,
                    Err(error) => return tell(format_args!("tollgate: the admin listener is lost: {error}")),
                }
                continue;
            }
        };
        match accepted {
            Ok(caller) => welcome(caller, &pages, seat),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn welcome(caller: place::Caller, pages: &Rc<dyn Pages>, seat: OwnedSemaphorePermit) {
    let pages = Rc::clone(pages);
    match caller {
        place::Caller::Tcp(stream) => drop(tokio::task::spawn_local(over_tcp(stream, pages, seat))),
        place::Caller::Unix(stream) => {
            drop(tokio::task::spawn_local(connection(stream, Caller::Unknown, pages, seat)));
        }
    }
}

async fn over_tcp(stream: tokio::net::TcpStream, pages: Rc<dyn Pages>, seat: OwnedSemaphorePermit) {
    let Some(tls) = pages.tls() else { return connection(stream, Caller::Unknown, pages, seat).await };
    let handshake = TlsAcceptor::from(tls.side.config()).accept(stream);
    // A caller that fails here is told by TLS itself.
    let Ok(Ok(stream)) = tokio::time::timeout(REQUEST_TIMEOUT, handshake).await else { return };
    let caller = match stream.get_ref().1.peer_certificates() {
        Some([_, ..]) => Caller::Certified,
        _ => Caller::Unknown,
    };
    connection(stream, caller, pages, seat).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    caller: Caller,
    pages: Rc<dyn Pages>,
    seat: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(&request, caller, &*pages);
        async move {
            Ok::<_, Infallible>(match answered {
                Answer::Now(response) => response,
                Answer::Usage(query, directory) => usage(query, directory).await,
            })
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A caller that breaks off is no news.
    let _ = served.await;
    drop(seat);
}

/// What a request gets.
enum Answer {
    Now(Response<Full<Bytes>>),
    /// What the ledger at this directory answers.
    Usage(Query, PathBuf),
}

/// Asks the ledger, on a thread that may wait for the disk.
async fn usage(query: Query, directory: PathBuf) -> Response<Full<Bytes>> {
    let asked = tokio::task::spawn_blocking(move || {
        query.ask(&directory).map(|answer| format!("{:#}\n", answer.json()))
    });
    match asked.await {
        Ok(Ok(body)) => typed(StatusCode::OK, "application/json", body),
        Ok(Err(error)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn answer<B>(request: &Request<B>, caller: Caller, pages: &dyn Pages) -> Answer {
    if let Some(refused) = refuse(request, caller, pages) {
        return Answer::Now(refused);
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/admin/v1/usage" => {}
        "/admin/v1/limits" => {
            return Answer::Now(match Selection::from_url(query) {
                Ok(selection) => typed(StatusCode::OK, "application/json", pages.limits(&selection)),
                Err(message) => text(StatusCode::BAD_REQUEST, format!("{message}\n")),
            });
        }
        path => return Answer::Now(page(path, pages)),
    }
    let Some(directory) = pages.ledger() else {
        return Answer::Now(text(
            StatusCode::NOT_FOUND,
            "no ledger is kept: the config has no [ledger]\n".to_owned(),
        ));
    };
    match Query::from_url(query, clock::unix_ms()) {
        Ok(query) => Answer::Usage(query, directory),
        Err(message) => Answer::Now(text(StatusCode::BAD_REQUEST, format!("{message}\n"))),
    }
}

/// What is answered without looking at anything, or with a refusal.
fn refuse<B>(request: &Request<B>, caller: Caller, pages: &dyn Pages) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Some(text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are taken here\n".to_owned()));
    }
    match path {
        "/healthz" => return Some(text(StatusCode::OK, "ok\n".to_owned())),
        "/readyz" if pages.is_ready() => return Some(text(StatusCode::OK, "ready\n".to_owned())),
        "/readyz" => return Some(text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())),
        _ => {}
    }
    if caller != Caller::Certified && pages.tls().is_some_and(|tls| tls.wants_certificate) {
        return Some(text(StatusCode::FORBIDDEN, "a client certificate is wanted\n".to_owned()));
    }
    if !may_read(request, pages.token()) {
        return Some(text(
            StatusCode::UNAUTHORIZED,
            "the admin token is wanted: authorization: Bearer TOKEN\n".to_owned(),
        ));
    }
    None
}

fn page(path: &str, pages: &dyn Pages) -> Response<Full<Bytes>> {
    match path {
        "/metrics" => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", pages.metrics()),
        "/admin/v1/config" => typed(StatusCode::OK, "application/json", pages.config()),
        _ => {
            let known = "/healthz /readyz /metrics /admin/v1/config /admin/v1/limits /admin/v1/usage";
            text(StatusCode::NOT_FOUND, format!("known here: {known}\n"))
        }
    }
}

fn may_read<B>(request: &Request<B>, token: Option<Secret>) -> bool {
    let Some(token) = token else { return true };
    let presented = request.headers().get("authorization").map_or(&[][..], |value| value.as_bytes());
    let presented = presented.strip_prefix(b"Bearer ").unwrap_or_default();
    presented.ct_eq(token.expose_secret()).into()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::{Answer, Caller, Pages, answer};
    use crate::base::secret::Secret;
    use crate::control::limits::Selection;
    use crate::handler::snapshot::AdminTls;
    use hyper::Request;
    use std::path::PathBuf;

    struct Fixed {
        ready: bool,
        token: Option<Secret>,
    }

    impl Pages for Fixed {
        fn is_ready(&self) -> bool {
            self.ready
        }
        fn metrics(&self) -> String {
            "m 1\n".to_owned()
        }
        fn config(&self) -> String {
            "{}".to_owned()
        }
        fn limits(&self, selection: &Selection) -> String {
            format!("{selection:?}")
        }
        fn token(&self) -> Option<Secret> {
            self.token.clone()
        }
        fn tls(&self) -> Option<AdminTls> {
            None
        }
        fn ledger(&self) -> Option<PathBuf> {
            self.ready.then(PathBuf::new)
        }
    }

    #[test]
    fn each_path_has_its_answer_and_the_token_guards_all_but_health() {
        let token = || Some(Secret::new("t0ken"));
        // ready, token, path, presented, status
        let rows = [
            (true, None, "/healthz", "", 200),
            (true, None, "/readyz", "", 200),
            (false, None, "/readyz", "", 503),
            (false, token(), "/healthz", "", 200),
            (true, None, "/metrics", "", 200),
            (true, token(), "/metrics", "", 401),
            (true, token(), "/metrics", "Bearer t0ke", 401),
            (true, token(), "/metrics", "Bearer t0ken", 200),
            (true, token(), "/admin/v1/config", "t0ken", 401),
            (true, None, "/admin/v1/config", "", 200),
            (true, token(), "/admin/v1/limits", "Bearer t0ke", 401),
            (true, None, "/admin/v1/limits?owner=blue&over=80", "", 200),
            (true, None, "/admin/v1/limits?over=much", "", 400),
            (true, None, "/other", "", 404),
            (true, token(), "/admin/v1/usage", "Bearer t0ke", 401),
            (true, None, "/admin/v1/usage?by=nothing", "", 400),
            (false, None, "/admin/v1/usage?by=key", "", 404),
            // The ledger is asked.
            (true, token(), "/admin/v1/usage?by=key&since=1h", "Bearer t0ken", 0),
        ];
        for (ready, token, path, presented, status) in rows {
            let request = Request::get(path).header("authorization", presented).body(()).expect("a request");
            let got = match answer(&request, Caller::Unknown, &Fixed { ready, token }) {
                Answer::Now(response) => response.status().as_u16(),
                Answer::Usage(query, _) => {
                    assert_eq!(query.by, ["key"]);
                    0
                }
            };
            assert_eq!(got, status, "{path} {presented}");
        }
    }
}
