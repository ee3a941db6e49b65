//! What only members can read: XChaCha20-Poly1305 over bytes that say which key they need.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use kctl_shared::fault::Fault;
use sha2::{Digest as _, Sha256};

use crate::state::SealingKey;

/// No archive begins like this.
const MAGIC: &[u8; 16] = b"\x89kctl-sealed-1\r\n";
const KEY_ID: usize = 8;
const NONCE: usize = 24;
const HEAD: usize = MAGIC.len() + KEY_ID + NONCE;

pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

fn key_id(key: &SealingKey) -> [u8; KEY_ID] {
    let hash = Sha256::digest([b"kctl sealing key ".as_slice(), &key.0].concat());
    std::array::from_fn(|n| hash[n])
}

/// `about` has to be said again to open it: what was sealed for one plugin is not taken for another's.
pub(crate) fn seal(key: &SealingKey, about: &str, plain: &[u8]) -> Result<Vec<u8>, Fault> {
    let nonce: [u8; NONCE] = rand::random();
    let payload = Payload { msg: plain, aad: about.as_bytes() };
    let cipher = XChaCha20Poly1305::new((&key.0).into());
    let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.map_err(|_| Fault::new("INTERNAL", "saved configurations could not be sealed"))?;
    Ok([MAGIC.as_slice(), &key_id(key), &nonce, &sealed].concat())
}

/// # Errors
/// `SEALING_KEY_WRONG` for another key, `ARTIFACT_STORE` for bytes that are not what was sealed.
pub(crate) fn open(key: &SealingKey, about: &str, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let damaged =
        || Fault::new("ARTIFACT_STORE", "saved configurations are damaged").hint("check the member's disk");
    if !is_sealed(bytes) || bytes.len() < HEAD {
        return Err(damaged());
    }
    let (head, sealed) = bytes.split_at(HEAD);
    if head[MAGIC.len()..MAGIC.len() + KEY_ID] != key_id(key) {
        let message = "saved configurations are sealed with another key than this member has";
        return Err(Fault::new("SEALING_KEY_WRONG", message)
            .hint("give the members the sealing_key_file they had when the configurations were saved"));
    }
    let nonce = XNonce::from_slice(&head[MAGIC.len() + KEY_ID..]);
    let payload = Payload { msg: sealed, aad: about.as_bytes() };
    XChaCha20Poly1305::new((&key.0).into()).decrypt(nonce, payload).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_matter_open_it_and_no_byte_can_be_changed() {
        let key = SealingKey([7; 32]);
        let sealed = seal(&key, "default/golden", b"secret words").unwrap();
        assert!(is_sealed(&sealed) && !sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(open(&key, "default/golden", &sealed).unwrap(), b"secret words");
        assert_ne!(seal(&key, "default/golden", b"secret words").unwrap(), sealed);
        let code = |key: &SealingKey, about, bytes: &[u8]| open(key, about, bytes).unwrap_err().code;
        assert_eq!(code(&SealingKey([8; 32]), "default/golden", &sealed), "SEALING_KEY_WRONG");
        assert_eq!(code(&key, "default/other", &sealed), "ARTIFACT_STORE");
        for at in (0..sealed.len()).step_by(5) {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open(&key, "default/golden", &bad).is_err(), "{at}");
        }
        assert_eq!(code(&key, "default/golden", &sealed[..HEAD - 1]), "ARTIFACT_STORE");
        assert_eq!(code(&key, "default/golden", &sealed[..HEAD + 3]), "ARTIFACT_STORE");
        assert_eq!(format!("{key:?}"), "SealingKey");
    }
}
