//! Embeddings of the built-in provider: unit vectors that depend on the text alone.

use super::Asked;
use serde_json::{Value, json};

/// Numbers of a vector where the request does not say.
const DIMENSIONS: u64 = 16;
const DIMENSIONS_MAX: u64 = 4096;

/// The list of vectors, as numbers or base64 of little-endian 32-bit floats, as asked for.
pub fn answer(asked: &Asked<'_>) -> Value {
    let input = &asked.request["input"];
    let is_list =
        input.as_array().is_some_and(|list| list.iter().all(|item| item.is_string() || item.is_array()));
    let texts: Vec<String> = match input.as_array() {
        Some(list) if is_list => list.iter().map(Value::to_string).collect(),
        _ => vec![input.to_string()],
    };
    let dimensions = asked.request["dimensions"].as_u64().unwrap_or(DIMENSIONS).clamp(1, DIMENSIONS_MAX);
    let is_base64 = asked.request["encoding_format"] == "base64";
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding = if is_base64 { json!(base64(&vector)) } else { json!(vector) };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let usage = json!({ "prompt_tokens": asked.input_tokens, "total_tokens": asked.input_tokens });
    json!({ "object": "list", "data": data, "model": asked.model, "usage": usage })
}

fn vector(text: &str, dimensions: u64) -> Vec<f32> {
    let mut state = text.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let raw: Vec<f64> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from((state >> 40) as u32) / f64::from(1_u32 << 23) - 1.0
        })
        .collect();
    let length = raw.iter().map(|number| number * number).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    raw.iter().map(|number| (number / length) as f32).collect()
}

fn base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{base64, vector};

    #[test]
    fn vectors_have_length_one_and_depend_on_the_text_alone() {
        let one = vector("a", 16);
        assert_eq!(one, vector("a", 16));
        assert_ne!(one, vector("b", 16));
        let length: f32 = one.iter().map(|number| number * number).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }

    #[test]
    fn base64_is_padded() {
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, 1.0, 1.0]), "AACAPwAAgD8AAIA/");
    }
}
