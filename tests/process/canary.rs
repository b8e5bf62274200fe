//! No credential is ever printed: canaries stand in every place that can hold one, and every output of the
//! real binary is searched for them.
//!
//! Planted: providers' keys by variable and by file, a static header by value and by variable, the admin
//! token, the password within a proxy's URL, callers' keys (known, unknown, disabled, in each field and in the
//! query), a credential written into the config where none belongs. Searched: both logs, answers and errors
//! of every kind, all admin pages, `check` and `run` on good and bad configs, `keys`, help, `Debug` of what
//! the library loads. What a provider itself repeats of its key in an error is the provider's and passes.

use crate::cli::{Directory, tollgate};
use crate::process::gateway::{Gateway, exchange, status};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tollgate::control::config::{Mode, Process, load};

/// In every canary, so that one search finds them all, in part and in any case.
const CANARY: &str = "cAnArY";

fn canary(place: &str) -> String {
    format!("sk-{CANARY}-{place}")
}

fn client_key(place: &str) -> String {
    format!("tg-{CANARY}-{place}")
}

/// What was seen where.
#[derive(Default)]
struct Outputs(Vec<(String, String)>);

impl Outputs {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn check(&self) {
        for (place, text) in &self.0 {
            let found = text.to_lowercase().find(&CANARY.to_lowercase());
            assert!(found.is_none(), "a credential in {place}:\n{text}");
        }
    }
}

/// A provider that answers every request, or breaks off at `/break`; the requests as they came.
fn provider() -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&seen);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.extend_from_slice(&byte);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
            stream.read_exact(&mut body).expect("a body");
            let body = String::from_utf8_lossy(&body).into_owned();
            heard.lock().expect("no panic").push_str(&(head + &body));
            let answer = match body.contains("nonsense") {
                true => "nonsense\r\n\r\n".to_string(),
                false => {
                    let json = "{\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}";
                    let kind = "content-type: application/json\r\nconnection: close";
                    format!("HTTP/1.1 200 OK\r\n{kind}\r\ncontent-length: {}\r\n\r\n{json}", json.len())
                }
            };
            // A gateway that has left is none of its business.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, seen)
}

fn sha256(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().fold("sha256:".to_string(), |text, byte| format!("{text}{byte:02x}"))
}

fn config(upstream: SocketAddr) -> String {
    let provider = |name: &str, base: &str, rest: &str| {
        format!("[[provider]]\nname = \"{name}\"\nkind = \"openai\"\nbase_url = \"{base}\"\n{rest}\n\n")
    };
    let base = format!("http://{upstream}/v1");
    let header = canary("header");
    let headers = format!("headers = {{ \"x-one\" = \"{header}\", \"x-two\" = {{ env = \"TWO\" }} }}");
    let models: String = [("m", "env"), ("f", "file"), ("gone", "gone")]
        .map(|(name, provider)| {
            format!("[[model]]\nname = \"{name}\"\ntargets = [{{ provider = \"{provider}\" }}]\n\n")
        })
        .concat();
    let key = |name: &str, more: &str| {
        format!("[[key]]\nname = \"{name}\"\nhash = \"{}\"\n{more}\n", sha256(&client_key(name)))
    };
    [
        "[server]\nworkers = 1\n\n[[listener]]\naddress = \"127.0.0.1:0\"\n\n".to_string(),
        "[admin]\naddress = \"127.0.0.1:0\"\ntoken = { env = \"TOKEN\" }\n\n".to_string(),
        provider("env", &base, &format!("api_key = {{ env = \"KEY\" }}\n{headers}")),
        provider("file", &base, "api_key = { file = \"provider.key\" }"),
        provider("gone", "http://127.0.0.1:1/v1", "api_key = { env = \"KEY\" }"),
        models,
        key("good", ""),
        key("off", "disabled = true"),
        "[[passthrough]]\npath = \"/raw/\"\nprovider = \"env\"\n\n[log]\naccess = \"stdout\"\n".to_string(),
    ]
    .concat()
}

fn environment(command: &mut std::process::Command) -> &mut std::process::Command {
    command.env("KEY", canary("variable")).env("TWO", canary("two")).env("TOKEN", canary("admin-token"))
}

