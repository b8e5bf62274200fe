//! Tests of `control::config`: what a config compiles to. What it is told of is in `tests/goldens/config`.

use super::{Loaded, Surroundings, load, parse_only};
use crate::handler::snapshot::{AccessLog, AdminAddress, Workers};
use crate::llm::catalogue::Unpriced;
use crate::llm::price::Price;
use crate::llm::provider::ProviderKind;
use crate::policy::auth::{DrainCap, OnDisconnect};
use crate::policy::limit::plan::{AddressLimits, AtLimit, Chain, Level, Mode, NO_CELL, Window};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One environment for all: `KEY` is set, and these files are there.
struct Files(BTreeMap<PathBuf, String>);

impl Surroundings for Files {
    fn env(&self, name: &str) -> Option<String> {
        (name == "KEY").then(|| "sk-canary".to_string())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.as_bytes().to_vec())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.keys().rev().filter(|file| file.parent() == Some(directory)).cloned().collect())
    }
}

fn files<const N: usize>(files: [(&str, &str); N]) -> Files {
    Files(files.into_iter().map(|(path, text)| (path.into(), text.into())).collect())
}

fn loaded<const N: usize>(texts: [(&str, &str); N]) -> Loaded {
    load(Path::new("etc/main.toml"), super::Mode::Run, &files(texts)).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

const FULL: &str = r#"
    [server]
    workers = 3
    [[listener]]
    address = "127.0.0.1:8080"
    [admin]
    address = "unix:admin.sock"
    [limit]
    body_bytes_max = 2_048
    [timeout]
    idle_ms = 7
    total_ms = 8
    [log]
    access = { file = "access.log" }
    [[provider]]
    name = "one"
    kind = "openai"
    base_url = "https://one.example/v1"
    api_key = { file = "one.key" }
    headers = { "X-Team" = "sk-canary" }
    connections_max = 5
    timeout = { total_ms = 9, connect_ms = 10 }
    [[provider]]
    name = "two"
    kind = "anthropic"
    base_url = "http://127.0.0.1:1"
    api_key = { env = "KEY" }
    proxy = "http://proxy:3128"
    [[provider]]
    name = "three"
    kind = "mock"
    [[model]]
    name = "m-*"
    targets = [{ provider = "three" }, { provider = "one", model = "n-*", weight = 0 }]
    [[model]]
    name = "claude"
    targets = [{ provider = "two" }]
    [[key]]
    name = "free"
    hash = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
    on_disconnect = { drain = { bytes_max = 11 } }
    [[key]]
    name = "bound"
    hash = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
    models = ["m-*"]
    expires = 2100-01-01T00:00:00Z
    [[passthrough]]
    path = "/one/"
    provider = "one"
    [[passthrough]]
    path = "/one/two/"
    provider = "two"
    prefixes = ["/v1/"]
"#;

#[test]
fn a_config_compiles_to_what_it_says_and_to_defaults() {
    let snapshot = loaded([("etc/main.toml", FULL), ("etc/one.key", "sk-one\r\n")]).snapshot;
    assert_eq!(snapshot.server.workers, Workers::Count(3));
    assert_eq!(snapshot.admin.unwrap().address, AdminAddress::Unix("etc/admin.sock".into()));
    assert_eq!(snapshot.log.access, AccessLog::File("etc/access.log".into()));
    assert_eq!((snapshot.limits.body_bytes_max, snapshot.limits.head_bytes_max), (2_048, 32_768));
    assert_eq!(snapshot.timeouts.total, Duration::from_millis(8));
    let paths: Vec<&str> = snapshot.passthroughs.iter().map(|route| &*route.path).collect();
    assert_eq!(paths, ["/one/two/", "/one/"]);
    assert_eq!(*snapshot.passthroughs[0].prefixes, ["/v1".into()]);
}

#[test]
fn a_provider_takes_the_shared_timeouts_and_its_own() {
    let snapshot = loaded([("etc/main.toml", FULL), ("etc/one.key", "sk-one\r\n")]).snapshot;
    let [one, two, three] = &snapshot.providers[..] else { panic!("three providers") };
    let ms = Duration::from_millis;
    assert_eq!((one.timeouts.idle, one.timeouts.total), (ms(7), ms(9)));
    assert_eq!((two.timeouts.idle, two.timeouts.total), (ms(7), ms(8)));
    let origin = |index: Option<u32>| &snapshot.origins[index.unwrap() as usize].settings;
    assert_eq!(origin(one.origin).timeouts.connect, ms(10));
    assert_eq!((origin(one.origin).limits.connections_max, origin(one.origin).port), (5, 443));
    assert_eq!(origin(two.origin).proxy.as_ref().map(|proxy| proxy.port), Some(3128));
    assert_eq!(three.origin, None);
}

#[test]
fn credentials_become_headers_ready_to_send() {
    let snapshot = loaded([("etc/main.toml", FULL), ("etc/one.key", "sk-one\r\n")]).snapshot;
    let sent = |at: usize| {
        let header = snapshot.providers[at].credential.as_ref()?;
        Some((header.name.to_string(), String::from_utf8(header.value.expose_secret().to_vec()).unwrap()))
    };
    assert_eq!(sent(0), Some(("authorization".into(), "Bearer sk-one".into())));
    assert_eq!(sent(1), Some(("x-api-key".into(), "sk-canary".into())));
    assert_eq!(sent(2), None);
    assert_eq!(&*snapshot.providers[0].headers[0].name, "x-team");
}

#[test]
fn a_key_with_models_may_not_use_passthrough_unless_it_says_so() {
    let snapshot = loaded([("etc/main.toml", FULL), ("etc/one.key", "sk-one")]).snapshot;
    let [free, bound] = snapshot.keys.all() else { panic!("two keys") };
    assert!(free.passthrough && free.may_use("claude"));
    assert!(!bound.passthrough && bound.may_use("m-1") && !bound.may_use("claude"));
    assert_eq!(bound.expires_unix_ms, Some(4_102_444_800_000));
    assert_eq!(free.on_disconnect, OnDisconnect::Drain(DrainCap { bytes_max: 11, ..DrainCap::default() }));
}

#[test]
fn no_secret_is_in_what_is_shown() {
    let loaded = loaded([("etc/main.toml", FULL), ("etc/one.key", "sk-canary")]);
    let effective = loaded.effective.value();
    let shown = format!("{:?}{effective}", loaded.snapshot);
    assert!(!shown.contains("sk-canary"), "{shown}");
    assert!(!effective.to_string().contains("0000000000"), "{effective}");
    assert_eq!(effective["provider"][0]["headers"]["X-Team"], "***");
    assert_eq!(effective["provider"][1]["api_key"]["env"], "KEY");
}

#[test]
fn included_entries_follow_in_the_order_of_file_names_and_everything_read_is_watched() {
    let key = |name: &str, digit: u8| format!("[[key]]\nname = \"{name}\"\nhash = \"sha256:{digit:064}\"\n");
    let main = "include = [\"k/*.toml\", \"last.toml\"]\n[[listener]]\naddress = \"127.0.0.1:1\"\n";
    let loaded = loaded([
        ("etc/main.toml", main),
        ("etc/k/b.toml", &key("b", 1)),
        ("etc/k/a.toml", &key("a", 2)),
        ("etc/k/readme.md", "not toml"),
        ("etc/last.toml", &key("last", 3)),
    ]);
    let names: Vec<&str> = loaded.snapshot.keys.all().iter().map(|key| &*key.name).collect();
    assert_eq!(names, ["a", "b", "last"]);
    let watched: Vec<&str> = loaded.watched.iter().filter_map(|path| path.to_str()).collect();
    assert_eq!(watched, ["etc/main.toml", "etc/k", "etc/k/a.toml", "etc/k/b.toml", "etc/last.toml"]);
}

#[test]
fn credentials_and_certificates_are_watched() {
    let loaded = loaded([("etc/main.toml", FULL), ("etc/one.key", "sk-one")]);
    assert!(loaded.watched.contains(&PathBuf::from("etc/one.key")), "{:?}", loaded.watched);
}

#[test]
fn an_unreadable_main_file_is_named() {
    let problems = load(Path::new("etc/main.toml"), super::Mode::Check, &files([])).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["etc/main.toml: cannot be read: entity not found"]);
}

