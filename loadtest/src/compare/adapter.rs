//! Adapters: starts and stops a gateway by its script, `adapters/NAME/run`.
//!
//! The script's contract stands in `adapters/README.md`. What it prints on its error output is shown as it
//! is.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::net::stream::server_tls;
use crate::scenario::Http;

pub struct Adapter {
    name: String,
    script: PathBuf,
}

/// What a gateway is given.
pub struct Place {
    /// Its folder for runtime files.
    pub state: PathBuf,
    pub upstream_port: u16,
    pub core: Option<usize>,
    pub certificate: Option<Certificate>,
    /// What its callers speak.
    pub http: Http,
}

/// A gateway that was started; `stop` ends it.
pub struct Gateway {
    name: String,
    script: PathBuf,
    state: PathBuf,
    pub url: String,
    pub key: Option<String>,
    pub model: Option<String>,
    pub pids: Vec<u32>,
    /// Header fields that every request to it must carry.
    pub fields: Vec<(String, String)>,
    is_stopped: bool,
}

#[derive(Clone, Debug)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// What `chain` is signed by.
    pub authority: PathBuf,
}

impl Adapter {
    pub fn find(folder: &Path, name: &str) -> Result<Self, String> {
        let script = folder.join(name).join("run");
        if script.is_file() {
            return Ok(Self { name: name.to_owned(), script });
        }
        let mut known: Vec<String> = std::fs::read_dir(folder)
            .map_err(|error| format!("--adapters {}: {error}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join("run").is_file())
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        known.sort();
        let known = known.join(", ");
        Err(format!("no adapter {name:?} in {}: there are {known}; or NAME=URL, or direct", folder.display()))
    }

    /// Starts the gateway and waits until it answers.
    pub fn start(&self, place: &Place) -> Result<Gateway, String> {
        let state = &place.state;
        std::fs::create_dir_all(state).map_err(|error| format!("{}: {error}", state.display()))?;
        if let Some(certificate) = &place.certificate {
            let Certificate { chain, key, authority } = certificate;
            for (from, to) in [(chain, "cert.pem"), (key, "key.pem"), (authority, "ca.pem")] {
                std::fs::copy(from, state.join(to))
                    .map_err(|error| format!("{}: {error}", from.display()))?;
            }
        }
        let mut gateway = Gateway {
            name: self.name.clone(),
            script: self.script.clone(),
            state: state.clone(),
            url: String::new(),
            key: None,
            model: None,
            pids: Vec::new(),
            fields: Vec::new(),
            is_stopped: false,
        };
        let port = free_port()?;
        let mut command = Command::new(&self.script);
        command.arg("start").env("STATE", state).env("PORT", port.to_string());
        command.env("UPSTREAM", place.upstream_port.to_string());
        command.env("CORE", place.core.map_or(String::new(), |core| core.to_string()));
        command.env("HTTP", if place.http == Http::Two { "2" } else { "1.1" });
        command.env("TLS", if place.certificate.is_some() { "1" } else { "0" });
        let text = output(&self.name, command)?;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("url", url)) => gateway.url = url.to_owned(),
                Some(("key", key)) => gateway.key = Some(key.to_owned()),
                Some(("model", model)) => gateway.model = Some(model.to_owned()),
                Some(("pid", pid)) => {
                    gateway.pids.push(pid.parse().map_err(|_| format!("{}: printed {line:?}", self.name))?);
                }
                Some(("field", field)) => {
                    let (name, value) = field.split_once(": ").unwrap_or((field, ""));
                    gateway.fields.push((name.to_owned(), value.to_owned()));
                }
                _ => {
                    return Err(format!(
                        "adapter {}: printed {line:?}: need url, key, model, field or pid",
                        self.name
                    ));
                }
            }
        }
        if gateway.url.is_empty() {
            return Err(format!("adapter {}: printed no url", self.name));
        }
        Ok(gateway)
    }
}

impl Gateway {
    pub fn stop(mut self) -> Result<(), String> {
        self.is_stopped = true;
        self.call_stop()
    }

    fn call_stop(&self) -> Result<(), String> {
        let mut command = Command::new(&self.script);
        command.arg("stop").env("STATE", &self.state);
        output(&self.name, command).map(drop)
    }
}

impl Drop for Gateway {
    /// The net below `stop`: an error on the way must not leave a gateway behind.
    fn drop(&mut self) {
        if !self.is_stopped {
            let _ = self.call_stop();
        }
    }
}

