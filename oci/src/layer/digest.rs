//! The digest of a file's content.

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};

/// From this size on, one file is hashed on all cores.
pub const LARGE: u64 = 16 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 * 1024]);
}

/// The blake3 digest of all that a file holds, and its length. `size` is what to expect; holes of large files are not read.
pub fn content_digest(file: impl AsFd, size: u64) -> rustix::io::Result<([u8; 32], u64)> {
    let file = file.as_fd();
    let mut hashing = Hashing { file, size, hasher: blake3::Hasher::new() };
    if size < LARGE {
        let end = SCRATCH.with_borrow_mut(|buffer| hashing.range(0, u64::MAX, buffer))?;
        return Ok((*hashing.hasher.finalize().as_bytes(), end));
    }
    // Its own buffer: while it waits for others, this thread may hash another file.
    let mut buffer = vec![0; 4 << 20];
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // A hole up to the end, which may have come nearer.
            Err(Errno::NXIO) => {
                let end = rustix::fs::seek(file, SeekFrom::End(0))?.min(size);
                hashing.zeros(end.saturating_sub(at));
                at = end;
                break;
            }
            Err(_) => at,
        };
        hashing.zeros(data - at);
        let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => hole.min(size),
            _ => size,
        };
        at = hashing.range(data, hole, &mut buffer)?;
        if at < hole {
            break;
        }
    }
    if at >= size {
        // What was appended meanwhile.
        at = hashing.range(at, u64::MAX, &mut buffer)?;
    }
    Ok((*hashing.hasher.finalize().as_bytes(), at))
}

struct Hashing<'a> {
    file: BorrowedFd<'a>,
    size: u64,
    hasher: blake3::Hasher,
}

impl Hashing<'_> {
    /// Hashes from `at` to `end` or the end of the file; gives where that was.
    fn range(&mut self, mut at: u64, end: u64, buffer: &mut [u8]) -> rustix::io::Result<u64> {
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let got = match rustix::io::pread(self.file, &mut buffer[..want], at) {
                Ok(0) => break,
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            at += got as u64;
            match self.size < LARGE {
                true => self.hasher.update(&buffer[..got]),
                false => self.hasher.update_rayon(&buffer[..got]),
            };
            // A file shorter than the buffer has been read to its end: saves a call for nearly every file.
            if at == self.size && got < want {
                break;
            }
        }
        Ok(at)
    }

    fn zeros(&mut self, mut count: u64) {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        while count > 0 {
            let now = count.min(ZEROS.len() as u64);
            // At most the length of the block.
            self.hasher.update_rayon(&ZEROS[..now as usize]);
            count -= now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_zeros() {
        for (size, data) in [
            (0, &[][..]),
            (100, &[(0, "all")][..]),
            (LARGE - 1, &[(5, "x")]),
            (LARGE + 5000, &[(LARGE, "end")]),
            (3 * LARGE, &[(0, "start"), (LARGE + 7, "middle")]),
            (2 * LARGE, &[]),
        ] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(size).unwrap();
            let mut expected = vec![0; size as usize];
            for (at, text) in data {
                file.write_all_at(text.as_bytes(), *at).unwrap();
                expected[*at as usize..][..text.len()].copy_from_slice(text.as_bytes());
            }
            for guess in [size, 0, LARGE, size + 1] {
                let found = content_digest(&file, guess).unwrap();
                assert_eq!(found, (*blake3::hash(&expected).as_bytes(), size), "{size} {guess}");
            }
        }
    }
}