#[test]
fn a_shape_is_parsed_without_its_surroundings() {
    assert_eq!(parse_only(FULL).unwrap().key.len(), 2);
    let problems = parse_only("[server]\nworkers = -1").unwrap_err();
    assert_eq!((problems.len(), problems[0].place.unwrap().line), (1, 2));
}

const LIMITED: &str = r#"
    [ledger]
    directory = "state"
    [[listener]]
    address = "127.0.0.1:8080"
    limits = { concurrent = 7 }
    address_limits = { requests_per_minute = 8, shadow = true }
    [[listener]]
    address = "127.0.0.1:8081"
    [[provider]]
    name = "one"
    kind = "mock"
    limits = { tokens_per_minute = 9 }
    [[model]]
    name = "m-*"
    targets = [{ provider = "one" }]
    limits = { output_tokens_assumed = 10 }
    [[organisation]]
    name = "acme"
    limits = { requests_per_minute = 11, output_tokens_assumed = 12 }
    [[team]]
    name = "blue"
    organisation = "acme"
    budget = { usd = 0.25, window = "day", timezone = "europe/berlin", reset_hour = 6, alerts = [95, 80] }
    [[team]]
    name = "red"
    [[key]]
    name = "of-blue"
    hash = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
    team = "blue"
    limits = { streams = 1, concurrent = 2, shadow = true }
    budget = [
        { tokens = 13, window = "total", mode = "step", at_limit = "warn", shadow = true },
        { usd = 14, window = "week", mode = "step", step_tokens = 15, at_limit = { downgrade = "m-2" } },
    ]
    [[key]]
    name = "of-red"
    hash = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
    team = "red"
    [[key]]
    name = "alone"
    hash = "sha256:0000000000000000000000000000000000000000000000000000000000000003"
    limits = { requests_per_minute = 16 }
