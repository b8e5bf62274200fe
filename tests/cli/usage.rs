//! `tollgate usage` where there is nothing to show: what it says and how it ends.

use crate::cli::{Directory, ended};

#[test]
fn what_is_wrong_is_told_in_a_line() {
    let directory = Directory::new();
    let bare = directory.file("bare.toml", "[[listener]]\naddress = \"127.0.0.1:0\"\n");
    let state = directory.path("state");
    let named = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n\n[ledger]\ndirectory = \"{state}\"\n");
    let with_ledger = directory.file("with.toml", &named);
    // arguments, exit status, what is told
    let rows: [(&[&str], i32, &str); 7] = [
        (&["usage"], 2, "<FILE>"),
        (&["usage", &bare], 2, "has no [ledger]: nothing is recorded"),
        (&["usage", &with_ledger], 1, "state holds no ledger"),
        (&["usage", &with_ledger, "--records"], 1, "state holds no ledger"),
        (&["usage", "--directory", &state, "--by", "kye"], 2, "\"kye\" is nothing that usage is summed by"),
        (&["usage", "--directory", &state, "--since", "1x"], 2, "since is \"1x\"; allowed: a time ago"),
        (&["usage", "--directory", &state, "--format", "xml"], 2, "invalid value 'xml'"),
    ];
    for (arguments, status, told) in rows {
        let ended = ended(arguments);
        assert_eq!((ended.status, &*ended.stdout), (Some(status), ""), "{arguments:?} {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
    }
    assert!(!std::path::Path::new(&state).exists(), "asking makes nothing");
}
