//! The files of a config: read, parsed, checked for shape, and joined into one `raw::File`.
//!
//! Entries of included files are appended to the lists of the main file; `came_from` remembers the place of
//! each, so that a finding about the joined list names the file and the place that the operator wrote. Spans
//! are looked up only when there is something to tell: the text is then parsed once more. A long list of keys is
//! parsed in pieces (`chunks`).
//! Errors: unreadable file, no UTF-8, no TOML, wrong shape, an `include` that names nothing or too much.

use crate::control::config::problem::{KeyPath, Place, Problem, Severity, Step};
use crate::control::config::{FILES_MAX, Surroundings, chunks, raw, schema, shape};
use serde::Deserialize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// Where a key stands: the file, by its place in `Sources::documents`, and the path in it.
#[derive(Clone, Debug)]
pub struct At {
    pub document: usize,
    pub path: KeyPath,
}

impl At {
    /// The place of a key below this one.
    pub fn key(&self, key: &str) -> At {
        At { document: self.document, path: self.path.key(key) }
    }

    /// An entry of the list that stands here.
    pub fn at(&self, index: usize) -> At {
        At { document: self.document, path: self.path.at(index) }
    }
}

/// Something to tell about a place.
#[derive(Clone, Debug)]
pub struct Finding {
    pub at: At,
    pub severity: Severity,
    pub message: String,
    /// Where it stands, if that is known already.
    pub span: Option<Range<usize>>,
}

/// The lists that included files add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Provider,
    Model,
    Key,
    Passthrough,
    Organisation,
    Team,
}

impl List {
    fn name(self) -> &'static str {
        match self {
            List::Provider => "provider",
            List::Model => "model",
            List::Key => "key",
            List::Passthrough => "passthrough",
            List::Organisation => "organisation",
            List::Team => "team",
        }
    }
}

/// All files, joined.
#[derive(Debug, Default)]
pub struct Sources {
    pub raw: raw::File,
    /// Files and directories whose change may change the config.
    pub watched: Vec<PathBuf>,
    documents: Vec<Document>,
    findings: Vec<Finding>,
    /// Paths that are at fault already: nothing more is told of them, nor of what lies below.
    silent: Vec<At>,
    /// For each list (by `List`): document and place of its entries.
    came_from: [Vec<(u32, u32)>; 6],
    size: chunks::Size,
}

#[derive(Debug)]
struct Document {
    path: PathBuf,
    /// None: unreadable.
    text: Option<String>,
}

impl Sources {
    /// Reads the main file and what it includes.
    pub fn read(path: &Path, surroundings: &dyn Surroundings) -> Sources {
        let mut sources = Sources::default();
        let main = sources.open(path, surroundings, None);
        sources.raw = sources.parse(main, schema::of_file()).unwrap_or_default();
        sources.came_from = [
            places(main, sources.raw.provider.len()),
            places(main, sources.raw.model.len()),
            places(main, sources.raw.key.len()),
            places(main, sources.raw.passthrough.len()),
            places(main, sources.raw.organisation.len()),
            places(main, sources.raw.team.len()),
        ];
        let includes = std::mem::take(&mut sources.raw.include);
        for (index, include) in includes.iter().enumerate() {
            let at = At { document: main, path: KeyPath::new("include").at(index) };
            sources.include(include, &at, surroundings);
        }
        sources.raw.include = includes;
        sources
    }

    /// Only the shape of `text`: what it includes is not read.
    pub fn of_text(text: &str) -> Sources {
        let mut sources = Sources::default();
        sources.documents.push(Document { path: "config".into(), text: Some(text.to_string()) });
        sources.raw = sources.parse(0, schema::of_file()).unwrap_or_default();
        sources
    }

    /// The files that could be read.
    pub fn files(self) -> Vec<PathBuf> {
        let readable = self.documents.into_iter().filter(|document| document.text.is_some());
        readable.map(|document| document.path).collect()
    }

    /// Whether the main file could be parsed at all: if not, its absent parts are not to be judged.
    pub fn is_whole(&self) -> bool {
        !self.silent.iter().any(|at| at.path == KeyPath::default())
    }

    /// Whether a file could not be read, is no TOML or has a fault of shape.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Whether something at `at` or below it had a fault of shape and was taken out.
    pub fn lacks_something(&self, at: &At) -> bool {
        self.silent.iter().any(|gone| gone.document == at.document && gone.path.is_within(&at.path))
    }

    /// The place of a key of the main file.
    pub fn main(&self, key: &str) -> At {
        At { document: 0, path: KeyPath::new(key) }
    }

    /// The place of entry `index` of a joined list.
    pub fn entry(&self, list: List, index: usize) -> At {
        let (document, place) = self.came_from[list as usize].get(index).copied().unwrap_or_default();
        At { document: document as usize, path: KeyPath::new(list.name()).at(place as usize) }
    }

