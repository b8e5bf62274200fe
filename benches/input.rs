//! What benches measure on, where more than one measures on it: heads, streams, bodies and events in the
//! form in which clients and providers send them, generated, so that runs of different days compare.

#![allow(dead_code, reason = "each bench takes some")]

use tollgate::codec::http1::write_chunk_head;

/// What an SDK in Python sends, 500 bytes.
pub fn request_head() -> Vec<u8> {
    "POST /v1/chat/completions HTTP/1.1|Host: gateway.internal:8080|Accept-Encoding: gzip, deflate|\
     Connection: keep-alive|Accept: application/json|Content-Type: application/json|\
     User-Agent: Client/Python 2.1|\
     X-Client-Lang: python|X-Client-Package-Version: 2.1.0|X-Client-OS: Linux|X-Client-Arch: x64|\
     X-Client-Runtime: CPython|X-Client-Runtime-Version: 3.13.1|\
     Authorization: Bearer tg-0123456789abcdefghijklmnop|\
     X-Client-Retry-Count: 0|X-Client-Read-Timeout: 600|Content-Length: 1024||"
        .replace('|', "\r\n")
        .into_bytes()
}

/// What a provider behind a content network answers, some 680 bytes.
pub fn response_head() -> Vec<u8> {
    "HTTP/1.1 200 OK|Date: Thu, 20 Nov 2025 10:00:00 GMT|Content-Type: text/event-stream; charset=utf-8|\
     Transfer-Encoding: chunked|Connection: keep-alive|Access-Control-Expose-Headers: X-Request-ID|\
     Organization: org-0123456789|Processing-Ms: 212|Version: 2020-10-01|X-RateLimit-Limit-Requests: 10000|\
     X-RateLimit-Limit-Tokens: 2000000|X-RateLimit-Remaining-Requests: 9999|\
     X-RateLimit-Remaining-Tokens: 1999968|X-RateLimit-Reset-Requests: 6ms|X-RateLimit-Reset-Tokens: 0s|\
     X-Request-ID: req_0123456789abcdef0123456789abcdef|Strict-Transport-Security: max-age=31536000|\
     CF-Cache-Status: DYNAMIC|X-Content-Type-Options: nosniff|Server: edge|CF-RAY: 0123456789abcdef-FRA||"
        .replace('|', "\r\n")
        .into_bytes()
}

/// Events of 150 bytes, each a chunk of its own, up to 4 KiB.
pub fn chunked_body() -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < 4096 {
        write_chunk_head(&mut body, 150);
        body.extend_from_slice(&[b'e'; 150]);
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// OpenAI chat, 300 bytes an event.
pub fn openai_stream(count: usize) -> String {
    let event = |n: usize| {
        format!(
            "data: {{\"id\":\"chatcmpl-ABCDEFGHIJKLMNOPQRSTUVWXYZ012\",\"object\":\"chat.completion.chunk\",\
             \"created\":1732000000,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\
             \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\" word{n:04}\"}},\"logprobs\":null,\"finish_reason\":null}}],\
             \"obfuscation\":\"abcdef\"}}\n\n"
        )
    };
    (0..count).map(event).collect()
}

/// As it stands in JSON: an escape about every 50 bytes.
pub const PROSE: &str = concat!(
    r"The keeper walked down to the harbour before the light failed and counted the boats.\n\nNine had come ",
    r#"home. \"The tenth is late,\" he said, and nobody answered him; the wind had turned to the north and "#,
    "smelled of snow. "
);

/// A chat request of about `bytes`, its members in the order of OpenAI's Python SDK.
pub fn chat_body(bytes: usize, text_of: &str) -> String {
    let mut body = String::from(r#"{"messages":[{"role":"system","content":"You are a careful assistant."}"#);
    let mut turn = 0;
    while body.len() + 200 < bytes {
        let role = if turn % 2 == 0 { "user" } else { "assistant" };
        let room = (bytes - body.len()).saturating_sub(200).min(text_of.len() * (1 + turn % 7));
        let mut text = text_of.repeat(1 + room / text_of.len());
        // Cut at a space: never inside an escape.
        let cut = text[..room].rfind(' ').unwrap_or(0);
        text.truncate(cut);
        body += &format!(r#",{{"role":"{role}","content":"{text}"}}"#);
        turn += 1;
    }
    body + TAIL
}

pub const TAIL: &str = concat!(
    r#"],"model":"gpt-4o-mini","max_tokens":512,"stream":true,"#,
    r#""stream_options":{"include_usage":true},"temperature":0.7}"#
);

const WORDS: [&str; 12] = [
    "I",
    " the",
    " keeper",
    " walked",
    " down",
    " to",
    " harbour",
    ",",
    " before",
    " light\\n",
    " nobody",
    " answered",
];

/// 240 content events as the vendor named sends them.
pub fn meter_events(form: &str) -> Vec<Vec<u8>> {
    let padding = "Qk7RwJ2xVn0aPdLs";
    let event = |at: usize| {
        let word = WORDS[at * 7 % WORDS.len()];
        let padding = &padding[..1 + at * 5 % 16];
        let (before, after) = match form {
            "openai_chat" => (
                concat!(
                    r#"data: {"id":"chatcmpl-BWlJBDk2xe66hjff60joVYpXi1hh4","object":"chat.completion.chunk","#,
                    r#""created":1747148049,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","#,
                    r#""system_fingerprint":"fp_dbaca60df0","choices":[{"index":0,"delta":{"content":""#
                ),
                format!(
                    r#""}},"logprobs":null,"finish_reason":null}}],"usage":null,"obfuscation":"{padding}"}}"#
                ),
            ),
            "vllm_chat" => (
                concat!(
                    r#"data: {"id":"chatcmpl-d6c1f1be5b4a4a0e","object":"chat.completion.chunk","#,
                    r#""created":1747148049,"model":"qwen","choices":[{"index":0,"delta":{"content":""#
                ),
                r#""},"logprobs":null,"finish_reason":null}]}"#.to_string(),
            ),
            "openai_responses" => (
                concat!(
                    "event: response.output_text.delta\n",
                    r#"data: {"type":"response.output_text.delta","content_index":0,"delta":""#
                ),
                format!(
                    concat!(
                        r#"","item_id":"msg_042970a2418ca0d2016a85bef012a8819db185c29f5b9f0e2b","logprobs":[],"#,
                        r#""obfuscation":"{}","output_index":1,"sequence_number":{}}}"#
                    ),
                    padding,
                    100 + at
                ),
            ),
            _ => (
                concat!(
                    "event: content_block_delta\n",
                    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#
                ),
                format!(r#""}}{}}}"#, &"                "[..padding.len()]),
            ),
        };
        [before, word, &after].concat()
    };
    (0..240).map(|at| (event(at) + "\n\n").into_bytes()).collect()
}
