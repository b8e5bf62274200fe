//! `tollgate keys new`, `list`, `revoke`: virtual keys in config files.
//!
//! A key is `tg-` and the base64url form of 32 bytes from the operating system; the file gets its SHA-256.
//! Edits keep every comment and blank line of the file, and replace it by a rename, so that a reader sees the
//! old file or the new one. Two edits at one time: the second is refused by a lock on the directory.
//! Errors: a name that is taken or not there, a file that is no TOML or cannot be written.

use crate::cli::print::{self, Exit};
use crate::control::config::problem::{did_you_mean, quoted};
use crate::control::config::{Mode, Process, check_name, files_of, load};
use crate::policy::auth;
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table};

/// A key and what the config holds of it.
pub struct Generated {
    pub text: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub hash: String,
}

/// Makes a key. Errors: the operating system gives no random bytes.
pub fn generate() -> Result<Generated, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let text = format!("tg-{}", base64url(&bytes));
    let digits: String = auth::hash(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Generated { hash: format!("sha256:{digits}"), text })
}

pub fn new(name: &str, write: Option<&Path>, config: Option<&Path>) -> Exit {
    if let Err(message) = check_name(name) {
        return print::failure(&message, Exit::Usage);
    }
    let key = match generate() {
        Ok(key) => key,
        Err(message) => return print::failure(&message, Exit::Failed),
    };
    let Some(file) = write else {
        // As TOML writes strings, so that the lines can be pasted.
        let name = toml_edit::Value::from(name);
        let exit =
            print::result(&format!("{}\n\n[[key]]\nname = {name}\nhash = \"{}\"\n", key.text, key.hash));
        print::note("This key is shown once. The lines from [[key]] on belong into the config.");
        return exit;
    };
    for whole in [Some(file), config].into_iter().flatten() {
        let files = files_of(whole, &Process);
        if files.is_empty() && Some(whole) == config {
            return unreadable(whole);
        }
        if let Some(holder) = files.iter().find(|file| has_key(file, name)) {
            let message = format!("{}: a key {} is there already", holder.display(), quoted(name));
            return print::failure(&message, Exit::Usage);
        }
    }
    if let Err(Refused { message, exit }) =
        edit(file, Missing::Make, |document| add(document, name, &key.hash))
    {
        return print::failure(&message, exit);
    }
    let exit = print::result(&format!("{}\n", key.text));
    print::note(&format!("This key is shown once. Its entry {} is in {}.", quoted(name), file.display()));
    exit
}

pub fn list(file: &Path) -> Exit {
    let loaded = match load(file, Mode::Check, &Process) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print::problems(&problems);
            return Exit::Usage;
        }
    };
    let now = crate::base::clock::unix_ms();
    let states = loaded.snapshot.keys.all().iter().map(|key| match key.expires_unix_ms {
        _ if key.disabled => "disabled",
        Some(expires) if expires <= now => "expired",
        _ => "active",
    });
    let effective = loaded.effective.value();
    let written = effective["key"].as_array().into_iter().flatten();
    let rows = written.zip(states).map(|(key, state)| row(key, state));
    let head = ["NAME", "STATE", "EXPIRES", "MODELS"].map(str::to_string);
    print::result(&columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

pub fn revoke(name: &str, file: &Path) -> Exit {
    let files = files_of(file, &Process);
    if files.is_empty() {
        return unreadable(file);
    }
    let Some(holder) = files.iter().find(|file| has_key(file, name)) else {
        return print::failure(&no_key(name, file, &files), Exit::Usage);
    };
    let changed = match edit(holder, Missing::Refuse, |document| disable(document, name)) {
        Ok(changed) => changed,
        Err(Refused { message, exit }) => return print::failure(&message, exit),
    };
    let what = if changed { "is disabled" } else { "was disabled already" };
    let exit = print::result(&format!("{} {what} in {}\n", quoted(name), holder.display()));
    if let Err(problems) = load(file, Mode::Check, &Process) {
        print::problems(&problems);
        let message = "the config has errors: a running gateway goes on with the old one, this key included";
        return print::failure(message, Exit::Failed);
    }
    exit
}

/// Says why a config cannot be read, as `check` does.
fn unreadable(config: &Path) -> Exit {
    match load(config, Mode::Check, &Process) {
        Err(problems) => print::problems(&problems),
        // It could not be read a moment ago.
        Ok(_) => print::note(&format!("{} could not be read; try again", config.display())),
    }
    Exit::Usage
}

fn no_key(name: &str, file: &Path, files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().flat_map(|file| names_in(file)).collect();
    let near = did_you_mean(name, names.iter().map(String::as_str));
    format!("{} and what it includes have no key {}{near}", file.display(), quoted(name))
}

fn row(key: &Value, state: &str) -> [String; 4] {
    let rotating = key["hash"].as_array().is_some_and(|hashes| hashes.len() > 1);
    let state = if rotating { format!("{state}, rotating") } else { state.to_string() };
    let models: Vec<&str> =
        key["models"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    [
        key["name"].as_str().unwrap_or_default().to_string(),
        state,
        key["expires"].as_str().unwrap_or("never").to_string(),
        if models.is_empty() { "all".to_string() } else { models.join(" ") },
    ]
}

/// Rows with their columns aligned.
fn columns(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |[name, state, expires, models]: &[String; 4]| {
        let [a, b, c] = widths;
        format!("{name:a$}  {state:b$}  {expires:c$}  {models}\n")
    };
    rows.iter().map(line).collect()
}

/// What to do where the file to edit is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

struct Refused {
    message: String,
    exit: Exit,
}

/// Changes a file by `change`, which says whether there is anything to write. True: it was written.
fn edit(
    file: &Path,
    missing: Missing,
    change: impl FnOnce(&mut DocumentMut) -> Result<bool, String>,
) -> Result<bool, Refused> {
    let failed =
        |message: String| Refused { message: format!("{}: {message}", file.display()), exit: Exit::Failed };
    let wrong =
        |message: String| Refused { message: format!("{}: {message}", file.display()), exit: Exit::Usage };
    // The file behind a link is edited; the link stays.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let _lock = lock(directory).map_err(|error| failed(format!("cannot be edited now: {error}")))?;
    let text = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::Make => String::new(),
        Err(error) => return Err(failed(format!("cannot be read: {error}"))),
    };
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| wrong(format!("this is not TOML: {}", error.message())))?;
    if !change(&mut document).map_err(wrong)? {
        return Ok(false);
    }
    replace(&target, directory, &document.to_string())
        .map_err(|error| failed(format!("cannot be written: {error}")))?;
    Ok(true)
}