"#;

#[test]
fn a_key_is_under_its_own_limits_its_teams_and_its_organisations() {
    let plan = loaded([("etc/main.toml", LIMITED)]).snapshot.plan;
    let told = |chain: &Chain| -> Vec<String> {
        let limits = plan.of(chain).map(|(_, limit)| limit);
        limits.map(|limit| format!("{} {}", limit.name(), limit.amount)).collect()
    };
    let of_blue = [
        "key:of-blue/concurrent 2",
        "key:of-blue/streams 1",
        "key:of-blue/budget_tokens_total 13",
        "key:of-blue/budget_usd_week 140000000",
        "team:blue/budget_usd_day 2500000",
        "organisation:acme/requests_per_minute 11",
    ];
    assert_eq!(told(&plan.key(0)), of_blue);
    assert_eq!(told(&plan.key(1)), [""; 0]);
    assert_eq!(told(&plan.key(2)), ["key:alone/requests_per_minute 16"]);
    assert_eq!(told(&plan.provider(0)), ["provider:one/tokens_per_minute 9"]);
    assert_eq!(told(&plan.model(0)), [""; 0]);
    assert_eq!(told(&plan.listener(0)), ["listener:127.0.0.1:8080/concurrent 7"]);
    assert_eq!(told(&plan.listener(1)), [""; 0]);
    let assumed = |chain: Chain| chain.output_tokens_assumed.map(|tokens| tokens.get());
    assert_eq!([plan.key(0), plan.key(1), plan.model(0)].map(assumed), [Some(12), None, Some(10)]);
    let first = AddressLimits { requests_per_minute: Some(8), concurrent: None, shadow: true };
    assert_eq!(plan.address, [first, AddressLimits::default()]);
    let team = plan.team(0).map(|team| (&*team.name, team.organisation.as_deref()));
    assert_eq!(team, Some(("blue", Some("acme"))));
    assert!(plan.team(2).is_none());
}

#[test]
fn a_budget_says_when_it_begins_how_it_reserves_and_what_follows_it() {
    let plan = loaded([("etc/main.toml", LIMITED)]).snapshot.plan;
    let named = |name: &str| plan.limits.iter().find(|limit| limit.name() == name).unwrap();
    let week = named("key:of-blue/budget_usd_week");
    assert_eq!((week.mode, week.shadow), (Mode::Step(15), false));
    assert_eq!(week.at_limit, AtLimit::Downgrade("m-2".into()));
    let total = named("key:of-blue/budget_tokens_total");
    assert_eq!((total.mode, &total.at_limit, total.shadow), (Mode::Step(256), &AtLimit::Warn, true));
    let day = named("team:blue/budget_usd_day");
    assert_eq!((day.mode, &day.at_limit, day.level), (Mode::Full, &AtLimit::Refuse, Level::Team));
    assert_eq!(day.alerts.iter().collect::<Vec<_>>(), [80, 95]);
    let Window::Calendar(calendar) = &day.window else { panic!("{:?}", day.window) };
    assert_eq!(calendar.zone_name(), "Europe/Berlin");
    // 2026-11-21T05:00:00Z is six in Berlin.
    assert_eq!(calendar.window(1_795_237_200).start_unix_s, 1_795_237_200);
    assert!(plan.limits.iter().all(|limit| limit.cell == NO_CELL && limit.amount > 0));
}

#[test]
fn lists_of_models_are_read_over_the_built_in_one_and_watched() {
    let main = "[[listener]]\naddress = \"127.0.0.1:1\"\n[catalogue]\nmodels = \"ours.toml\"\nlitellm = \"theirs.json\"\n\
        unpriced = { usd_per_million_tokens = 0.5 }\n";
    let theirs = r#"{"gpt-4o": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6},
        "new": {"input_cost_per_token": 2e-6, "output_cost_per_token": 0}}"#;
    let ours = "[us]\n\"gpt-4o\" = { input = 3, output = 4, output_max = 5 }\n";
    let loaded = loaded([("etc/main.toml", main), ("etc/ours.toml", ours), ("etc/theirs.json", theirs)]);
    let model = |name| loaded.snapshot.catalogue.model(ProviderKind::OpenAi, name);
    let input = |name| model(name).price.map(|price| price.rates.input);
    assert_eq!(
        ["gpt-4o", "new", "o3", "x"].map(input),
        [Some(3_000_000), Some(2_000_000), Some(2_000_000), None]
    );
    assert_eq!(model("gpt-4o").output_max, Some(5));
    assert_eq!(loaded.snapshot.unpriced, Unpriced::Ceiling(Price::flat(500_000)));
    for file in ["etc/ours.toml", "etc/theirs.json"] {
        assert!(loaded.watched.contains(&PathBuf::from(file)), "{:?}", loaded.watched);
    }
}
