//! The config as written: one type per section, one field per key.
//!
//! These types are the only definition of the file's shape: serde reads it, `schema` derives the JSON schema
//! and the reference page from them, and `shape` checks a file against that schema so that every fault is
//! told with its place. The comment of a field is its text in the reference. Defaults are those of the
//! compiled forms. Absent: meaning. What can only be judged by looking at two keys, or outside of the file,
//! is judged by `compile`.

mod limit;

pub use limit::{
    AddressLimits, AtLimit, Budget, Budgets, Catalogue, Decimal, Limits, Mode, Organisation, Percent, Period,
    Team, Unpriced, Weekday,
};

use crate::handler::snapshot;
use crate::llm::provider::UpstreamTimeouts;
use crate::net::upstream;
use crate::policy::auth;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The file that `tollgate run` is given.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Further files with `[[provider]]`, `[[model]]`, `[[organisation]]`, `[[team]]`, `[[key]]` and
    /// `[[passthrough]]` entries, relative to this file. The last part of a path may have one `*`:
    /// `keys.d/*.toml`. Files are read in the order of their names; included files include nothing.
    #[schemars(length(max = 100))]
    pub include: Vec<String>,
    /// The process.
    pub server: Server,
    /// A place where clients connect; at least one.
    pub listener: Vec<Listener>,
    /// Where operators connect: `/metrics`, `/healthz`, `/readyz` and the admin API: `/admin/v1/config`,
    /// `/admin/v1/limits?owner=team:blue&over=80` (how full limits are: an owner's, those filled to 80 percent),
    /// `/admin/v1/usage?by=key,model&since=24h`. Without this section there is none.
    pub admin: Option<Admin>,
    /// How much of everything one worker accepts.
    pub limit: Limit,
    /// How long each step may take, in milliseconds; 0: no limit.
    pub timeout: Timeout,
    /// How answers are relayed.
    pub relay: Relay,
    /// Where records go.
    pub log: Log,
    /// Who is told when a budget reaches one of its `alerts`, beside stderr and `/metrics`.
    pub alerts: Alerts,
    /// What each key usually does, learned from the ledger: much more than usual, a new model or a new network may be a
    /// stolen key. Without `[ledger]` nothing is learned.
    pub baseline: Baseline,
    /// What is kept of every request: a durable record, and what limits have counted. Without this section limits
    /// live in memory and nothing is recorded.
    pub ledger: Option<Ledger>,
    /// Who is called.
    pub provider: Vec<Provider>,
    /// What clients may ask for, and where it leads.
    pub model: Vec<Model>,
    /// Teams under one limit or budget.
    pub organisation: Vec<Organisation>,
    /// Keys under one limit or budget.
    pub team: Vec<Team>,
    /// What models cost, read and write. Without this section: the list that is built in
    /// (`conf/models.toml`).
    pub catalogue: Catalogue,
    /// Who may ask. `tollgate keys new NAME` makes a key and prints its entry.
    pub key: Vec<Key>,
    /// A path under which a provider's own paths are reached as they are, for what no surface covers (files,
    /// batches, audio). The model is not looked at: a key needs `passthrough` to use it.
    pub passthrough: Vec<Passthrough>,
}