/// Held while a file of the directory is edited. Errors: somebody else holds it.
fn lock(directory: &Path) -> io::Result<fs::File> {
    let held = fs::File::open(directory)?;
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another edit is under way"),
            error => error.into(),
        }
    })?;
    Ok(held)
}

/// Writes beside `target` and renames, with its mode and owner. A new file is for its owner only.
fn replace(target: &Path, directory: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(target) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                chown(&beside, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        }
        file.sync_all()?;
        fs::rename(&beside, target)
    })();
    if written.is_err() {
        // What was begun is of no use; that it may not be there at all is no further error.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn add(document: &mut DocumentMut, name: &str, hash: &str) -> Result<bool, String> {
    let is_first = document.is_empty();
    let mut ending = document.trailing().as_str().unwrap_or_default().to_string();
    if !ending.is_empty() && !ending.ends_with('\n') {
        ending.push('\n');
    }
    let entries = document.entry("key").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    match entries {
        Item::ArrayOfTables(tables) => {
            let mut table = Table::new();
            table["name"] = toml_edit::value(name);
            table["hash"] = toml_edit::value(hash);
            // At the end of the file, behind the comments that end it.
            table.set_position(Some(isize::MAX));
            let comments = if is_first || ending.is_empty() { ending } else { ending + "\n" };
            table.decor_mut().set_prefix(if is_first { comments } else { format!("\n{comments}") });
            tables.push(table);
            document.set_trailing("");
        }
        Item::Value(toml_edit::Value::Array(list)) => {
            let mut table = InlineTable::new();
            table.insert("name", name.into());
            table.insert("hash", hash.into());
            list.push(table);
        }
        _ => return Err("key is not a list of tables".to_string()),
    }
    Ok(true)
}

/// Sets `disabled = true`. False: it was set.
fn disable(document: &mut DocumentMut, name: &str) -> Result<bool, String> {
    let entry = match document.get_mut("key") {
        Some(Item::ArrayOfTables(tables)) => {
            let named = tables.iter_mut().find(|table| is_named(table.get("name"), name));
            named.map(|table| table as &mut dyn toml_edit::TableLike)
        }
        Some(Item::Value(toml_edit::Value::Array(list))) => {
            let tables = list.iter_mut().filter_map(toml_edit::Value::as_inline_table_mut);
            let named = tables
                .into_iter()
                .find(|table| table.get("name").and_then(|value| value.as_str()) == Some(name));
            named.map(|table| table as &mut dyn toml_edit::TableLike)
        }
        _ => None,
    };
    let Some(entry) = entry else { return Err(format!("no key {}", quoted(name))) };
    if entry.get("disabled").and_then(Item::as_bool) == Some(true) {
        return Ok(false);
    }
    entry.insert("disabled", toml_edit::value(true));
    Ok(true)
}

fn is_named(item: Option<&Item>, name: &str) -> bool {
    item.and_then(Item::as_str) == Some(name)
}

fn has_key(file: &Path, name: &str) -> bool {
    names_in(file).iter().any(|found| found == name)
}

