//! An agent of key files, in memory (R2.25).

use super::ecdsa;
use super::protocol::{self, Request};
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::{BigUint, RsaPrivateKey, pkcs1v15};
use ssh_encoding::Encode;
use ssh_key::private::{KeypairData, RsaKeypair};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, PrivateKey, Signature};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No key is longer.
const MAX_FILE: u64 = 100 * 1024;

/// Flags of a request to sign.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is protected by a passphrase, which rbuild does not ask for: `ssh-add` it to an agent, and name the agent's socket or nothing \
         instead of the file", path.display()
    )]
    Encrypted { path: PathBuf },
    #[error("cannot use {}: its kind of key, {kind}, is not supported; there are ed25519, ecdsa and rsa", path.display())]
    Kind { path: PathBuf, kind: String },
    #[error("failed to parse {}: {problem}", path.display())]
    Parse { path: PathBuf, problem: String },
}

/// Keys that sign. Nothing of them shows in `Debug`; they are wiped from memory when dropped.
pub struct Keyring(Vec<Key>);

struct Key {
    /// The public half in its wire format.
    public: Vec<u8>,
    comment: String,
    signer: SigningKey,
}

enum SigningKey {
    Rsa(Box<RsaPrivateKey>),
    Other(Box<KeypairData>),
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keyring {
    pub fn load<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<Keyring, KeyError> {
        files.into_iter().map(|file| load(file.as_ref())).collect::<Result<_, _>>().map(Keyring)
    }

    pub(super) fn answer(&self, request: &Request) -> Vec<u8> {
        let answer = match request {
            Request::List => {
                protocol::identities(self.0.iter().map(|key| (key.public.as_slice(), key.comment.as_str()))).ok()
            }
            Request::Sign { key, data, flags } => {
                let key = self.0.iter().find(|known| known.public == *key);
                key.and_then(|key| key.sign(data, *flags)).and_then(|signature| protocol::signed(&signature).ok())
            }
            Request::Other => None,
        };
        answer.unwrap_or_else(protocol::failure)
    }
}

impl Key {
    /// The signature in its wire format. RSA signs by SHA-2 only: servers of today take nothing less.
    fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let signature = match &self.signer {
            SigningKey::Other(pair) => Signer::<Signature>::try_sign(pair.as_ref(), data).ok()?,
            SigningKey::Rsa(key) => {
                // With a random factor, so that how long it takes tells the step nothing about the key.
                let mut random = rsa::rand_core::OsRng;
                let (hash, bytes) = if flags & RSA_SHA2_512 != 0 {
                    let signer = pkcs1v15::SigningKey::<rsa::sha2::Sha512>::new(key.as_ref().clone());
                    (HashAlg::Sha512, signer.try_sign_with_rng(&mut random, data).ok()?.to_vec())
                } else if flags & RSA_SHA2_256 != 0 {
                    let signer = pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(key.as_ref().clone());
                    (HashAlg::Sha256, signer.try_sign_with_rng(&mut random, data).ok()?.to_vec())
                } else {
                    return None;
                };
                Signature::new(Algorithm::Rsa { hash: Some(hash) }, bytes).ok()?
            }
        };
        let mut bytes = Vec::new();
        signature.encode(&mut bytes).ok()?;
        Some(bytes)
    }
}

fn load(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    // Room is taken once, so that no copies stay behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize));
    File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)).map_err(failed)?;
    parse(path, &text)
}