/// A file named by `include`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-hint" = "all else stands in the main file"))]
pub struct IncludedFile {
    pub provider: Vec<Provider>,
    pub model: Vec<Model>,
    pub organisation: Vec<Organisation>,
    pub team: Vec<Team>,
    pub key: Vec<Key>,
    pub passthrough: Vec<Passthrough>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Workers, each a thread on a core of its own: a number, or `"auto"` for one per core that this process
    /// may use.
    pub workers: Workers,
    /// How workers wait for sockets: `"auto"` takes io_uring and, where the kernel forbids it, epoll.
    pub driver: Driver,
    /// How long a shutdown waits for open streams, in milliseconds; 0: until they end.
    #[schemars(range(max = 86_400_000))]
    pub drain_timeout_ms: u64,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Workers {
    Auto(Auto),
    Count(#[schemars(range(min = 1, max = 1024))] u16),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    Auto,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers::Auto(Auto::Auto)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    #[default]
    Auto,
    Ring,
    Epoll,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port: `"0.0.0.0:8080"`, `"[::]:8080"`. Port 0 is any free one; which, is told at start.
    pub address: String,
    /// Certificate of this listener; without it clients speak plain HTTP.
    pub tls: Option<ServerTls>,
    /// What all its clients may use together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What each client address may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_limits: Option<AddressLimits>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// File with the certificate chain in PEM, the server's own first.
    #[schemars(length(min = 1))]
    pub cert: String,
    /// File with the private key in PEM, without a passphrase.
    #[schemars(length(min = 1))]
    pub key: String,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// IP address and port, or `"unix:PATH"`. An address that is not loopback needs
    /// `token` or `tls` with `client_ca`.
    pub address: String,
    /// What callers present as `authorization: Bearer TOKEN`, at least 16 bytes. `/healthz` and `/readyz`
    /// need none.
    pub token: Option<Credential>,
    /// Certificate of this listener; without it callers speak plain HTTP. Not for a socket file.
    pub tls: Option<AdminTls>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// File with the certificate chain in PEM, the server's own first.
    #[schemars(length(min = 1))]
    pub cert: String,
    /// File with the private key in PEM, without a passphrase.
    #[schemars(length(min = 1))]
    pub key: String,
    /// File with the CA certificates in PEM of one of which callers must present a certificate. `/healthz`
    /// and `/readyz` need none.
    #[schemars(length(min = 1))]
    pub client_ca: Option<String>,
}

/// A secret that stands outside of this file.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-secret" = true, "x-hint" = "a credential never stands in this file"))]
pub enum Credential {
    /// The name of an environment variable.
    Env(#[schemars(length(min = 1))] String),
    /// A file; one line end at its end is dropped.
    File(#[schemars(length(min = 1))] String),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    /// Bytes of a request head. Beyond it: 431.
    #[schemars(range(min = 1_024, max = 1_048_576))]
    pub head_bytes_max: usize,
    /// Header fields of a request. Beyond it: 431.
    #[schemars(range(min = 8, max = 96))]
    pub head_fields_max: usize,
    /// Bytes of one request body on the JSON surfaces. Beyond it: 413.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that a worker holds at one time. Beyond it: 503 with Retry-After.
    #[schemars(range(min = 1_024, max = 1_099_511_627_776_u64))]
    pub bodies_bytes_max: usize,
    /// Bytes of a body that is streamed to the provider (pass-through); 0: no limit. Beyond it: 413.
    #[schemars(range(max = 1_099_511_627_776_u64))]
    pub upload_bytes_max: u64,
    /// Bytes of one event where a stage needs the whole of it. A longer one that nothing needs whole is
    /// passed in pieces.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub event_bytes_max: usize,
    /// Open client connections of a worker. Beyond it the worker accepts none until one closes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// Requests on one client connection, which is then closed; 0: no limit.
    pub requests_per_connection_max: u32,
    /// Bytes per second that a request body must arrive with, counted after its first 5 seconds; 0: no
    /// minimum.
    pub upload_bytes_per_s_min: u32,
}

impl Default for Limit {
    fn default() -> Limit {
        let limits = snapshot::Limits::default();
        Limit {
            head_bytes_max: limits.head_bytes_max,
            head_fields_max: limits.head_fields_max,
            body_bytes_max: limits.body_bytes_max,
            bodies_bytes_max: limits.bodies_bytes_max,
            upload_bytes_max: limits.upload_bytes_max,
            event_bytes_max: limits.event_bytes_max,
            connections_max: limits.connections_max,
            requests_per_connection_max: limits.requests_per_connection_max,
            upload_bytes_per_s_min: snapshot::DownstreamTimeouts::default().upload_bytes_per_s_min,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeout {
    /// Connecting to a provider, a proxy on the way included.
    #[schemars(range(max = 86_400_000))]
    pub connect_ms: u64,
    /// TLS handshake, with a client and with a provider.
    #[schemars(range(max = 86_400_000))]
    pub tls_handshake_ms: u64,
    /// From the first byte of a request's head to its end.
    #[schemars(range(max = 86_400_000))]
    pub request_head_ms: u64,
    /// From the end of a request's head to the end of its body, on the JSON surfaces.
    #[schemars(range(max = 86_400_000))]
    pub request_body_ms: u64,
    /// From the last byte of the request to the head of the provider's answer. A model that does not stream
    /// answers when it has finished.
    #[schemars(range(max = 86_400_000))]
    pub response_head_ms: u64,
    /// Between two pieces of the provider's answer.
    #[schemars(range(max = 86_400_000))]
    pub idle_ms: u64,
    /// While the other side takes no byte: the client of the answer, the provider of the request.
    #[schemars(range(max = 86_400_000))]
    pub write_ms: u64,
    /// The whole exchange.
    #[schemars(range(max = 86_400_000))]
    pub total_ms: u64,
    /// Waiting for a free connection to a provider where its `connections_max` is reached.
    #[schemars(range(max = 86_400_000))]
    pub queue_ms: u64,
    /// Between two requests on one client connection.
    #[schemars(range(max = 86_400_000))]
    pub keep_alive_ms: u64,
}

impl Default for Timeout {
    fn default() -> Timeout {
        let (down, up) = (snapshot::DownstreamTimeouts::default(), UpstreamTimeouts::default());
        let opening = upstream::Timeouts::default();
        Timeout {
            connect_ms: ms(opening.connect),
            tls_handshake_ms: ms(opening.tls_handshake),
            request_head_ms: ms(down.request_head),
            request_body_ms: ms(down.request_body),
            response_head_ms: ms(up.response_head),
            idle_ms: ms(up.idle),
            write_ms: ms(up.write),
            total_ms: ms(up.total),
            queue_ms: ms(upstream::Limits::default().queue_timeout),
            keep_alive_ms: ms(down.keep_alive),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// A comment line is sent into a stream that was silent for so long, in milliseconds; 0: none. It keeps
    /// proxies and load balancers on the way from closing the connection while a model thinks.
    #[schemars(range(max = 86_400_000))]
    pub heartbeat_ms: u64,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The access log, one line of JSON per request: `"stdout"`, `"off"` or `{ file = "PATH" }`. A file is
    /// appended to and opened anew on SIGUSR1.
    pub access: Access,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// A URL that gets a POST with JSON for every alert: `"https://alerts.example/hook"`, or `{ env = "..." }` or
    /// `{ file = "..." }` where its path is a secret. A try takes 5 s at most, there are four of them; 1,000 alerts
    /// wait.
    pub webhook: Option<HeaderValue>,
    /// What is presented there as `authorization: Bearer TOKEN`.
    pub token: Option<Credential>,
    /// TLS towards it.
    pub tls: Option<ClientTls>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Baseline {
    /// What becomes of it: `"shadow"`: it is counted in `/metrics`. `"alert"`: a line on stderr and a message to the
    /// webhook of `[alerts]`, too. `"off"`: nothing; it is learned all the same.
    pub mode: BaselineMode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BaselineMode {
    Off,
    #[default]
    Shadow,
    Alert,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The state directory, for this gateway's user alone; made where it is not there. Processes that share it are
    /// one node: they share limits, budgets and the ledger.
    #[schemars(length(min = 1))]
    pub directory: String,
    /// How long a finished record waits until it is on the disk, with others: what a power failure may take. Nothing
    /// is lost when the process dies.
    #[serde(default = "commit_interval_ms")]
    #[schemars(range(min = 1, max = 10_000))]
    pub commit_interval_ms: u64,
    /// What becomes of requests when records cannot be written and `records_waiting` of them wait: `"open"`: they
    /// are served, their records lost and counted. `"closed"`: they are refused with 503.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Requests of each worker that are under way or wait to be on the disk; 1,472 bytes of the directory each.
    #[serde(default = "records_waiting")]
    #[schemars(range(min = 64, max = 1_048_576))]
    pub records_waiting: usize,
    /// The files of records. The oldest ones that are rolled up make room; `tollgate usage` sums them no less.
    #[serde(default)]
    pub segments: Segments,
    /// The sums that `tollgate usage` shows.
    #[serde(default)]
    pub rollups: Rollups,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    Open,
    Closed,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Segments {
    /// Days that a file is kept after its last record.
    #[schemars(range(min = 1, max = 36_500))]
    pub keep_days: u32,
    /// Bytes of all files together. Those that are not rolled up stay in any case.
    #[schemars(range(min = 134_217_728, max = 1_125_899_906_842_624_u64))]
    pub bytes_max: u64,
}

impl Default for Segments {
    fn default() -> Segments {
        Segments { keep_days: 400, bytes_max: 100 << 30 }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollups {
    /// Days that sums are kept, by the hour.
    #[schemars(range(min = 1, max = 36_500))]
    pub keep_days: u32,
}

impl Default for Rollups {
    fn default() -> Rollups {
        Rollups { keep_days: 1_100 }
    }
}

fn commit_interval_ms() -> u64 {
    50
}

fn records_waiting() -> usize {
    16_384
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    #[default]
    Stdout,
    Off,
    File(#[schemars(length(min = 1))] String),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Unique; stands in logs and metrics.
    pub name: String,
    /// Which wire it speaks: decides `auth`, `dialects` and how paths are joined unless they are set.
    /// `"openai"` is also right for the many that speak OpenAI's wire; `"mock"` is built in and answers by
    /// itself.
    pub kind: Kind,
    /// Where it is: `http` or `https`, host, port, path. For kind `openai` with its version
    /// (`https://api.openai.com/v1`), for `anthropic` with or without. Required for all kinds but `mock`.
    pub base_url: Option<String>,
    /// The credential that is sent to it, read anew on every reload. Without it none is sent.
    pub api_key: Option<Credential>,
    /// The header that carries the credential. Default: `"bearer"`, for kind `anthropic` `"x-api-key"`.
    pub auth: Option<Auth>,
    /// The dialects that it speaks. Default: `["chat", "responses"]`, for kind `anthropic` `["messages"]`,
    /// for `mock` all.
    #[schemars(length(min = 1))]
    pub dialects: Option<Vec<Dialect>>,
    /// Headers that go with every call and replace a client's of the same name: `{ "openai-organization" =
    /// "org-1" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderValue>,
    /// TLS towards it.
    pub tls: Option<ClientTls>,
    /// HTTP proxy that is asked to CONNECT to it: `"http://HOST:PORT"`.
    pub proxy: Option<String>,
    /// Connections that a worker has open to it at most; each carries one request at a time.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// Idle connections to it that a worker keeps; 0: none.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "idle_connections_max")]
    pub idle_connections_max: usize,
    /// How long a connection to it may lie idle before it is closed, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    #[serde(default = "idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// Requests of a worker that may wait for a connection; beyond it 503. 0: none waits.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "queue_max")]
    pub queue_max: usize,
    /// Replaces the values of `[timeout]` for this provider.
    pub timeout: Option<ProviderTimeout>,
    /// What may be sent to it, whoever asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What may be spent there, whoever asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budgets>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    OpenAi,
    Anthropic,
    Mock,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    Bearer,
    XApiKey,
    ApiKey,
    XGoogApiKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    Chat,
    Responses,
    Messages,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-secret" = true))]
pub enum HeaderValue {
    Literal(String),
    From(Credential),
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    /// File with the certificates in PEM to trust instead of the system's.
    #[schemars(length(min = 1))]
    pub ca: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderTimeout {
    /// As `timeout.connect_ms`.
    #[schemars(range(max = 86_400_000))]
    pub connect_ms: Option<u64>,
    /// As `timeout.tls_handshake_ms`.
    #[schemars(range(max = 86_400_000))]
    pub tls_handshake_ms: Option<u64>,
    /// As `timeout.response_head_ms`.
    #[schemars(range(max = 86_400_000))]
    pub response_head_ms: Option<u64>,
    /// As `timeout.idle_ms`.
    #[schemars(range(max = 86_400_000))]
    pub idle_ms: Option<u64>,
    /// As `timeout.write_ms`, for this provider's side.
    #[schemars(range(max = 86_400_000))]
    pub write_ms: Option<u64>,
    /// As `timeout.total_ms`, for each call to this provider.
    #[schemars(range(max = 86_400_000))]
    pub total_ms: Option<u64>,
    /// As `timeout.queue_ms`.
    #[schemars(range(max = 86_400_000))]
    pub queue_ms: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What clients say. May have one `*` for any characters: `"claude-*"`. An exact name wins over a
    /// wildcard, and of two wildcards the one with more other characters.
    pub name: String,
    /// Who is asked. One is drawn by weight; the others follow, drawn alike, when connecting fails or 429 or
    /// 5xx comes before the first byte went to the client.
    #[schemars(length(min = 1, max = 16))]
    pub targets: Vec<Target>,
    /// Models that are tried, in this order, when all targets failed. Named as a client would name them.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub fallback: Vec<String>,
    /// What may be asked of it, whoever asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What may be spent on it, whoever asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budgets>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The name of a `[[provider]]`.
    pub provider: String,
    /// The model name that is sent. Without it: the name that the client said. A `*` copies what the `*` of
    /// the model's name stood for.
    #[schemars(length(min = 1))]
    pub model: Option<String>,
    /// Share of the requests relative to the other targets; 0: only after all others failed.
    #[serde(default = "weight")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Unique; stands in logs and metrics.
    pub name: String,
    /// SHA-256 of the key: `"sha256:"` and 64 hexadecimal digits. A list while a key is rotated: each is
    /// valid.
    #[schemars(extend("x-secret" = true, "x-hint" = "`tollgate keys new NAME` prints it"))]
    pub hash: Hashes,
    /// The name of a `[[team]]`, whose limits and budget hold for it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// What it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What it may spend: a table, or a list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budgets>,
    /// Models that it may ask for, with `*` as in a model's name. Without it: all. A stored response
    /// (`/v1/responses/ID`) is bound by its provider alone: a key that has its id and a model of that
    /// provider may read, cancel, delete and continue it, whichever key and model made it.
    #[schemars(length(min = 1))]
    pub models: Option<Vec<String>>,
    /// Whether it may use `[[passthrough]]` routes. Default: true without `models`, false with it.
    pub passthrough: Option<bool>,
    /// Date, time and offset from which it is refused: `2027-01-31T00:00:00Z`. Without it: never.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires: Option<toml::value::Datetime>,
    /// Refused, with a message that says so. `tollgate keys revoke` sets it.
    #[serde(default)]
    pub disabled: bool,
    /// What happens to a provider's answer when the client leaves: `"cancel"`, or `{ drain = {} }` to read on
    /// until the usage is known or a cap is reached.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Hashes {
    One(String),
    Several(#[schemars(length(min = 1, max = 8))] Vec<String>),
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// The provider's answer is cancelled.
    #[default]
    Cancel,
    /// The answer is read on until its usage is known or one of the caps is reached.
    Drain(Drain),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Output tokens that are read after the client left.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub tokens_max: u64,
    /// Bytes that are read after the client left.
    #[schemars(range(min = 1, max = 1_099_511_627_776_u64))]
    pub bytes_max: u64,
    /// How long it is read after the client left, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub time_max_ms: u64,
}

impl Default for Drain {
    fn default() -> Drain {
        let cap = auth::DrainCap::default();
        Drain { tokens_max: cap.tokens_max, bytes_max: cap.bytes_max, time_max_ms: cap.time_max_ms }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passthrough {
    /// Starts and ends with `/`; must not cover a surface. What follows it is appended to the provider's
    /// `base_url`; a version that would stand there twice stands once.
    pub path: String,
    /// The name of a `[[provider]]`.
    pub provider: String,
    /// Methods that are passed on. Without it: all of these.
    #[schemars(length(min = 1))]
    pub methods: Option<Vec<Method>>,
    /// What may follow `path`, by its first characters: `["/v1/files", "/v1/batches"]`; each ends at a `/` or
    /// at the path's end. Without it: anything.
    #[schemars(length(min = 1, max = 100))]
    pub prefixes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn weight() -> u32 {
    1
}

fn connections_max() -> usize {
    upstream::Limits::default().connections_max
}

fn idle_connections_max() -> usize {
    upstream::Limits::default().idle_max
}

fn idle_timeout_ms() -> u64 {
    ms(upstream::Limits::default().idle_timeout)
}

fn queue_max() -> usize {
    upstream::Limits::default().queue_max
}

fn as_text<S: serde::Serializer>(value: &Option<toml::value::Datetime>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(at) => to.collect_str(at),
        None => to.serialize_none(),
    }
}
