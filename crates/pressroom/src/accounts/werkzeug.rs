//! Password hashes in werkzeug's text format, `method$salt$hex`, which Flask applications store.
//!
//! The methods `scrypt:N:r:p` and `pbkdf2:digest:rounds` are supported; verification fails for all others.
//! The cost of verifying a stored hash is bounded, because other programs may have written the hash.

use pbkdf2::pbkdf2_hmac;
use subtle::ConstantTimeEq;

/// Maximum memory of a scrypt hash, in bytes (werkzeug's default needs 32 MiB).
const MAX_SCRYPT_MEMORY: u64 = 256 << 20;

/// Maximum number of rounds of a PBKDF2 hash (werkzeug's default is a million).
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;

/// werkzeug's default scheme with its cost parameters.
pub(super) const SCRYPT: &str = "scrypt:32768:8:1";
const SCRYPT_N: u64 = 1 << 15;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// Returns whether `hash` is a hash of `password`; false for a malformed hash.
pub(super) fn verify(password: &[u8], hash: &str) -> bool {
    matches(password, hash).unwrap_or(false)
}

/// Returns a hash in the format of werkzeug's `generate_password_hash`, which Flask can verify.
pub(super) fn hash(password: &[u8], salt: &str) -> String {
    let output = scrypt(password, salt.as_bytes(), SCRYPT_N, SCRYPT_R, SCRYPT_P);
    let output = hex(&output.expect("werkzeug's cost parameters are valid"));
    format!("{SCRYPT}${salt}${output}")
}

fn matches(password: &[u8], hash: &str) -> Option<bool> {
    let mut parts = hash.splitn(3, '$');
    let (method, salt, digest) = (parts.next()?, parts.next()?.as_bytes(), unhex(parts.next()?)?);
    let mut method = method.split(':');
    let computed = match method.next()? {
        "scrypt" => {
            let [n, r, p] = [method.next()?, method.next()?, method.next()?];
            scrypt(password, salt, n.parse().ok()?, r.parse().ok()?, p.parse().ok()?)?
        }
        "pbkdf2" => pbkdf2(password, salt, method.next()?, method.next()?.parse().ok()?)?,
        _ => return None,
    };
    Some(method.next().is_none() && bool::from(computed.ct_eq(&digest)))
}

fn scrypt(password: &[u8], salt: &[u8], n: u64, r: u32, p: u32) -> Option<Vec<u8>> {
    let memory = n.checked_mul(128)?.checked_mul(u64::from(r))?;
    if !n.is_power_of_two() || memory > MAX_SCRYPT_MEMORY || !(1..=16).contains(&p) {
        return None;
    }
    let params = scrypt::Params::new(u8::try_from(n.ilog2()).ok()?, r, p).ok()?;
    let mut output = vec![0; 64];
    scrypt::scrypt(password, salt, &params, &mut output).ok()?;
    Some(output)
}

fn pbkdf2(password: &[u8], salt: &[u8], digest: &str, rounds: u32) -> Option<Vec<u8>> {
    type Derive = fn(&[u8], &[u8], u32, &mut [u8]);

    if !(1..=MAX_PBKDF2_ROUNDS).contains(&rounds) {
        return None;
    }
    let (length, derive): (usize, Derive) = match digest {
        "sha1" => (20, pbkdf2_hmac::<sha1::Sha1>),
        "sha256" => (32, pbkdf2_hmac::<sha2::Sha256>),
        "sha512" => (64, pbkdf2_hmac::<sha2::Sha512>),
        _ => return None,
    };
    let mut output = vec![0; length];
    derive(password, salt, rounds, &mut output);
    Some(output)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}
