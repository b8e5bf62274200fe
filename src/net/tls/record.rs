//! TLS records after the handshake: seals plaintext into a page, opens records in place.
//!
//! Shape: `Sealer::seal` appends one whole record to a page; `Opener::open` decrypts one whole record where
//! it lies. Keys come from rustls, which made the handshake; the cipher is ring's. No allocation, no buffer
//! of its own. Why not rustls' record path: it allocates and copies each record twice in either direction; an
//! event of 150 bytes costs 67 ns beyond its cipher here and 199 there (`benches/tls_record.rs`, 2026-11-21).
//! Limits: `PLAIN_MAX` bytes of plaintext and `BODY_MAX` bytes after the header in a record;
//! `Sealer::is_spent` says when the keys have protected as many records as their cipher allows. Source: RFC
//! 8446 section 5; RFC 5246 section 6.2, RFC 5288 and RFC 7905 for TLS 1.2.

use crate::net::page::Page;
use crate::net::tls::fault::Fault;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use std::ops::Range;

/// Content type, version, length.
pub const HEADER_BYTES: usize = 5;
/// Plaintext in a record.
pub const PLAIN_MAX: usize = 1 << 14;
/// Bytes after the header: TLS 1.3 allows 256 for padding, type and tag; TLS 1.2 with our ciphers needs 24.
pub const BODY_MAX: usize = PLAIN_MAX + 256;
/// A whole record.
pub const RECORD_MAX: usize = HEADER_BYTES + BODY_MAX;

/// Records of a key's allowance that are kept for a key update and a closing alert.
const KEPT: u64 = 2;

/// What a record holds: the content types of RFC 8446 section 5.1.
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;

/// The two versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

/// How many bytes the record at the start of `bytes` takes, header included; nothing while that is not known
/// yet.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[_, _, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if body > BODY_MAX {
        return Err(Fault::RecordOverflow);
    }
    Ok(Some(HEADER_BYTES + body))
}

/// Seals records with the keys of one direction.
pub struct Sealer {
    cipher: Cipher,
    /// Records that these keys may protect.
    limit: u64,
}

impl Sealer {
    /// `limit` is the number of records that the cipher suite allows
    /// (`CipherSuiteCommon::confidentiality_limit`).
    pub fn new(
        version: Version,
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        limit: u64,
    ) -> Option<Sealer> {
        Some(Sealer { cipher: Cipher::new(version, sequence, secrets)?, limit: limit.saturating_sub(KEPT) })
    }

    #[cfg(test)]
    pub fn limit_records(&mut self, limit: u64) {
        self.limit = limit.saturating_sub(KEPT);
    }

    /// Bytes that a record takes beyond its plaintext.
    pub fn overhead(&self) -> usize {
        let inner_type = usize::from(self.cipher.form == Form::Tls13);
        HEADER_BYTES + self.cipher.form.explicit_nonce_bytes() + inner_type + aead::MAX_TAG_LEN
    }

    /// Whether these keys should protect no further record of application data.
    pub fn is_spent(&self) -> bool {
        self.cipher.sequence >= self.limit
    }

    /// Appends one record of `len` plaintext bytes to `page`, which has room for it (`overhead`).
    pub fn seal<'a>(
        &mut self,
        kind: u8,
        plain: impl Iterator<Item = &'a [u8]>,
        len: usize,
        page: &mut Page,
    ) -> Result<(), Fault> {
        let form = self.cipher.form;
        let start = page.bytes().len();
        let total = u16::try_from(len + self.overhead() - HEADER_BYTES).map_err(|_| Fault::Internal)?;
        let [high, low] = total.to_be_bytes();
        let outer = if form == Form::Tls13 { APPLICATION_DATA } else { kind };
        let header = [outer, 3, 3, high, low];
        page.append(&header);
        let nonce = self.cipher.nonce();
        page.append(&nonce[12 - form.explicit_nonce_bytes()..]);
        plain.for_each(|piece| {
            page.append(piece);
        });
        if form == Form::Tls13 {
            page.append(&[kind]);
        }
        let from = start + HEADER_BYTES + form.explicit_nonce_bytes();
        let text = page.bytes_mut().and_then(|bytes| bytes.get_mut(from..)).ok_or(Fault::Internal)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = &self.cipher.key;
        let tag = match form {
            Form::Tls13 => key.seal_in_place_separate_tag(nonce, Aad::from(header), text),
            Form::Tls12Explicit | Form::Tls12 => {
                key.seal_in_place_separate_tag(nonce, self.cipher.aad_tls12(kind, len), text)
            }
        };
        let tag = tag.map_err(|_| Fault::Internal)?;
        self.cipher.advance()?;
        match page.append(tag.as_ref()) {
            aead::MAX_TAG_LEN => Ok(()),
            _ => Err(Fault::Internal),
        }
    }
}

