//! ECDSA keys whose private number begins with zero bytes: half of all of P-521, one in 256 of the other curves.
//!
//! OpenSSH writes the number without them, and `ssh-key` 0.6 reads numbers of full length only. Here they are filled up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ssh_encoding::{Decode, Encode};
use ssh_key::private::KeypairData;
use zeroize::Zeroizing;

/// The pair and its comment, of the text of a key file; `None` if that is not such a key, or is protected.
pub fn short_key(text: &str) -> Option<(KeypairData, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let body = Zeroizing::new(lines.collect::<String>());
    let bytes = Zeroizing::new(BASE64.decode(body.as_bytes()).ok()?);
    let outer = &mut bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (cipher, kdf) = (String::decode(outer).ok()?, String::decode(outer).ok()?);
    let (_options, count) = (Vec::<u8>::decode(outer).ok()?, u32::decode(outer).ok()?);
    if (cipher.as_str(), kdf.as_str(), count) != ("none", "none", 1) {
        return None;
    }
    let (_public, private) = (Vec::<u8>::decode(outer).ok()?, Zeroizing::new(Vec::<u8>::decode(outer).ok()?));
    let inner = &mut private.as_slice();
    if u32::decode(inner).ok()? != u32::decode(inner).ok()? {
        return None;
    }
    let (algorithm, curve) = (String::decode(inner).ok()?, String::decode(inner).ok()?);
    let size = match curve.as_str() {
        "nistp256" => 32,
        "nistp384" => 48,
        "nistp521" => 66,
        _ => return None,
    };
    let (point, number) = (Vec::<u8>::decode(inner).ok()?, Zeroizing::new(Vec::<u8>::decode(inner).ok()?));
    let comment = String::decode(inner).ok()?;
    let missing = size - Some(number.len()).filter(|length| *length < size)?;
    let number = Zeroizing::new([&vec![0; missing], number.as_slice()].concat());
    let mut whole = Zeroizing::new(Vec::with_capacity(512));
    algorithm.encode(&mut *whole).ok()?;
    curve.encode(&mut *whole).ok()?;
    point.encode(&mut *whole).ok()?;
    number.encode(&mut *whole).ok()?;
    Some((KeypairData::decode(&mut whole.as_slice()).ok()?, comment))
}