    /// The directory that relative paths at `at` start from.
    pub fn directory(&self, at: &At) -> PathBuf {
        let path = self.documents.get(at.document).map(|document| document.path.as_path());
        path.and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf()
    }

    /// The place as a message about another place names it: `keys.d/a.toml:3:8`.
    pub fn refer(&self, at: &At) -> String {
        let Some(Document { path, text: Some(text) }) = self.documents.get(at.document) else {
            return at.path.to_string();
        };
        let place = Place::of(text, span_of(DeTable::parse_recoverable(text).0, &at.path).start);
        format!("{}:{}:{}", path.display(), place.line, place.column)
    }

    /// Own findings and `others` as problems in the order of the files and of their lines.
    pub fn problems(&self, others: &[Finding]) -> Vec<Problem> {
        let told = others.iter().filter(|finding| !self.is_silent(&finding.at));
        let all: Vec<&Finding> = self.findings.iter().chain(told).collect();
        let mut placed = Vec::with_capacity(all.len());
        for (index, Document { path, text }) in self.documents.iter().enumerate() {
            let here = all.iter().filter(|finding| finding.at.document == index);
            let mut tree = None;
            for finding in here {
                let place = text.as_ref().map(|text| {
                    let span = finding.span.clone().unwrap_or_else(|| {
                        let tree = tree.get_or_insert_with(|| DeTable::parse_recoverable(text).0);
                        span_in(tree, &finding.at.path)
                    });
                    Place::of(text, span.start)
                });
                placed.push((
                    index,
                    Problem {
                        severity: finding.severity,
                        file: path.clone(),
                        place,
                        path: finding.at.path.clone(),
                        message: finding.message.clone(),
                    },
                ));
            }
        }
        placed
            .sort_by(|(file_a, a), (file_b, b)| (file_a, a.place, &a.path).cmp(&(file_b, b.place, &b.path)));
        placed.into_iter().map(|(_, problem)| problem).collect()
    }

    fn is_silent(&self, at: &At) -> bool {
        let silent = |quiet: &At| quiet.document == at.document && at.path.is_within(&quiet.path);
        self.silent.iter().any(silent)
    }

