//! The built-in provider.
use crate::net::page::Slice;
pub struct Head {
    pub status: u16,
    pub content_type: &'static str,
    pub len: Option<u64>,
}
pub struct Answer {}
impl Answer {
    pub async fn next(&mut self) -> Option<Slice> {
        None
    }
}
pub fn answer(_target: &str, _body: &[u8]) -> (Head, Answer) {
    (Head { status: 501, content_type: "application/json", len: Some(0) }, Answer {})
}
