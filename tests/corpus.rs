//! Recorded provider traffic (`../shared/wire`): the cases whose dialect the gateway speaks.
//!
//! The folder stands beside the repository and not in it; where it is absent, tests that need it say so and
//! check nothing.

use serde_json::Value;
use std::path::{Path, PathBuf};
use tollgate::llm::dialect::Dialect;
use tollgate::usage::meter::Shape;

/// A recorded answer.
pub struct Case {
    /// `folder/name`, as in the folder's `INDEX.tsv`.
    pub name: String,
    pub dialect: Dialect,
    pub shape: Shape,
    pub status: u16,
    pub body: Vec<u8>,
    /// The body as it came, where that was recorded.
    pub gzip: Option<Vec<u8>>,
    /// What a correct reader gets out of the body, where the folder says.
    pub expect: Option<Value>,
}

/// The cases in our dialects; empty, with a line on stderr, where the folder is absent.
pub fn cases() -> Vec<Case> {
    // Cargo sets it for what it runs, too; so a binary that was built elsewhere looks beside what it runs
    // for.
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").to_string());
    let folder = Path::new(&root).join("../shared/wire");
    let Ok(index) = std::fs::read_to_string(folder.join("INDEX.tsv")) else {
        eprintln!("skipped: all cases of ../shared/wire, which is not there");
        return Vec::new();
    };
    index.lines().skip(1).filter_map(|row| case(&folder, row)).collect()
}

fn case(folder: &Path, row: &str) -> Option<Case> {
    let mut columns = row.split('\t');
    let name = columns.next()?;
    let mut columns = columns.skip(1);
    let dialect = match columns.next()? {
        "chat" | "openai_compat_chat" | "cloud_openai_compat_chat" => Dialect::OpenAiChat,
        "completions" => Dialect::OpenAiCompletions,
        "embeddings" => Dialect::OpenAiEmbeddings,
        "responses" | "mantle_responses" => Dialect::OpenAiResponses,
        "messages" => Dialect::Anthropic,
        _ => return None,
    };
    let mut columns = columns.skip(2);
    let status: u16 = columns.next()?.parse().expect("a status");
    let shape = if columns.next()? == "yes" && status == 200 { Shape::Stream } else { Shape::Whole };
    let file = |suffix: &str| -> PathBuf { folder.join(format!("{name}.{suffix}")) };
    let body = std::fs::read(file("response.body")).expect("every case has a body");
    let gzip = std::fs::read(file("response.body.gz")).ok();
    let expect = std::fs::read(file("expect.json")).ok();
    let expect = expect.map(|text| serde_json::from_slice(&text).expect("JSON"));
    Some(Case { name: name.to_string(), dialect, shape, status, body, gzip, expect })
}

impl Case {
    /// The body's events; a whole answer is none.
    pub fn events(&self) -> Vec<&[u8]> {
        let (mut framer, mut rest, mut events) =
            (tollgate::codec::sse::Framer::new(), &self.body[..], Vec::new());
        while let Some(end) = framer.end_of_event(rest) {
            events.push(&rest[..end]);
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            events.push(rest);
        }
        events
    }
}
