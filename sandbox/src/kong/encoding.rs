//! MD5 for configuration hashes and base64 for page offsets, in the forms Kong shows them.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use md5::{Digest as _, Md5};

/// As ngx reads it: padded or not, and whatever the last digit's spare bits are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    LENIENT.encode(bytes)
}

/// Decodes standard or URL-safe base64, padded or not.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text.replace('-', "+").replace('_', "/")).ok()
}

/// The MD5 of `bytes` as 32 hexadecimal digits.
pub fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::{base64, base64_decode, md5};

    #[test]
    fn offsets_survive_every_form_of_base64() {
        assert_eq!(base64(b"[\"a?>\"]"), "WyJhPz4iXQ==");
        for text in ["WyJhPz4iXQ==", "WyJhPz4iXQ", "WyJhPz4iXR"] {
            assert_eq!(base64_decode(text).as_deref(), Some(&b"[\"a?>\"]"[..]), "{text}");
        }
        assert_eq!(base64_decode("_-8"), base64_decode("/+8="));
        assert_eq!(base64_decode("no base64!"), None);
    }

    #[test]
    fn known_digests() {
        assert_eq!(md5(b""), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
