//! A budget that is spent so far that somebody wants to know, on the built binary: stderr, metrics, webhook, and
//! what the admin listener says of limits.

use crate::process::gateway::{Gateway, KEY, config, exchange, soon, status};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

/// Takes messages and answers that they are taken.
fn webhook() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut text = Vec::new();
            let mut piece = [0; 4096];
            while !text.ends_with(b"}") {
                match stream.read(&mut piece) {
                    Ok(read @ 1..) => text.extend_from_slice(&piece[..read]),
                    Ok(0) | Err(_) => break,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 204 Taken\r\n\r\n");
            let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
        }
    });
    (address, received)
}

#[test]
fn a_budget_that_is_spent_is_told_of_once_on_every_way() {
    let (hook, received) = webhook();
    let more = format!(
        "[ledger]\ndirectory = \"state\"\n\n[alerts]\nwebhook = \"http://{hook}/told?by=it\"\n\n[[provider]]\nname = \"fake\"\nkind = \"mock\"\n\n\
         [[model]]\nname = \"fake\"\ntargets = [{{ provider = \"fake\" }}]\n\
         budget = {{ tokens = 5, window = \"total\", alerts = [50, 100], at_limit = \"warn\" }}\n"
    );
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let gateway = Gateway::start(&config(nowhere, &more));
    let name = "model:fake/budget_tokens_total";
    assert_eq!(gateway.metrics()[&format!("tollgate_limit_used{{limit=\"{name}\"}}")], 0.0);
    let body = r#"{"model":"fake","max_tokens":9,"messages":[{"role":"user","content":"say many words"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(gateway.address, &request).expect("an answer");
    assert_eq!(status(&answer), 200, "{answer}");
    for percent in [50, 100] {
        gateway.wait_told(&format!("tollgate: {name}: {percent} % of the budget are spent"), 1);
        let message = received.recv_timeout(Duration::from_secs(20)).expect("a message");
        assert!(message.starts_with("POST /told?by=it HTTP/1.1\r\n"), "{message}");
        let (_, body) = message.split_once("\r\n\r\n").expect("a head");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((body["name"].as_str(), body["percent"].as_u64()), (Some(name), Some(percent)), "{body}");
        assert_eq!(body["max"], 5, "{body}");
    }
    assert!(soon(|| gateway.metrics()["tollgate_alerts_sent_total{result=\"delivered\"}"] == 2.0));
    let spent = || gateway.metrics()[&format!("tollgate_limit_spent{{limit=\"{name}\"}}")];
    let before = spent();
    let again = exchange(gateway.address, &request).expect("an answer");
    assert_eq!(status(&again), 200, "{again}");
    assert!(soon(|| spent() > before), "{before}");
    // Longer than it takes until control has looked.
    std::thread::sleep(Duration::from_millis(2_500));
    for percent in [50, 100] {
        let count = format!("tollgate_limit_alerts_total{{limit=\"{name}\",percent=\"{percent}\"}}");
        assert_eq!(gateway.metrics()[&count], 1.0, "{percent}");
    }
    let (found, page) = gateway.page("/admin/v1/limits?owner=model:fake&over=100");
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((found, page["limits"][0]["name"].as_str()), (200, Some(name)), "{page}");
    let (found, page) = gateway.page("/admin/v1/limits?owner=team:fake");
    assert_eq!((found, page.contains("\"limits\": []")), (200, true), "{page}");
}