/// Names of the keys that stand in one file; none where it is no TOML.
fn names_in(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let Ok(document) = text.parse::<DocumentMut>() else { return Vec::new() };
    let name = |item: Option<&Item>| item.and_then(Item::as_str).map(str::to_string);
    match document.get("key") {
        Some(Item::ArrayOfTables(tables)) => {
            tables.iter().filter_map(|table| name(table.get("name"))).collect()
        }
        Some(Item::Value(toml_edit::Value::Array(list))) => {
            let tables = list.iter().filter_map(toml_edit::Value::as_inline_table);
            let names = tables.filter_map(|table| table.get("name").and_then(|value| value.as_str()));
            names.map(str::to_string).collect()
        }
        _ => Vec::new(),
    }
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let joined = group.iter().fold(0_u32, |joined, &byte| joined << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(char::from(ALPHABET[(joined >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{add, base64url, disable, generate};
    use crate::policy::auth;
    use toml_edit::DocumentMut;

    #[test]
    fn a_key_has_43_characters_after_its_prefix_and_its_hash_is_of_all_of_it() {
        let key = generate().unwrap();
        let secret = key.text.strip_prefix("tg-").unwrap();
        assert_eq!(secret.len(), 43);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        let digits: String =
            auth::hash(key.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(key.hash, format!("sha256:{digits}"));
        assert_ne!(key.text, generate().unwrap().text);
    }

    #[test]
    fn base64url_agrees_with_the_vectors_of_its_rfc() {
        // RFC 4648, section 10, without padding, and the two characters that differ from base64.
        let rows: [(&[u8], &str); 8] = [
            (b"", ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"fooba", "Zm9vYmE"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff, 0xbf], "-_-_"),
        ];
        for (bytes, text) in rows {
            assert_eq!(base64url(bytes), text);
        }
    }

    const COMMENTED: &str = "\
# top
[server] # the process
workers = 2

# blue
[[key]]
name = \"blue\" # a comment
hash = \"sha256:00\"

# after
[relay]
heartbeat_ms = 1
";

    #[test]
    fn adding_and_disabling_keep_every_line_that_was_there() {
        let mut document: DocumentMut = COMMENTED.parse().unwrap();
        add(&mut document, "red", "sha256:11").unwrap();
        assert_eq!(disable(&mut document, "blue"), Ok(true));
        assert_eq!(disable(&mut document, "blue"), Ok(false));
        let text = document.to_string();
        for line in COMMENTED.lines() {
            assert!(text.contains(line), "{line:?} is gone:\n{text}");
        }
        assert!(text.contains("[[key]]\nname = \"red\"\nhash = \"sha256:11\"\n"), "{text}");
        assert!(text.contains("hash = \"sha256:00\"\ndisabled = true\n"), "{text}");
    }

    #[test]
    fn an_entry_is_added_at_the_end_behind_the_comments_there() {
        let entry = "[[key]]\nname = \"red\"\nhash = \"sha256:11\"\n";
        // before, after
        let rows = [
            ("", entry.to_string()),
            ("# Keys.\n", format!("# Keys.\n{entry}")),
            ("[relay]\n", format!("[relay]\n\n{entry}")),
            ("[relay]\nheartbeat_ms = 1", format!("[relay]\nheartbeat_ms = 1\n\n{entry}")),
            ("[relay]\n# end", format!("[relay]\n\n# end\n\n{entry}")),
            ("[relay]\n# end\n", format!("[relay]\n\n# end\n\n{entry}")),
            (COMMENTED, format!("{COMMENTED}\n{entry}")),
        ];
        for (before, after) in rows {
            let mut document: DocumentMut = before.parse().unwrap();
            add(&mut document, "red", "sha256:11").unwrap();
            assert_eq!(document.to_string(), after);
            add(&mut document, "red", "sha256:11").unwrap();
            assert_eq!(document.to_string(), format!("{after}\n{entry}"));
        }
    }

    #[test]
    fn entries_in_a_list_of_inline_tables_are_edited_too() {
        let text = "key = [{ name = \"blue\", hash = \"sha256:00\" }]\n# end\n";
        let mut document: DocumentMut = text.parse().unwrap();
        add(&mut document, "red", "sha256:11").unwrap();
        assert_eq!(disable(&mut document, "red"), Ok(true));
        let text = document.to_string();
        assert!(text.contains("{ name = \"red\", hash = \"sha256:11\", disabled = true }"), "{text}");
        assert!(text.ends_with("# end\n"), "{text}");
    }

    #[test]
    fn a_name_that_is_not_there_cannot_be_disabled() {
        let mut document: DocumentMut = COMMENTED.parse().unwrap();
        assert!(disable(&mut document, "green").is_err());
        assert!(disable(&mut "".parse().unwrap(), "green").is_err());
        assert!(add(&mut "key = 5".parse().unwrap(), "green", "sha256:00").is_err());
    }
}
