//! Messages between ssh agents and their clients (draft-ietf-sshm-ssh-agent): a length of four bytes, a type, and what belongs to it.

use ssh_encoding::{Decode, Encode, Reader};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// As much as OpenSSH's agent takes.
const MAX_MESSAGE: usize = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// What a client may ask for.
#[derive(Debug, PartialEq)]
pub enum Request {
    List,
    Sign {
        key: Vec<u8>,
        data: Vec<u8>,
        flags: u32,
    },
    /// Adding and removing keys, locking, extensions, and what is not understood.
    Other,
}

impl Request {
    pub fn parse(message: &[u8]) -> Request {
        match message.split_first() {
            Some((&REQUEST_IDENTITIES, [])) => Request::List,
            Some((&SIGN_REQUEST, mut body)) => Request::sign(&mut body).unwrap_or(Request::Other),
            _ => Request::Other,
        }
    }

    fn sign(body: &mut &[u8]) -> Option<Request> {
        let (key, data) = (Vec::decode(body).ok()?, Vec::decode(body).ok()?);
        let flags = u32::decode(body).ok()?;
        body.is_finished().then_some(Request::Sign { key, data, flags })
    }
}

pub fn failure() -> Vec<u8> {
    vec![FAILURE]
}

/// Keys in their wire format, each with a comment.
pub fn identities<'a>(keys: impl ExactSizeIterator<Item = (&'a [u8], &'a str)>) -> ssh_encoding::Result<Vec<u8>> {
    let mut answer = vec![IDENTITIES_ANSWER];
    keys.len().encode(&mut answer)?;
    for (key, comment) in keys {
        key.encode(&mut answer)?;
        comment.encode(&mut answer)?;
    }
    Ok(answer)
}

/// `signature` in its wire format.
pub fn signed(signature: &[u8]) -> ssh_encoding::Result<Vec<u8>> {
    let mut answer = vec![SIGN_RESPONSE];
    signature.encode(&mut answer)?;
    Ok(answer)
}

/// The next message without its length; `None` at the end.
pub async fn read(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match input.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    input.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub async fn write(output: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    output.write_all(&[&length.to_be_bytes(), message].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R2.24.
    #[test]
    fn only_lists_and_signatures_are_understood() {
        assert_eq!(Request::parse(&[11]), Request::List);
        let sign = [13, 0, 0, 0, 1, b'k', 0, 0, 0, 2, b'd', b'e', 0, 0, 0, 4];
        assert_eq!(Request::parse(&sign), Request::Sign { key: b"k".into(), data: b"de".into(), flags: 4 });
        for cut in 0..sign.len() {
            assert_eq!(Request::parse(&sign[..cut]), Request::Other, "{cut}");
        }
        assert_eq!(Request::parse(&[&sign[..], &[0]].concat()), Request::Other);
        // Add, remove one, remove all, add from a card, lock, add with constraints, extension.
        for kind in [17, 18, 19, 20, 22, 25, 27, 0, 255] {
            assert_eq!(Request::parse(&[kind, 0, 0, 0, 0]), Request::Other, "{kind}");
        }
        assert_eq!(Request::parse(&[11, 0]), Request::Other);
    }

    #[tokio::test]
    async fn messages_have_a_length() {
        let mut wire = Vec::new();
        write(&mut wire, &[5]).await.unwrap();
        assert_eq!(wire, [0, 0, 0, 1, 5]);
        assert_eq!(read(&mut wire.as_slice()).await.unwrap(), Some(vec![5]));
        assert_eq!(read(&mut [].as_slice()).await.unwrap(), None);
        for wrong in [&[0, 0, 0, 0][..], &[255, 255, 255, 255, 1], &[0, 0, 0, 2, 1]] {
            assert!(read(&mut { wrong }).await.is_err());
        }
    }
}