/// Requests that are answered, refused and that fail; what the client gets.
fn ask_everything(gateway: &Gateway, outputs: &mut Outputs) {
    let good = client_key("good");
    let post = |path: &str, field: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{field}\r\ncontent-type: application/json");
        format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let bearer = |key: &str| format!("authorization: Bearer {key}");
    let chat = "/v1/chat/completions";
    let mut rows = vec![
        ("a provider by variable", 200, post(chat, &bearer(&good), r#"{"model":"m"}"#)),
        ("a provider by file", 200, post(chat, &bearer(&good), r#"{"model":"f"}"#)),
        ("a provider that is gone", 502, post(chat, &bearer(&good), r#"{"model":"gone"}"#)),
        ("a provider's nonsense", 502, post(chat, &bearer(&good), r#"{"model":"m","a":"nonsense"}"#)),
        ("no such model", 404, post(chat, &bearer(&good), r#"{"model":"none"}"#)),
        ("no JSON", 400, post(chat, &bearer(&good), "{")),
        ("an unknown path", 404, post("/none", &bearer(&good), "{}")),
        ("pass-through", 200, post("/raw/v1/x", &bearer(&good), "{}")),
        ("a broken head", 400, post(chat, &format!("{}\r\nbad field", bearer(&good)), "{}")),
        ("Anthropic", 401, post("/v1/messages", &format!("x-api-key: {}", client_key("unknown")), "{}")),
    ];
    for place in ["unknown", "off"] {
        let key = client_key(place);
        rows.push((place, 401, post(chat, &bearer(&key), r#"{"model":"m"}"#)));
        for field in ["x-api-key", "api-key", "x-goog-api-key"] {
            rows.push((place, 401, post(chat, &format!("{field}: {key}"), r#"{"model":"m"}"#)));
        }
        rows.push((place, 401, post(&format!("{chat}?key={key}"), "a: b", r#"{"model":"m"}"#)));
    }
    for (what, expected, request) in rows {
        let answer = exchange(gateway.address, &request).expect("an answer");
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        outputs.add(format!("the answer to {what}"), answer);
    }
}

fn admin_pages(gateway: &Gateway, outputs: &mut Outputs) {
    for path in ["/metrics", "/admin/v1/config", "/healthz", "/readyz", "/none"] {
        for token in [canary("admin-token"), canary("wrong")] {
            let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n");
            let answer =
                exchange(gateway.admin, &format!("{head}connection: close\r\n\r\n")).expect("an answer");
            if path == "/admin/v1/config" && token == canary("admin-token") {
                assert!(answer.contains("\"x-one\"") && answer.contains("***"), "{answer}");
            }
            outputs.add(format!("the page {path}"), answer);
        }
    }
}

#[test]
fn a_running_gateway_prints_no_credential() {
    let (upstream, seen) = provider();
    let directory = Directory::new();
    let file = directory.file("provider.key", &canary("file"));
    let mut command = tollgate();
    environment(&mut command);
    let mut gateway = Gateway::start_by(command, directory, &config(upstream), Stdio::piped());
    let mut outputs = Outputs::default();
    ask_everything(&gateway, &mut outputs);
    admin_pages(&gateway, &mut outputs);
    // A credential that changes, a config that breaks, one with a credential where none belongs.
    std::fs::write(&file, canary("renewed")).expect("writable");
    gateway.signal(Signal::HUP);
    gateway.wait_told("generation 2", 1);
    let inline = config(upstream).replace("{ env = \"KEY\" }", &format!("\"{}\"", canary("inline")));
    gateway.directory.file("c.toml", &inline);
    gateway.signal(Signal::HUP);
    gateway.wait_told("api_key", 1);
    ask_everything(&gateway, &mut outputs);
    gateway.signal(Signal::USR1);
    gateway.signal(Signal::TERM);
    gateway.exit();
    let mut log = String::new();
    gateway.stdout().read_to_string(&mut log).expect("text");
    assert!(log.lines().count() > 20 && log.contains("\"key\":\"good\""), "{log}");
    outputs.add("the access log", log);
    outputs.add("stderr", gateway.told().join("\n"));
    outputs.check();
    // The test sees credentials where they belong, and no caller's key at the provider.
    let seen = seen.lock().expect("no panic").to_lowercase();
    for place in ["variable", "file", "renewed", "header", "two"] {
        assert!(seen.contains(&canary(place).to_lowercase()), "{place} never reached the provider");
    }
    assert!(!seen.contains(&client_key("").to_lowercase()), "a caller's key at the provider: {seen}");
}

#[test]
fn commands_print_no_credential() {
    let (upstream, _) = provider();
    let directory = Directory::new();
    directory.file("provider.key", &canary("file"));
    let good = config(upstream);
    let (secret, stated) = (canary("inline"), |text: &str| good.replacen("{ env = \"KEY\" }", text, 1));
    let url = |url: &str| good.replacen(&format!("http://{upstream}/v1"), url, 1);
    let proxy = |url: &str| good.replacen("api_key =", &format!("proxy = \"{url}\"\napi_key ="), 1);
    let bad = [
        ("a key as text", stated(&format!("\"{secret}\""))),
        ("a key within a table", stated(&format!("{{ value = \"{secret}\" }}"))),
        ("a key as the name of a table's key", stated(&format!("{{ \"{secret}\" = 1 }}"))),
        ("a key as a variable's name", stated(&format!("{{ env = \"{secret}\" }}"))),
        ("a password in a base URL", url(&format!("http://u:{secret}@127.0.0.1/v1"))),
        ("a key in a base URL's query", url(&format!("http://127.0.0.1/v1?key={secret}"))),
        ("a password in a proxy's URL", proxy(&format!("http://u:{secret}@127.0.0.1:3128"))),
        ("a caller's key for its hash", good.replace(&sha256(&client_key("good")), &client_key("good"))),
        ("a header that cannot be sent", good.replace(&canary("header"), &format!("{secret}\\n"))),
        ("a token as text", good.replace("{ env = \"TOKEN\" }", &format!("\"{secret}\""))),
        ("no TOML behind a key", format!("{good}\napi_key = \"{secret}\" x")),
    ];
    let mut outputs = Outputs::default();
    let mut run = |what: &str, arguments: &[&str]| {
        let output = environment(&mut tollgate()).args(arguments).output().expect("it runs");
        outputs.add(format!("{arguments:?}: {what}"), String::from_utf8_lossy(&output.stdout));
        outputs.add(format!("{arguments:?}: {what}, stderr"), String::from_utf8_lossy(&output.stderr));
        output.status.code()
    };
    let file = directory.file("good.toml", &good);
    assert_eq!(run("good", &["check", &file]), Some(0), "the good one");
    assert_eq!(run("good", &["keys", "list", &file]), Some(0));
    for (at, (what, text)) in bad.iter().enumerate() {
        let file = directory.file(&format!("bad-{at}.toml"), text);
        assert_eq!(run(what, &["check", &file]), Some(2), "{what}");
        assert_eq!(run(what, &["run", &file]), Some(2), "{what}");
        run(what, &["keys", "list", &file]);
    }
    directory.file("provider.key", &format!("{secret}\nand more"));
    assert_eq!(run("a key of two lines", &["check", &file]), Some(2));
    for arguments in
        [&["--help"][..], &["--version"], &["run", "--help"], &["check", "--help"], &["keys", "--help"]]
    {
        assert_eq!(run("help", arguments), Some(0));
    }
    outputs.check();
}

/// The library reads this process's environment, which has none of the variables: files and values only.
#[test]
fn what_is_loaded_shows_no_credential() {
    let directory = Directory::new();
    directory.file("provider.key", &canary("file"));
    directory.file("token", &canary("admin-token"));
    let text = config(SocketAddr::from(([127, 0, 0, 1], 9)));
    let text = text
        .replace("env = \"KEY\"", "file = \"provider.key\"")
        .replace("env = \"TOKEN\"", "file = \"token\"");
    let file = directory.file("c.toml", &text.replace("env = \"TWO\"", "file = \"token\""));
    let loaded =
        load(Path::new(&file), Mode::Run, &Process).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut outputs = Outputs::default();
    outputs.add("Debug of the snapshot", format!("{:?} {:#?}", loaded.snapshot, loaded.snapshot));
    outputs.add("the effective config", loaded.effective.value().to_string());
    for provider in &loaded.snapshot.providers {
        outputs.add("Debug of a provider", format!("{provider:?}"));
    }
    for origin in &loaded.snapshot.origins {
        outputs.add("Debug of an origin", format!("{origin:?}"));
    }
    outputs.check();
}