fn output(name: &str, mut command: Command) -> Result<String, String> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let done = done.map_err(|error| format!("adapter {name}: cannot run its script: {error}"))?;
    if !done.status.success() {
        return Err(format!("adapter {name}: its script ended with {}", done.status));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Makes an authority and a certificate of it for 127.0.0.1 in `folder`, with the openssl command.
pub fn certificate(folder: &Path) -> Result<Certificate, String> {
    let made = Certificate {
        chain: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        authority: folder.join("ca.pem"),
    };
    let authority_key = folder.join("ca-key.pem");
    let start = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365";
    let mut authority = Command::new("openssl");
    authority.args(start.split(' ')).args(["-subj", "/CN=tollgate-load"]);
    authority.arg("-keyout").arg(&authority_key).arg("-out").arg(&made.authority);
    openssl(authority)?;
    let mut leaf = Command::new("openssl");
    leaf.args(start.split(' ')).args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    leaf.args(["-addext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"]);
    leaf.arg("-CA").arg(&made.authority).arg("-CAkey").arg(&authority_key);
    leaf.arg("-keyout").arg(&made.key).arg("-out").arg(&made.chain);
    openssl(leaf)?;
    Ok(made)
}

fn openssl(mut command: Command) -> Result<(), String> {
    match command.output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("openssl: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Err(format!("openssl, which makes the certificate for TLS: {error}")),
    }
}

impl Certificate {
    pub fn server(&self) -> Result<rustls::ServerConfig, String> {
        server_tls(&self.chain, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Adapter, Place};
    use crate::scenario::Http;

    fn script(text: &str) -> (std::path::PathBuf, Adapter) {
        use std::os::unix::fs::PermissionsExt;
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tollgate-adapter-{}-{number}", std::process::id()));
        std::fs::create_dir_all(folder.join("x")).expect("a folder");
        let path = folder.join("x").join("run");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let adapter = Adapter::find(&folder, "x").expect("there");
        (folder, adapter)
    }

    fn place(folder: &std::path::Path) -> Place {
        let (state, http) = (folder.join("state"), Http::Two);
        Place { state, upstream_port: 7, core: Some(1), certificate: None, http }
    }

    #[test]
    fn a_script_is_given_its_place_and_its_lines_are_read() {
        let (folder, adapter) = script(
            "#!/bin/sh\ncase $1 in start) echo url http://127.0.0.1:$UPSTREAM; echo pid 12; echo key k$CORE$HTTP; echo 'field a: b';;\n\
             stop) : >$STATE/stopped;; esac\n",
        );
        let gateway = adapter.start(&place(&folder)).expect("starts");
        assert_eq!((gateway.url.as_str(), gateway.key.as_deref()), ("http://127.0.0.1:7", Some("k12")));
        assert_eq!((gateway.pids.as_slice(), gateway.model.as_deref()), ([12].as_slice(), None));
        assert_eq!(gateway.fields, [("a".to_owned(), "b".to_owned())]);
        gateway.stop().expect("stops");
        assert!(folder.join("state").join("stopped").exists());
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn a_failing_or_babbling_script_and_an_unknown_name_are_told() {
        for (text, told) in
            [("#!/bin/sh\nexit 3\n", "exit status: 3"), ("#!/bin/sh\necho hello\n", "\"hello\"")]
        {
            let (folder, adapter) = script(text);
            let error = adapter.start(&place(&folder)).map(|_| ()).expect_err("must fail");
            assert!(error.contains(told), "{error}");
            let unknown = Adapter::find(&folder, "y").map(|_| ()).expect_err("no such adapter");
            assert!(unknown.contains("there are x"), "{unknown}");
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    #[test]
    fn a_shipped_adapter_refuses_in_one_line_what_its_gateway_lacks() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters");
        let rows = [("tollgate", "HTTP", "HTTP/2"), ("portkey", "HTTP", "HTTP/2"), ("litellm", "TLS", "TLS")];
        for (name, variable, lacked) in rows {
            let value = if variable == "HTTP" { "2" } else { "1" };
            let mut command = std::process::Command::new(folder.join(name).join("run"));
            let done = command.arg("start").env(variable, value).output().expect("bash is installed");
            let told = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!((done.status.code(), told.lines().count()), (Some(1), 1), "{name}: {told}");
            assert!(told.contains(&format!("no variant with {lacked}")), "{name}: {told}");
        }
    }
}
