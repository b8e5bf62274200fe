//! Judges a config of the right shape and compiles it into a snapshot.
//!
//! One file per section: each takes its raw part and gives the compiled form, and tells what it finds to the
//! `Context`. A part that is at fault compiles to something harmless, so that the rest is judged in the same
//! turn; the snapshot of a config with an error is thrown away by the caller.

mod serve;
mod provider;
mod model;
mod key;
mod limit;
mod alerts;
mod catalogue;
mod passthrough;

use crate::base::secret::Secret;
use crate::control::config::problem::{Severity, quoted};
use crate::control::config::raw::Credential;
use crate::control::config::sources::{At, Finding, Sources, reason};
use crate::control::config::{Mode, Surroundings, check_name};
use crate::handler::snapshot::Snapshot;
use crate::policy::stage::Stages;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What came of it.
#[derive(Debug)]
pub struct Compiled {
    pub snapshot: Snapshot,
    pub findings: Vec<Finding>,
    /// Files of credentials and certificates.
    pub watched: Vec<PathBuf>,
}

/// Compiles `sources`.
pub fn compile(sources: &Sources, mode: Mode, surroundings: &dyn Surroundings) -> Compiled {
    let mut context = Context { sources, mode, surroundings, findings: Vec::new(), watched: Vec::new() };
    let raw = &sources.raw;
    let (providers, origins) = provider::compile(&mut context);
    let routes = model::compile(&mut context, &providers);
    let keys = key::compile(&mut context, &routes);
    let plan = limit::compile(&mut context, &routes);
    let passthroughs = passthrough::compile(&mut context, &providers);
    let snapshot = Snapshot {
        generation: 0,
        server: serve::server(&raw.server),
        listeners: serve::listeners(&mut context),
        admin: serve::admin(&mut context),
        limits: serve::limits(&mut context),
        timeouts: serve::timeouts(raw),
        bounds: OnceLock::new(),
        relay: serve::relay(&raw.relay),
        log: serve::log(&mut context),
        baseline: alerts::baseline(&raw.baseline),
        webhook: alerts::webhook(&mut context),
        ledger: serve::ledger(&mut context),
        origins,
        providers,
        keys,
        routes,
        plan,
        catalogue: catalogue::compile(&mut context),
        unpriced: catalogue::unpriced(&mut context),
        passthroughs,
        // Control counts what it publishes: it adds the series of each worker.
        series: Vec::new(),
        stages: Stages::default(),
    };
    provider::unused(&mut context, &snapshot);
    limit::unreached(&mut context);
    Compiled { snapshot, findings: context.findings, watched: context.watched }
}

/// What the sections share while they compile.
pub struct Context<'a> {
    pub sources: &'a Sources,
    pub surroundings: &'a dyn Surroundings,
    mode: Mode,
    findings: Vec<Finding>,
    watched: Vec<PathBuf>,
}

impl<'a> Context<'a> {
    /// Tells an error.
    pub fn error(&mut self, at: At, message: impl Into<String>) {
        self.find(at, Severity::Error, message.into());
    }

    /// Tells a warning.
    pub fn warn(&mut self, at: At, message: impl Into<String>) {
        self.find(at, Severity::Warning, message.into());
    }

    /// Tells what this machine lacks: an error when it is to run.
    pub fn lacking(&mut self, at: At, message: impl Into<String>) {
        let severity = match self.mode {
            Mode::Check => Severity::Warning,
            Mode::Run => Severity::Error,
        };
        self.find(at, severity, message.into());
    }

    /// Whether anything told so far is an error.
    pub fn has_errors(&self) -> bool {
        self.sources.has_errors() || self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// A path as written at `at`, made relative to the file that it stands in.
    pub fn path(&self, at: &At, written: &str) -> PathBuf {
        self.sources.directory(at).join(written)
    }

    /// The content of the file that `at` names. None: lacking, and told.
    pub fn file(&mut self, at: &At, written: &str) -> Option<Vec<u8>> {
        let path = self.path(at, written);
        self.watched.push(path.clone());
        match self.surroundings.read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.lacking(at.clone(), format!("{} cannot be read: {}", path.display(), reason(&error)));
                None
            }
        }
    }

    /// A credential. None: lacking or unfit for a header, and told.
    pub fn credential(&mut self, at: &At, credential: &Credential) -> Option<Secret> {
        let (at, bytes) = match credential {
            Credential::Env(name) => {
                let at = at.key("env");
                if !is_variable_name(name) {
                    // Not said back: it may be the credential itself.
                    let allowed = "allowed: letters, digits and _, no digit first; a credential never stands in this file";
                    self.error(at, format!("this is not the name of an environment variable, {allowed}"));
                    return None;
                }
                let Some(value) = self.surroundings.env(name) else {
                    self.lacking(at, format!("the environment variable {} is not set", quoted(name)));
                    return None;
                };
                (at, value.into_bytes())
            }
            Credential::File(written) => {
                let at = at.key("file");
                let mut bytes = self.file(&at, written)?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
                (at, bytes)
            }
        };
        if bytes.is_empty() {
            self.lacking(at, "the credential is empty");
            return None;
        }
        if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            self.error(
                at,
                "the credential has a byte that no header may carry, allowed: visible ASCII in one line",
            );
            return None;
        }
        Some(Secret::new(bytes))
    }

    /// Tells where `name` may not be the name of a provider or a key.
    pub fn name(&mut self, at: &At, name: &str) {
        if let Err(message) = check_name(name) {
            self.error(at.key("name"), message);
        }
    }

    fn find(&mut self, at: At, severity: Severity, message: String) {
        self.findings.push(Finding { at, severity, message, span: None });
    }
}

/// As POSIX has them (Base Definitions 8.1), in either case.
fn is_variable_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.starts_with(|first: char| first.is_ascii_digit()) && name.bytes().all(is_part)
}