    /// Reads a file into `documents`; what keeps it from being read is told at `named_at`, or of the file
    /// itself.
    fn open(&mut self, path: &Path, surroundings: &dyn Surroundings, named_at: Option<&At>) -> usize {
        self.watched.push(path.to_path_buf());
        let read = surroundings.read(path).map_err(|error| reason(&error));
        let text = read.and_then(|bytes| match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                Err(format!("byte {} is not UTF-8; a config is UTF-8 text", error.utf8_error().valid_up_to()))
            }
        });
        let index = self.documents.len();
        let (text, unreadable) = match text {
            Ok(text) => (Some(text), None),
            Err(why) => (None, Some(why)),
        };
        self.documents.push(Document { path: path.to_path_buf(), text });
        if let Some(why) = unreadable {
            let whole = At { document: index, path: KeyPath::default() };
            match named_at {
                Some(at) => self.find(at.clone(), format!("{} cannot be read: {why}", path.display())),
                None => self.find(whole.clone(), format!("cannot be read: {why}")),
            }
            self.silent.push(whole);
        }
        index
    }

    /// Parses a document and checks its shape. None: it is not TOML.
    fn parse<T: WithKeys>(&mut self, document: usize, schema: &serde_json::Value) -> Option<T> {
        let text = std::mem::take(&mut self.documents.get_mut(document)?.text)?;
        let pieces = chunks::split(&text, self.size);
        let in_pieces = pieces.and_then(|pieces| self.parse_pieces(&text, document, schema, &pieces));
        let parsed = in_pieces.or_else(|| self.parse_text(&text, document, schema));
        self.documents.get_mut(document)?.text = Some(text);
        parsed
    }

    /// As `parse_text`, of a text in pieces. None: it has to be parsed as a whole.
    fn parse_pieces<T: WithKeys>(
        &mut self,
        text: &str,
        document: usize,
        schema: &serde_json::Value,
        pieces: &[Range<usize>],
    ) -> Option<T> {
        let (first, others) = pieces.split_first()?;
        let before = (self.findings.len(), self.silent.len());
        let mut parse = || {
            let (tree, errors) = DeTable::parse_recoverable(&text[first.clone()]);
            // A key that is written otherwise: no list can go on from it.
            if !errors.is_empty() || tree.get_ref().contains_key("key") {
                return None;
            }
            let mut joined: T = self.take_tree(tree, document, schema, Shift::default()).ok()?;
            for piece in others {
                let (tree, errors) = DeTable::parse_recoverable(&text[piece.clone()]);
                if !errors.is_empty() {
                    return None;
                }
                let shift = Shift { bytes: piece.start, keys: joined.keys().len() };
                let schema = schema::of_included_file();
                let part: raw::IncludedFile = self.take_tree(tree, document, schema, shift).ok()?;
                joined.keys().extend(part.key);
            }
            Some(joined)
        };
        let joined = parse();
        if joined.is_none() {
            self.findings.truncate(before.0);
            self.silent.truncate(before.1);
        }
        joined
    }

    fn parse_text<T: for<'de> Deserialize<'de>>(
        &mut self,
        text: &str,
        document: usize,
        schema: &serde_json::Value,
    ) -> Option<T> {
        let (tree, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors {
                self.not_toml(document, error.message(), error.span());
            }
            return None;
        }
        match self.take_tree(tree, document, schema, Shift::default()) {
            Ok(raw) => Some(raw),
            Err(error) => {
                self.not_toml(document, error.message(), error.span());
                None
            }
        }
    }

    /// Checks the shape of what was parsed, and takes it over.
    fn take_tree<T: for<'de> Deserialize<'de>>(
        &mut self,
        mut tree: Spanned<DeTable<'_>>,
        document: usize,
        schema: &serde_json::Value,
        shift: Shift,
    ) -> Result<T, toml::de::Error> {
        for fault in shape::check(&mut tree, schema) {
            let at = At { document, path: shift.path(fault.path) };
            self.silent.push(at.clone());
            self.silent.extend(fault.meant.map(|path| At { document, path: shift.path(path) }));
            let (severity, span) = (Severity::Error, Some(shift.span(fault.span)));
            self.findings.push(Finding { at, severity, message: fault.message, span });
        }
        T::deserialize(Deserializer::from(tree))
    }

    fn not_toml(&mut self, document: usize, message: &str, span: Option<Range<usize>>) {
        let at = At { document, path: KeyPath::default() };
        self.silent.push(at.clone());
        let (severity, message) = (Severity::Error, format!("this is not TOML: {message}"));
        self.findings.push(Finding { at, severity, message, span: span.or(Some(0..0)) });
    }

    fn include(&mut self, include: &str, at: &At, surroundings: &dyn Surroundings) {
        let files = match self.expand(include, at, surroundings) {
            Ok(files) => files,
            Err(message) => return self.find(at.clone(), message),
        };
        for file in files {
            if self.documents.iter().any(|document| document.path == file) {
                self.find(at.clone(), format!("{} is read already; name each file once", file.display()));
                continue;
            }
            if self.documents.len() >= FILES_MAX {
                return self.find(at.clone(), format!("more than {FILES_MAX} files, allowed: {FILES_MAX}"));
            }
            let document = self.open(&file, surroundings, Some(at));
            let included: Option<raw::IncludedFile> = self.parse(document, schema::of_included_file());
            self.append(document, included.unwrap_or_default());
        }
    }

    /// The files that one entry of `include` names, sorted.
    fn expand(
        &mut self,
        include: &str,
        at: &At,
        surroundings: &dyn Surroundings,
    ) -> Result<Vec<PathBuf>, String> {
        let path = self.directory(at).join(include);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((before, after)) = name.split_once('*') else { return Ok(vec![path]) };
        let directory = path.parent().unwrap_or(Path::new(""));
        if after.contains('*') || directory.to_str().is_none_or(|text| text.contains('*')) {
            return Err("allowed: one * in the last part of the path".to_string());
        }
        self.watched.push(directory.to_path_buf());
        let listed = match directory.as_os_str().is_empty() {
            true => surroundings.list(Path::new(".")),
            false => surroundings.list(directory),
        };
        let listed = listed.map_err(|error| {
            format!("the directory {} cannot be read: {}", directory.display(), reason(&error))
        })?;
        let named = |file: &PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str());
            let rest = name.and_then(|name| name.strip_prefix(before));
            rest.is_some_and(|rest| rest.ends_with(after))
        };
        let mut files: Vec<PathBuf> = listed.into_iter().filter(named).collect();
        files.sort();
        Ok(files)
    }

    fn append(&mut self, document: usize, included: raw::IncludedFile) {
        let [providers, models, keys, passthroughs, organisations, teams] = &mut self.came_from;
        providers.extend(places(document, included.provider.len()));
        models.extend(places(document, included.model.len()));
        keys.extend(places(document, included.key.len()));
        passthroughs.extend(places(document, included.passthrough.len()));
        organisations.extend(places(document, included.organisation.len()));
        teams.extend(places(document, included.team.len()));
        self.raw.provider.extend(included.provider);
        self.raw.model.extend(included.model);
        self.raw.key.extend(included.key);
        self.raw.passthrough.extend(included.passthrough);
        self.raw.organisation.extend(included.organisation);
        self.raw.team.extend(included.team);
    }

    fn find(&mut self, at: At, message: String) {
        self.findings.push(Finding { at, severity: Severity::Error, message, span: None });
    }
}

