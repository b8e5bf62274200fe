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
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub fn demo(listen: SocketAddr) -> Exit {
    let key = match keys::generate() {
        Ok(key) => key,
        Err(error) => return print::failure(&error, Exit::Failed),
    };
    let text = CONFIG.replace("ADDRESS", &listen.to_string()).replace("HASH", &key.hash);
    match run_gateway(&BuiltIn(text), |ready| announce(ready, &key.text)) {
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
    let url = format!("http://{address}");
    let admin = match &ready.admin {
        Some(AdminAddress::Tcp(address)) => format!("http://{address}/metrics"),
        _ => String::new(),
    };
    print::result(&format!(
        r#"{url}

The gateway and its built-in provider run, on this machine only. Ctrl-C ends them.

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
