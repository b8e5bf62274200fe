//! `tollgate demo`: the gateway and the built-in provider on loopback, with a config and a key made on the
//! spot.
//!
//! The config is text like any other, read through surroundings that know this one file, so nothing is
//! written to disk.

use crate::cli::print::{self, Exit};
use crate::cli::{keys, run};
use crate::control::config::problem::Problem;
use crate::control::config::{Loaded, Mode, Surroundings, load};
use crate::control::run::{Origin, Ready, run as run_gateway};
use crate::handler::snapshot::AdminAddress;
use crate::net::resolve::Addresses;
use crate::server::Occupied;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub fn demo(listen: SocketAddr) -> Exit {
    let key = match keys::generate() {
        Ok(key) => key,
        Err(error) => return print::failure(&error, Exit::Failed),
    };
    let text = CONFIG.replace("ADDRESS", &listen.to_string()).replace("HASH", &key.hash);
    match run_gateway(&BuiltIn(text), Occupied::Refused, |ready| announce(ready, &key.text)) {
        Ok(()) => Exit::Done,
        Err(error) => run::failed(&error),
    }
}

/// Ports are any free ones but the one that is asked for. The access log would stand between the lines to
/// paste.
const CONFIG: &str = r#"
[[listener]]
address = "ADDRESS"

[admin]
address = "127.0.0.1:0"

[log]
access = "off"

[[provider]]
name = "built-in"
kind = "mock"

[[model]]
name = "gpt-4o"
targets = [{ provider = "built-in" }]

[[model]]
name = "claude-sonnet-5"
targets = [{ provider = "built-in" }]

[[model]]
name = "text-embedding-3-small"
targets = [{ provider = "built-in" }]

[[model]]
name = "*"
targets = [{ provider = "built-in" }]

[[key]]
name = "demo"
hash = "HASH"
"#;

fn announce(ready: &Ready, key: &str) {
    let Some(address) = ready.listeners.first() else { return };
    let url = format!("http://{}", from_here(*address));
    let reach = reach(*address);
    let admin = match &ready.admin {
        Some(AdminAddress::Tcp(address)) => format!("http://{address}/metrics"),
        _ => String::new(),
    };
    print::result(&format!(
        r#"{url}

The gateway and its built-in provider run, {reach}. Ctrl-C ends them.

key:      {key}
models:   gpt-4o, claude-sonnet-5, text-embedding-3-small, or any other name
metrics:  {admin}

curl -N {url}/v1/chat/completions -H "Authorization: Bearer {key}" \
  -H "Content-Type: application/json" \
  -d '{{"model":"gpt-4o","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'

# pip install openai
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
for event in client.chat.completions.create(
    model="gpt-4o", messages=[{{"role": "user", "content": "Hello"}}], stream=True
):
    if event.choices:
        print(event.choices[0].delta.content or "", end="", flush=True)
"#
    ));
}

/// The address by which a client on this machine reaches a listener at `address`: one that stands for all
/// addresses is none that can be called.
fn from_here(address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        one => one,
    };
    SocketAddr::new(loopback, address.port())
}

/// Who can reach it.
fn reach(address: SocketAddr) -> String {
    if address.ip().to_canonical().is_loopback() {
        return "on this machine only".to_owned();
    }
    format!("open to the network: whoever reaches {address} and has the key can use it")
}

/// The config that is built in.
struct BuiltIn(String);

impl Origin for BuiltIn {
    fn load(&self, surroundings: &dyn Surroundings) -> Result<Loaded, Vec<Problem>> {
        let only = Only { text: &self.0, surroundings };
        let mut loaded = load(Path::new(NAME), Mode::Run, &only)?;
        // There is no file that could change.
        loaded.watched.clear();
        Ok(loaded)
    }
}

/// The name under which problems of the built-in config are told; there are none but a `--listen` that is
/// refused.
const NAME: &str = "demo";

struct Only<'a> {
    text: &'a str,
    surroundings: &'a dyn Surroundings,
}

impl Surroundings for Only<'_> {
    fn env(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new(NAME) { Ok(self.text.into()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn addresses(&self, host: &str, port: u16) -> Addresses {
        self.surroundings.addresses(host, port)
    }
}

#[cfg(test)]
mod tests {
    use super::{from_here, reach};

    #[test]
    fn the_url_can_be_called_and_who_else_can_call_it_is_said() {
        // listener, address in the URL, for this machine only
        let rows = [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.9.9.9:1", "127.9.9.9:1", true),
            ("[::1]:8080", "[::1]:8080", true),
            ("0.0.0.0:8080", "127.0.0.1:8080", false),
            ("[::]:8080", "[::1]:8080", false),
            ("[::ffff:127.0.0.1]:8080", "[::ffff:127.0.0.1]:8080", true),
            ("192.0.2.7:80", "192.0.2.7:80", false),
        ];
        for (listener, called, is_local) in rows {
            let listener = listener.parse().expect("an address");
            assert_eq!(from_here(listener).to_string(), called);
            assert_eq!(reach(listener) == "on this machine only", is_local, "{listener}");
        }
    }
}
