//! Request heads: no input panics, no way of cutting the input changes the verdict, httparse reads what we
//! accept in the same way, and an accepted head written again is accepted again with the same framing.
//!
//! Input: the first byte chooses where the rest is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::codec::http1::{
    HeadLimits, HeadWriter, RequestHead, RequestScan, decode_request, is_hop_by_hop,
};

/// Small, so that the bounds are within reach of a mutation.
const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 600, fields_max: 12, name_bytes_max: 40, target_bytes_max: 80 };

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    for limits in [LIMITS, HeadLimits::DEFAULT] {
        let whole = RequestScan::new().advance(bytes, &limits);
        let mut scan = RequestScan::new();
        let mut pieces = (0..=bytes.len()).step_by(usize::from(cut) + 1).chain([bytes.len()]);
        let cut_up = pieces.find_map(|end| scan.advance(&bytes[..end], &limits).transpose()).transpose();
        assert_eq!(cut_up, whole);
    }
    let Ok(Some(len)) = RequestScan::new().advance(bytes, &HeadLimits::DEFAULT) else { return };
    let Ok(head) = decode_request(bytes) else { return };
    assert_httparse_agrees(&head, bytes, len);
    // Writing adds a Host where HTTP/1.0 had none, which at the limit is one field too many.
    if head.headers.len() < HeadLimits::DEFAULT.fields_max {
        assert_written_head_is_read_back(&head);
    }
});

fn assert_httparse_agrees(head: &RequestHead, bytes: &[u8], len: usize) {
    let mut fields = [httparse::EMPTY_HEADER; 96];
    let mut theirs = httparse::Request::new(&mut fields);
    assert_eq!(theirs.parse(bytes), Ok(httparse::Status::Complete(len)));
    assert_eq!(theirs.method, Some(head.method.as_str()));
    assert_eq!(theirs.headers.len(), head.headers.len());
    for field in theirs.headers.iter() {
        assert!(head.headers.get_all(field.name).iter().any(|value| value.as_bytes() == field.value));
    }
}

fn assert_written_head_is_read_back(head: &RequestHead) {
    let mut out = Vec::new();
    let mut writer = HeadWriter::request(&mut out, head.method.as_str(), head.path_and_query());
    for (name, value) in &head.headers {
        let name = name.as_str().as_bytes();
        if !is_hop_by_hop(name, &head.connection) && name != b"content-length" && name != b"host" {
            writer.field(name, value.as_bytes());
        }
    }
    writer.field(b"host", head.authority().unwrap_or("none").as_bytes()).framing(head.framing.into());
    writer.finish().expect("what was accepted can be written");
    let again = decode_request(&out).expect("what was written is accepted");
    assert_eq!((again.framing, again.path_and_query()), (head.framing, head.path_and_query()));
    assert_eq!(again.authority(), Some(head.authority().unwrap_or("none")));
}
