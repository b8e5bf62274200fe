//! Tables of what is accepted and refused, each row cut at every offset, and round trips from writer to
//! parser.

mod agreement;
mod chunked;
mod edge_kit;
mod request;
mod response;
mod write;

/// Bytes of a row with `\r\n` for each `|`, so that a table reads as lines.
fn wire(lines: &str) -> Vec<u8> {
    lines.replace('|', "\r\n").into_bytes()
}

/// All growing prefixes that matter: for short input each cut in two and byte by byte; for long input some
/// cuts.
fn schedules(len: usize) -> Vec<Vec<usize>> {
    let mut schedules = vec![vec![len]];
    if len <= 2048 {
        schedules.extend((0..len).map(|cut| vec![cut, len]));
        schedules.push((0..=len).collect());
    } else {
        schedules.push((0..=len).step_by(977).chain([len]).collect());
        schedules.push((0..=len).step_by(4096).chain([len]).collect());
    }
    schedules
}