fn parse(path: &Path, text: &[u8]) -> Result<Key, KeyError> {
    let problem = |problem: String| KeyError::Parse { path: path.to_owned(), problem };
    let text = std::str::from_utf8(text).map_err(|_| problem("it is no text, and so no private key".into()))?;
    // Keys are pasted into files with all kinds of blanks around them.
    let text = text.trim();
    let first = text.lines().next().unwrap_or_default().trim();
    let rsa = match first {
        "-----BEGIN RSA PRIVATE KEY-----" if text.contains("ENCRYPTED") => {
            return Err(KeyError::Encrypted { path: path.to_owned() });
        }
        "-----BEGIN ENCRYPTED PRIVATE KEY-----" => return Err(KeyError::Encrypted { path: path.to_owned() }),
        "-----BEGIN RSA PRIVATE KEY-----" => {
            Some(RsaPrivateKey::from_pkcs1_pem(text).map_err(|error| problem(error.to_string()))?)
        }
        "-----BEGIN PRIVATE KEY-----" => Some(RsaPrivateKey::from_pkcs8_pem(text).map_err(|_| problem(older(path)))?),
        "-----BEGIN OPENSSH PRIVATE KEY-----" => None,
        "-----BEGIN EC PRIVATE KEY-----" => {
            return Err(problem(older(path)));
        }
        _ if first.contains("PUBLIC KEY") || first.starts_with("ssh-") || first.starts_with("ecdsa-") => {
            return Err(problem("it is a public key; the private one is needed".into()));
        }
        _ => return Err(problem("it is neither a private key nor the socket of an agent".into())),
    };
    if let Some(key) = rsa {
        let pair = ssh_key::public::RsaPublicKey {
            e: mpint(rsa::traits::PublicKeyParts::e(&key)).ok_or_else(|| problem("its exponent is none".into()))?,
            n: mpint(rsa::traits::PublicKeyParts::n(&key)).ok_or_else(|| problem("its modulus is none".into()))?,
        };
        let public = KeyData::from(pair);
        return key_of(path, &public, String::new(), SigningKey::Rsa(Box::new(key)));
    }
    let (pair, comment) = match PrivateKey::from_openssh(text) {
        Ok(key) => (key.key_data().clone(), key.comment().to_owned()),
        Err(error) => ecdsa::short_key(text).ok_or_else(|| problem(error.to_string()))?,
    };
    let public = match &pair {
        KeypairData::Encrypted(_) => return Err(KeyError::Encrypted { path: path.to_owned() }),
        KeypairData::Ed25519(pair) => KeyData::from(pair.public),
        KeypairData::Ecdsa(pair) => KeyData::Ecdsa(pair.into()),
        KeypairData::Rsa(pair) => KeyData::from(pair.public.clone()),
        _ => {
            let kind = pair.algorithm().map_or("unknown".into(), |algorithm| algorithm.to_string());
            return Err(KeyError::Kind { path: path.to_owned(), kind });
        }
    };
    let signer = match pair {
        KeypairData::Rsa(pair) => {
            SigningKey::Rsa(Box::new(rsa_key(&pair).ok_or_else(|| problem("its numbers are no RSA key".into()))?))
        }
        pair => SigningKey::Other(Box::new(pair)),
    };
    key_of(path, &public, comment, signer)
}

fn older(path: &Path) -> String {
    format!("it is in an older form; `ssh-keygen -p -f {}` rewrites it", path.display())
}

fn key_of(path: &Path, public: &KeyData, comment: String, signer: SigningKey) -> Result<Key, KeyError> {
    let mut bytes = Vec::new();
    public.encode(&mut bytes).map_err(|error| KeyError::Parse { path: path.to_owned(), problem: error.to_string() })?;
    Ok(Key { public: bytes, comment, signer })
}

fn mpint(number: &BigUint) -> Option<ssh_key::Mpint> {
    ssh_key::Mpint::from_positive_bytes(&number.to_bytes_be()).ok()
}

