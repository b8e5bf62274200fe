//! Response heads: no input panics, no way of cutting the input changes the verdict, httparse reads what we
//! accept in the same way, and the ranges lie within the head.
//!
//! Input: the first byte chooses where the rest is cut and what was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::codec::http1::{Asked, HeadLimits, ResponseFraming, ResponseHead, ResponseScan};

/// Small, so that the bounds are within reach of a mutation.
const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 600, fields_max: 12, name_bytes_max: 40, target_bytes_max: 0 };

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let asked = [Asked::Body, Asked::Head, Asked::Upgrade, Asked::Connect][usize::from(choice & 3)];
    for limits in [LIMITS, HeadLimits::DEFAULT] {
        let whole = ResponseScan::new(asked).advance(bytes, &limits);
        let mut scan = ResponseScan::new(asked);
        let mut pieces = (0..=bytes.len()).step_by(usize::from(choice) + 1).chain([bytes.len()]);
        let cut_up = pieces.find_map(|end| scan.advance(&bytes[..end], &limits).transpose()).transpose();
        assert_eq!(cut_up, whole);
    }
    let Ok(Some(head)) = ResponseScan::new(asked).advance(bytes, &HeadLimits::DEFAULT) else { return };
    assert!(head.len <= bytes.len() && bytes[..head.len].ends_with(b"\r\n\r\n"));
    assert!(head.reason.end as usize <= head.len);
    assert!(asked != Asked::Head || head.framing == ResponseFraming::None);
    assert!(head.framing != ResponseFraming::UntilClose || !head.keep_alive);
    assert_httparse_agrees(&head, bytes);
});

fn assert_httparse_agrees(head: &ResponseHead, bytes: &[u8]) {
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let mut fields = [httparse::EMPTY_HEADER; 96];
    let mut theirs = httparse::Response::new(&mut fields);
    assert_eq!(config.parse_response(&mut theirs, bytes), Ok(httparse::Status::Complete(head.len)));
    assert_eq!(theirs.code, Some(head.status));
    let ours = head.fields(bytes);
    assert!(ours.eq(theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value))));
}