/// Opens records with the keys of one direction.
pub struct Opener {
    cipher: Cipher,
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// The content type: the inner one in TLS 1.3.
    pub kind: u8,
    /// Where its plaintext now lies within the record.
    pub plain: Range<usize>,
}

impl Opener {
    pub fn new(version: Version, sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Opener> {
        Some(Opener { cipher: Cipher::new(version, sequence, secrets)? })
    }

    /// Decrypts one whole record (header included) in place.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Opened, Fault> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(Fault::Internal)?;
        let opened = match self.cipher.form {
            Form::Tls13 => self.open_tls13(*header, body)?,
            Form::Tls12Explicit | Form::Tls12 => self.open_tls12(*header, body)?,
        };
        if opened.plain.len() > PLAIN_MAX {
            return Err(Fault::RecordOverflow);
        }
        self.cipher.advance()?;
        Ok(opened)
    }

    fn open_tls13(&self, header: [u8; HEADER_BYTES], body: &mut [u8]) -> Result<Opened, Fault> {
        if header[0] != APPLICATION_DATA {
            return Err(Fault::UnexpectedMessage);
        }
        let nonce = Nonce::assume_unique_for_key(self.cipher.nonce());
        let inner =
            self.cipher.key.open_in_place(nonce, Aad::from(header), body).map_err(|_| Fault::BadRecord)?;
        if inner.len() > PLAIN_MAX + 1 {
            return Err(Fault::RecordOverflow);
        }
        // Content, its type, then zeros as padding. A record of zeros only has no type.
        let len = inner.iter().rposition(|byte| *byte != 0).ok_or(Fault::UnexpectedMessage)?;
        let kind = inner.get(len).copied().ok_or(Fault::Internal)?;
        Ok(Opened { kind, plain: HEADER_BYTES..HEADER_BYTES + len })
    }

    fn open_tls12(&self, header: [u8; HEADER_BYTES], body: &mut [u8]) -> Result<Opened, Fault> {
        let explicit = self.cipher.form.explicit_nonce_bytes();
        if header[1..3] != [3, 3] {
            return Err(Fault::Version);
        }
        let (sent_nonce, text) = body.split_at_mut_checked(explicit).ok_or(Fault::BadRecord)?;
        let mut nonce = self.cipher.nonce();
        if !sent_nonce.is_empty() {
            nonce = self.cipher.iv;
            nonce[12 - explicit..].copy_from_slice(sent_nonce);
        }
        let len = text.len().checked_sub(aead::MAX_TAG_LEN).ok_or(Fault::BadRecord)?;
        let aad = self.cipher.aad_tls12(header[0], len);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.cipher.key.open_in_place(nonce, aad, text).map_err(|_| Fault::BadRecord)?;
        let start = HEADER_BYTES + explicit;
        Ok(Opened { kind: header[0], plain: start..start + len })
    }
}

struct Cipher {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    form: Form,
}

/// How records of a version and cipher are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The type is inside, behind the content; the nonce is implied.
    Tls13,
    /// AES-GCM of TLS 1.2: eight bytes of the nonce stand before the ciphertext.
    Tls12Explicit,
    /// ChaCha20-Poly1305 of TLS 1.2: the nonce is implied.
    Tls12,
}

impl Form {
    fn explicit_nonce_bytes(self) -> usize {
        if self == Form::Tls12Explicit { 8 } else { 0 }
    }
}

impl Cipher {
    fn new(version: Version, sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Cipher> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let form = match (version, secrets) {
            (Version::Tls13, _) => Form::Tls13,
            (Version::Tls12, Chacha20Poly1305 { .. }) => Form::Tls12,
            (Version::Tls12, _) => Form::Tls12Explicit,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        Some(Cipher { key, iv: iv.as_ref().try_into().ok()?, sequence, form })
    }

    /// The initialisation vector with the sequence number mixed in.
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, part) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= part;
        }
        nonce
    }

    /// What TLS 1.2 authenticates beside the content.
    fn aad_tls12(&self, kind: u8, len: usize) -> Aad<[u8; 13]> {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&[kind, 3, 3]);
        // A record's body is at most `BODY_MAX` bytes, so that its length fits.
        aad[11..].copy_from_slice(&(len as u16).to_be_bytes());
        Aad::from(aad)
    }

    fn advance(&mut self) -> Result<(), Fault> {
        self.sequence = self.sequence.checked_add(1).ok_or(Fault::Exhausted)?;
        Ok(())
    }
}
