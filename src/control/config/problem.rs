//! What is wrong with a config, and where: `file:line:column: key.path: what was found, what is allowed`.
//!
//! Lines and columns count from 1, columns in characters. A problem of a whole file that cannot be read has
//! no line. A message never holds the value of a secret: whoever writes one names the key instead.

use std::fmt;
use std::path::{Path, PathBuf};

/// Whether a problem keeps the config from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One problem at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub file: PathBuf,
    /// None: the file could not be read.
    pub place: Option<Place>,
    pub path: KeyPath,
    /// What was found and what is allowed.
    pub message: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset` of `text`; its end where `offset` lies behind it.
    pub fn of(text: &str, offset: usize) -> Place {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", display(&self.file))?;
        if let Some(place) = self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.path.0.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}

/// The way to a key: `provider[0].api_key.env`. Places in lists count from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(pub Vec<Step>);

/// One step of a `KeyPath`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    At(usize),
}

impl KeyPath {
    /// The path of a key of the file.
    pub fn new(key: &str) -> KeyPath {
        KeyPath::default().key(key)
    }

    /// The path of a key below this one.
    pub fn key(&self, key: &str) -> KeyPath {
        self.then(Step::Key(key.to_string()))
    }

    /// The path of a place in the list that stands here.
    pub fn at(&self, index: usize) -> KeyPath {
        self.then(Step::At(index))
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &KeyPath) -> bool {
        self.0.starts_with(&other.0)
    }

    fn then(&self, step: Step) -> KeyPath {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        KeyPath(steps)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::At(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    f.write_str(if at == 0 { "" } else { "." })?;
                    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                    if !key.is_empty() && key.bytes().all(bare) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{}", quoted(key))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// `text` in quotes, cut after 80 characters, without control characters: fit for a terminal.
pub fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_MAX).flat_map(char::escape_debug).collect();
    format!("\"{cut}{}\"", if text.chars().nth(QUOTED_MAX).is_some() { "..." } else { "" })
}

/// Characters of a value that a message shows.
const QUOTED_MAX: usize = 80;

/// `a`, `b` or `c`.
pub fn one_of<T: fmt::Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(T::to_string).collect();
            format!("{} or {last}", most.join(", "))
        }
    }
}

/// `(did you mean "x"?)` with the name nearest to `name`, or nothing where none is near.
pub fn did_you_mean<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, names).map_or(String::new(), |near| format!(" (did you mean {}?)", quoted(near)))
}

/// The one of `names` that `name` is most likely a slip of: at most a third of its characters wrong, missing
/// or swapped.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().take(NEAREST_MAX).flat_map(char::to_lowercase).collect();
    let allowed = (wanted.len() / 3).max(1);
    let distances = names.into_iter().map(|other| {
        let chars: Vec<char> = other.chars().take(NEAREST_MAX).flat_map(char::to_lowercase).collect();
        (distance(&wanted, &chars), other)
    });
    distances.filter(|&(distance, _)| distance <= allowed).min().map(|(_, other)| other)
}

/// Characters that are compared.
const NEAREST_MAX: usize = 64;

/// Optimal string alignment: inserted, missing, wrong and swapped characters.
fn distance(one: &[char], two: &[char]) -> usize {
    let (mut before_last, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=two.len()).collect());
    for (row, a) in one.iter().enumerate() {
        let mut here = vec![row + 1];
        for (column, b) in two.iter().enumerate() {
            let mut best =
                (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(here[column] + 1);
            if row > 0 && column > 0 && *a == two[column - 1] && one[row - 1] == *b {
                best = best.min(before_last[column - 1] + 1);
            }
            here.push(best);
        }
        before_last = std::mem::replace(&mut last, here);
    }
    last.last().copied().unwrap_or_default()
}

fn display(file: &Path) -> impl fmt::Display {
    file.display()
}

#[cfg(test)]
mod tests {
    use super::{KeyPath, Place, Problem, Severity, nearest, one_of, quoted};

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a\nb\u{e4}c\n";
        // offset, line, column
        let rows = [(0, 1, 1), (1, 1, 2), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 2, 3), (7, 3, 1), (99, 3, 1)];
        for (offset, line, column) in rows {
            assert_eq!(Place::of(text, offset), Place { line, column }, "at {offset}");
        }
    }

    #[test]
    fn a_problem_prints_its_place_its_path_and_its_message() {
        let problem = Problem {
            severity: Severity::Error,
            file: "gateway.toml".into(),
            place: Some(Place { line: 41, column: 13 }),
            path: KeyPath::new("model").at(2).key("targets").at(0).key("a b"),
            message: "no".into(),
        };
        assert_eq!(problem.to_string(), "gateway.toml:41:13: model[2].targets[0].\"a b\": no");
        let warning =
            Problem { severity: Severity::Warning, place: None, path: KeyPath::default(), ..problem };
        assert_eq!(warning.to_string(), "gateway.toml: warning: no");
    }

    #[test]
    fn the_nearest_name_is_a_slip_away_or_there_is_none() {
        // written, meant
        let rows = [
            ("antropic", Some("anthropic")),
            ("oepnai", Some("openai")),
            ("OpenAI", Some("openai")),
            ("mistral", None),
            ("", None),
            ("x", None),
        ];
        for (written, meant) in rows {
            assert_eq!(nearest(written, ["openai", "anthropic"]), meant, "{written}");
        }
    }

    #[test]
    fn a_value_is_cut_and_cleaned_for_a_terminal() {
        assert_eq!(quoted("a\u{1b}[31m\n"), "\"a\\u{1b}[31m\\n\"");
        assert_eq!(quoted(&"x".repeat(80)), format!("\"{}\"", "x".repeat(80)));
        assert_eq!(quoted(&"x".repeat(81)), format!("\"{}...\"", "x".repeat(80)));
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(one_of::<&str>(&[]), "");
        assert_eq!(one_of(&["a"]), "a");
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
    }
}
