//! `demo`: its first line is a URL, and what it prints to paste works.

use super::{Running, tollgate};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn the_demo_prints_a_url_first_and_a_key_that_streams() {
    for (listen, reach) in [("127.0.0.1:0", "on this machine only"), ("0.0.0.0:0", "open to the network")] {
        let printed = works(listen);
        assert!(printed.iter().any(|line| line.contains(reach)), "{printed:?}");
    }
}

/// Runs the demo, pastes what it prints, and ends it. The lines up to the curl line.
fn works(listen: &str) -> Vec<String> {
    let mut command = tollgate();
    command.args(["demo", "--listen", listen]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let address = url.strip_prefix("http://").expect("a URL comes first").to_string();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let mut printed: Vec<String> = Vec::new();
    while !printed.last().is_some_and(|line| line.contains("-d '")) {
        printed.push(lines.next().expect("a curl line").unwrap());
    }
    let key = printed.iter().find_map(|line| line.strip_prefix("key:")).unwrap().trim().to_string();
    let body = printed.iter().find_map(|line| line.trim().strip_prefix("-d '")?.strip_suffix('\'')).unwrap();

    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("data: {") && answer.contains("data: [DONE]"), "{answer}");

    assert_eq!(demo.terminate(), Some(0));
    printed
}
