//! OpenAI Embeddings: one vector per request, a function of the stream's name.
//!
//! The vector's numbers have at most nine digits, so a gateway that reads and writes them as doubles keeps
//! them; one that passes through 32-bit floats does not, and is caught.
//! Source: OpenAI API reference, "Embeddings", seen 2026-11.

use super::Facts;

pub const DIMENSIONS: usize = 256;

pub fn request(model: &str, prompt: &str) -> String {
    format!(r#"{{"model":"{model}","input":"{prompt}","encoding_format":"float","dimensions":{DIMENSIONS}}}"#)
}

pub fn whole(facts: &Facts) -> String {
    let Facts { id, model, prompt_tokens, .. } = facts;
    let vector = vector(id);
    format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{vector}}}],"model":"{model}","usage":{{"prompt_tokens":{prompt_tokens},"total_tokens":{prompt_tokens}}}}}"#
    )
}

fn vector(id: &str) -> String {
    let seed = id.bytes().fold(0u64, |seed, byte| seed << 4 | u64::from(byte.wrapping_sub(b'a') & 15));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::with_capacity(DIMENSIONS * 13);
    for place in 0..DIMENSIONS {
        text.push(if place == 0 { '[' } else { ',' });
        // Never ends in 0 and never below 0.1, so that every JSON writer gives back the same digits.
        let digits = random.u32(10_000_000..100_000_000) * 10 + 1 + random.u32(0..9);
        text.push_str(if random.bool() { "0." } else { "-0." });
        text.push_str(&digits.to_string());
    }
    text.push(']');
    text
}

pub fn vector_at(body: &[u8]) -> Option<&[u8]> {
    let key = b"\"embedding\"";
    for at in memchr::memmem::find_iter(body, key) {
        let rest = body[at + key.len()..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":") else { continue };
        let rest = rest.trim_ascii_start();
        if rest.first() == Some(&b'[') {
            return memchr::memchr(b']', rest).map(|end| &rest[..=end]);
        }
    }
    None
}

pub fn is_vector_of(found: &[u8], id: &str) -> bool {
    let expected = vector(id);
    if found == expected.as_bytes() {
        return true;
    }
    let numbers = |text: &[u8]| serde_json::from_slice::<Vec<f64>>(text).ok();
    numbers(found).is_some_and(|found| Some(found) == numbers(expected.as_bytes()))
}
