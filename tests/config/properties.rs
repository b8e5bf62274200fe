//! Whatever stands in a file: no panic, a place with every problem, no secret in any message.

use super::surroundings::Maps;
use super::{files, root};
use proptest::prelude::*;
use std::path::Path;
use std::sync::OnceLock;
use tollgate::control::config::problem::Problem;
use tollgate::control::config::{Mode, load, parse_only};

/// Every text that is shipped or a golden.
fn texts() -> &'static [String] {
    static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let directories = ["conf", "conf/examples", "tests/goldens/config"].map(|name| root().join(name));
        let paths = directories.iter().flat_map(|directory| files(directory, "toml"));
        paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    })
}

/// One change to a text, by bytes: places count modulo its length.
#[derive(Clone, Debug)]
enum Change {
    Remove { from: usize, count: usize },
    Insert { at: usize, text: &'static str },
    SwapLines { one: usize, two: usize },
    DoubleLine { line: usize },
}

const INSERTED: [&str; 20] = [
    "\"",
    "'",
    "[",
    "]]",
    "{",
    "}",
    "=",
    "\n",
    "0",
    "-1",
    "1e999",
    "true",
    "[]",
    "{}",
    "\u{0}",
    "\u{fc}",
    "tg-canary",
    "*",
    "2027-01-31T00:00:00Z",
    "\n[[model]]\nname = \"*\"\ntargets = [{}]\n",
];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 1..40_usize).prop_map(|(from, count)| Change::Remove { from, count }),
        (any::<usize>(), prop::sample::select(&INSERTED[..]))
            .prop_map(|(at, text)| Change::Insert { at, text }),
        (any::<usize>(), any::<usize>()).prop_map(|(one, two)| Change::SwapLines { one, two }),
        any::<usize>().prop_map(|line| Change::DoubleLine { line }),
    ]
}

fn changed(text: &str, changes: &[Change]) -> String {
    let mut text = text.to_string();
    for change in changes {
        let boundary =
            |at: usize| (0..=at % (text.len() + 1)).rev().find(|&at| text.is_char_boundary(at)).unwrap();
        let mut lines: Vec<&str> = text.split('\n').collect();
        text = match *change {
            Change::Remove { from, count } => {
                let (from, to) = (boundary(from), boundary(from.saturating_add(count)));
                [&text[..from.min(to)], &text[from.max(to)..]].concat()
            }
            Change::Insert { at, text: inserted } => {
                let (before, after) = text.split_at(boundary(at));
                [before, inserted, after].concat()
            }
            Change::SwapLines { one, two } => {
                let count = lines.len();
                lines.swap(one % count, two % count);
                lines.join("\n")
            }
            Change::DoubleLine { line } => {
                let line = line % lines.len();
                lines.insert(line, lines[line]);
                lines.join("\n")
            }
        };
    }
    text
}

/// What `text` is told, and what it loads to.
fn everything_said(text: &str) -> (Vec<Problem>, String) {
    let surroundings = Maps::default()
        .env("OPENAI_API_KEY", "env-canary")
        .env("ANTHROPIC_API_KEY", "env-canary")
        .file("c.toml", text);
    match load(Path::new("c.toml"), Mode::Check, &surroundings) {
        Err(problems) => (problems, String::new()),
        Ok(loaded) => {
            let said = format!("{:?}{}", loaded.snapshot, loaded.effective.value());
            (loaded.warnings, said)
        }
    }
}

/// Places lie inside of the text, messages are one line, and no secret is said.
fn assert_told_well(text: &str, problems: &[Problem], loaded: &str) {
    let lines = text.split('\n').count();
    for problem in problems {
        let printed = problem.to_string();
        let place = problem.place.unwrap_or_else(|| panic!("no place: {printed}"));
        assert!((1..=lines).contains(&place.line) && place.column >= 1, "{printed}\n{text}");
        assert!(!problem.message.is_empty() && !printed.contains(char::is_control), "{printed:?}");
        assert!(!printed.contains("env-canary"), "{printed}");
    }
    assert!(!loaded.contains("env-canary"), "{loaded}");
}

/// Printable characters, or those that TOML is made of.
const ANY: &str = "\\PC{0,200}|[\\[\\]a-z=\"'{},.\n#0-9 ]{0,200}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_and_every_problem_has_a_place(
        of in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let text = changed(of.get::<String>(texts()), &changes);
        let (problems, loaded) = everything_said(&text);
        assert_told_well(&text, &problems, &loaded);
        if let Err(problems) = parse_only(&text) {
            prop_assert!(!problems.is_empty());
            assert_told_well(&text, &problems, "");
        }
    }

    #[test]
    fn any_characters_are_refused_with_a_place_or_taken(text in ANY) {
        let (problems, loaded) = everything_said(&text);
        assert_told_well(&text, &problems, &loaded);
    }
}

#[test]
fn control_characters_within_a_number_are_shown_escaped() {
    for text in ["[limit]\nbody_bytes_max = 2_04\u{8}8\n", "[limit]\nbody_bytes_max = 1.5\u{1b}[31m\n"] {
        let (problems, _) = everything_said(text);
        assert!(!problems.is_empty());
        assert_told_well(text, &problems, "");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_never_said_back() {
    let text = include_str!("../goldens/config/credentials-in-the-file.toml");
    let (problems, _) = everything_said(text);
    assert!(problems.len() >= 8);
    for problem in problems {
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}
