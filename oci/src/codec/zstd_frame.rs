//! Zstandard with the library's own worker threads.
//!
//! One worker or more give the same bytes; none (compressing in the caller's thread) gives others. So which of the
//! two is used depends on the input's length alone: small blobs start no thread, large ones always have workers.

use std::io::{self, Write};

const SMALL: usize = 1 << 20;

pub struct Encoder<W: Write> {
    level: i32,
    state: State<W>,
}

enum State<W: Write> {
    /// Not more than [`SMALL`] bytes so far.
    Small {
        out: Option<W>,
        buffer: Vec<u8>,
    },
    Large(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(out: W, level: i32) -> Self {
        Encoder { level: level.clamp(1, 22), state: State::Small { out: Some(out), buffer: Vec::new() } }
    }

    pub fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match &mut self.state {
            State::Large(encoder) => encoder.write_all(data),
            State::Small { buffer, .. } if buffer.len() + data.len() <= SMALL => {
                buffer.extend_from_slice(data);
                Ok(())
            }
            State::Small { out, buffer } => {
                let out = out.take().ok_or_else(|| io::Error::other("writing after an error"))?;
                let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(16));
                let mut encoder = frame(out, self.level, workers)?;
                encoder.write_all(buffer)?;
                encoder.write_all(data)?;
                self.state = State::Large(encoder);
                Ok(())
            }
        }
    }

    pub fn finish(self) -> io::Result<W> {
        match self.state {
            State::Large(encoder) => encoder.finish(),
            State::Small { out, buffer } => {
                let out = out.ok_or_else(|| io::Error::other("finishing after an error"))?;
                let mut encoder = frame(out, self.level, 0)?;
                encoder.set_pledged_src_size(Some(buffer.len() as u64))?;
                encoder.write_all(&buffer)?;
                encoder.finish()
            }
        }
    }
}

fn frame<W: Write>(out: W, level: i32, workers: usize) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    encoder.include_checksum(true)?;
    encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_depend_on_the_number_of_workers() {
        let input: Vec<u8> = (0..6_000_000u32).flat_map(|n| (n / 7).wrapping_mul(n).to_le_bytes()).collect();
        let compress = |workers, chunk| {
            let mut encoder = frame(Vec::new(), 3, workers).unwrap();
            for part in input.chunks(chunk) {
                encoder.write_all(part).unwrap();
            }
            encoder.finish().unwrap()
        };
        let one = compress(1, 1 << 20);
        assert!(compress(2, 77_777) == one);
        assert!(compress(5, 1 << 20) == one);
    }
}