fn rsa_key(pair: &RsaKeypair) -> Option<RsaPrivateKey> {
    let number = |number: &ssh_key::Mpint| number.as_positive_bytes().map(BigUint::from_bytes_be);
    let (public, private) = (&pair.public, &pair.private);
    let primes = vec![number(&private.p)?, number(&private.q)?];
    let mut key =
        RsaPrivateKey::from_components(number(&public.n)?, number(&public.e)?, number(&private.d)?, primes).ok()?;
    key.validate().ok()?;
    key.precompute().ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A key file of OpenSSH's own making.
    fn key(directory: &Path, name: &str, flags: &[&str]) -> PathBuf {
        let path = directory.join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-C", name, "-f"]).arg(&path).args(flags).status();
        assert!(made.expect("apt-get install openssh-client").success());
        path
    }

    /// Has the ring's first key sign, and OpenSSH check it, in the file format of `ssh-keygen -Y`.
    fn verify(ring: &Keyring, public: &ssh_key::PublicKey, flags: u32, message: &[u8], file: &Path) {
        let data = ssh_key::SshSig::signed_data("file", HashAlg::Sha512, message).unwrap();
        let answer = ring.answer(&Request::Sign { key: public.to_bytes().unwrap(), data, flags });
        let signature = Signature::try_from(answer.get(5..).expect("a signature")).unwrap();
        let sig = ssh_key::SshSig::new(public.key_data().clone(), "file", HashAlg::Sha512, signature).unwrap();
        std::fs::write(file, sig.to_pem(ssh_key::LineEnding::LF).unwrap()).unwrap();
        let mut check = Command::new("ssh-keygen");
        check.args(["-Y", "check-novalidate", "-n", "file", "-s"]).arg(file);
        let mut check = check.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        io::Write::write_all(&mut check.stdin.take().unwrap(), message).unwrap();
        assert!(check.wait().unwrap().success(), "{:?} of {}", public.algorithm(), String::from_utf8_lossy(message));
    }

    /// RFC 8332, 5656 and 8709.
    #[test]
    fn signatures_of_all_kinds_verify() {
        let tmp = tempfile::tempdir().unwrap();
        let kinds: [(&str, &[&str], u32); 8] = [
            ("ed25519", &["-t", "ed25519"], 0),
            ("p256", &["-t", "ecdsa", "-b", "256"], 0),
            ("p384", &["-t", "ecdsa", "-b", "384"], 0),
            ("p521", &["-t", "ecdsa", "-b", "521"], 0),
            ("rsa512", &["-t", "rsa", "-b", "2048"], RSA_SHA2_512),
            ("rsa256", &["-t", "rsa", "-b", "3072"], RSA_SHA2_256),
            ("pkcs1", &["-t", "rsa", "-b", "2048", "-m", "PEM"], RSA_SHA2_512),
            ("pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"], RSA_SHA2_512),
        ];
        for (name, flags, sign) in kinds {
            let flags = [flags, &["-N", ""]].concat();
            let path = key(tmp.path(), name, &flags);
            let ring = Keyring::load([&path]).unwrap();
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let public = ssh_key::PublicKey::from_openssh(&public).unwrap();
            let wire = public.to_bytes().unwrap();
            assert_eq!(ring.0[0].public, wire, "{name}");

            verify(&ring, &public, sign, b"message", &tmp.path().join("sig"));
            let foreign = Request::Sign { key: b"other".to_vec(), data: vec![], flags: sign };
            assert_eq!(ring.answer(&foreign), protocol::failure());
        }
    }

    /// Of sixteen keys of P-521 half have a short number, and so have half of the signatures.
    #[test]
    fn numbers_that_begin_with_zeros() {
        let tmp = tempfile::tempdir().unwrap();
        for index in 0..16 {
            let path = key(tmp.path(), &format!("k{index}"), &["-t", "ecdsa", "-b", "521", "-N", ""]);
            let ring = Keyring::load([&path]).unwrap();
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let public = ssh_key::PublicKey::from_openssh(&public).unwrap();
            assert_eq!(
                (&ring.0[0].public, ring.0[0].comment.as_str()),
                (&public.to_bytes().unwrap(), public.comment())
            );
            for message in ["a", "b", "c"] {
                verify(&ring, &public, 0, message.as_bytes(), &tmp.path().join("sig"));
            }
        }
    }

    /// R2.25.
    #[test]
    fn files_that_cannot_be_used_say_why() {
        let tmp = tempfile::tempdir().unwrap();
        let error = |path: &Path| Keyring::load([path]).unwrap_err().to_string();
        for (name, flags) in [("a", ["-t", "ed25519", "-N", "secret"]), ("b", ["-t", "rsa", "-N", "secret"])] {
            let said = error(&key(tmp.path(), name, &flags));
            assert!(
                said.contains("protected by a passphrase") && said.contains(tmp.path().to_str().unwrap()),
                "{said}"
            );
        }
        for form in ["PEM", "PKCS8"] {
            let flags = ["-t", "rsa", "-b", "2048", "-N", "secret", "-m", form];
            assert!(error(&key(tmp.path(), form, &flags)).contains("protected by a passphrase"), "{form}");
        }
        let old = key(tmp.path(), "ec", &["-t", "ecdsa", "-N", "", "-m", "PEM"]);
        assert!(error(&old).contains("ssh-keygen -p -f"));
        let rewritten = Command::new("ssh-keygen").args(["-q", "-p", "-N", "", "-f"]).arg(&old).status().unwrap();
        assert!(rewritten.success() && Keyring::load([&old]).is_ok(), "the advice works");
        assert!(error(&old.with_extension("pub")).contains("public key"));
        std::fs::write(tmp.path().join("x"), b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n").unwrap();
        assert!(error(&tmp.path().join("x")).contains("failed to parse"));
        assert!(error(&tmp.path().join("none")).contains("cannot read"));
    }
}