/// Where a piece of a file stands in it.
#[derive(Clone, Copy, Default)]
struct Shift {
    bytes: usize,
    /// Keys before it.
    keys: usize,
}

impl Shift {
    fn path(self, mut path: KeyPath) -> KeyPath {
        if let [Step::Key(list), Step::At(index), ..] = &mut path.0[..]
            && *list == *List::Key.name()
        {
            *index += self.keys;
        }
        path
    }

    fn span(self, span: Range<usize>) -> Range<usize> {
        span.start + self.bytes..span.end + self.bytes
    }
}

/// A file that may have keys.
trait WithKeys: for<'de> Deserialize<'de> {
    fn keys(&mut self) -> &mut Vec<raw::Key>;
}

impl WithKeys for raw::File {
    fn keys(&mut self) -> &mut Vec<raw::Key> {
        &mut self.key
    }
}

impl WithKeys for raw::IncludedFile {
    fn keys(&mut self) -> &mut Vec<raw::Key> {
        &mut self.key
    }
}

fn places(document: usize, count: usize) -> Vec<(u32, u32)> {
    (0..count).map(|place| (document as u32, place as u32)).collect()
}

/// What the system says, without its number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn span_of(tree: Spanned<DeTable<'_>>, path: &KeyPath) -> Range<usize> {
    span_in(&tree, path)
}

/// The span of the value at `path`, or of the nearest thing above it that is written.
fn span_in(tree: &Spanned<DeTable<'_>>, path: &KeyPath) -> Range<usize> {
    let mut span = tree.span();
    let mut here: Option<&Spanned<DeValue<'_>>> = None;
    for (depth, step) in path.0.iter().enumerate() {
        let next = match (step, here) {
            (Step::Key(key), None) if depth == 0 => tree.get_ref().get(&**key),
            (Step::Key(key), Some(value)) => value.get_ref().get(&**key),
            (Step::At(index), Some(value)) => value.get_ref().get(*index),
            _ => None,
        };
        let Some(next) = next else { return span };
        span = next.span();
        here = Some(next);
    }
    span
}

#[cfg(test)]
mod tests {
    use super::{Document, Sources, chunks, schema};
    use crate::control::config::effective::Effective;
    use crate::control::config::raw;

    /// What is read, told and kept silent of a text that is cut so.
    fn read(text: &str, size: chunks::Size) -> (Option<Effective>, Vec<String>, Vec<String>) {
        let mut sources = Sources { size, ..Sources::default() };
        sources.documents.push(Document { path: "c.toml".into(), text: Some(text.to_string()) });
        let read: Option<raw::File> = sources.parse(0, schema::of_file());
        let told = sources.problems(&[]).iter().map(ToString::to_string).collect();
        let silent = sources.silent.iter().map(|at| at.path.to_string()).collect();
        (read.map(Effective::new), told, silent)
    }

    #[test]
    fn pieces_read_as_the_whole_and_tell_the_same_faults_at_the_same_places() {
        let key =
            |name: &str, more: &str| format!("[[key]]\nname = \"{name}\"\nhash = \"sha256:00\"\n{more}\n");
        let keys = |more: &str| -> String {
            let many = ["a", "b", "c", "d", "e"].map(|name| key(name, ""));
            let (one, two) = (key("f", more), key("g", ""));
            format!("[server]\nworkers = 2\n\n{}{one}{two}", many.concat())
        };
        let rows = [
            ("as it should be", keys("[key.limits]\nconcurrent = 2\n")),
            (
                "a comment behind a header",
                keys("").replace("[[key]]\nname = \"b\"", "[[key]] # b\nname = \"b\""),
            ),
            ("an unknown key", keys("limitz = 1")),
            ("a value of the wrong type", keys("disabled = 3\nmodels = [1]")),
            ("a missing key", keys("").replace("name = \"d\"\n", "")),
            ("no TOML", keys("x = = 1")),
            ("a key twice", keys("name = \"f\"")),
            ("a table twice", keys("[key.limits]\n[key.limits]")),
            ("keys of two forms", format!("key = []\n{}", keys(""))),
            ("a fault before the keys", keys("").replace("workers = 2", "workers = -2")),
            ("something behind them", format!("{}[[team]]\nname = \"blue\"\n", keys(""))),
            ("a header in a string", keys("models = [\"\"\"\n[[key]]\n\"\"\"]")),
        ];
        for (name, text) in rows {
            let whole = read(&text, chunks::Size::default());
            for keys in 1..4 {
                let pieces = read(&text, chunks::Size { bytes_min: 0, keys });
                assert_eq!(pieces, whole, "{name}, {keys} keys a piece");
            }
        }
    }
}
