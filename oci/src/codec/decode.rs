//! Decompressing streams of unknown origin.

use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, sync_channel};

const BUFFER: usize = 128 * 1024;

/// The largest window that a zstd frame may ask us to hold: 128 MiB, what `zstd` itself takes without being told.
const WINDOW_LOG: u32 = 27;

/// Decompresses a stream, telling gzip, zstd and plain data apart by their first bytes (spec R4.4.7). Streams of several
/// gzip members or zstd frames are read to their end; an empty stream stays empty.
///
/// Truncated and corrupt data are errors of the reader that is returned.
pub fn decoder<'a>(mut reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    let kind = detect(&magic);
    let reader = Cursor::new(magic).chain(reader);
    Ok(match kind {
        Kind::Plain => Box::new(reader),
        Kind::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, reader))),
        Kind::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(BUFFER, reader))?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

enum Kind {
    Plain,
    Gzip,
    Zstd,
}

fn detect(magic: &[u8]) -> Kind {
    match magic {
        [0x1f, 0x8b, 0x08, ..] => Kind::Gzip,
        // A frame, or a skippable frame before one.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Kind::Zstd,
        _ => Kind::Plain,
    }
}

/// Reads from a reader on another thread, some MiB ahead: so inflating a layer overlaps with unpacking it.
pub struct ReadAhead {
    blocks: Option<Receiver<io::Result<Vec<u8>>>>,
    block: Cursor<Vec<u8>>,
}

const AHEAD: usize = 8;

impl ReadAhead {
    /// The thread ends when `reader` does or when this is dropped.
    pub fn new(mut reader: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            loop {
                let mut block = Vec::with_capacity(2 * BUFFER);
                let result = reader.by_ref().take(2 * BUFFER as u64).read_to_end(&mut block).map(|_| block);
                let last = !matches!(&result, Ok(block) if !block.is_empty());
                if sender.send(result).is_err() || last {
                    return;
                }
            }
        });
        ReadAhead { blocks: Some(receiver), block: Cursor::default() }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            let Some(blocks) = &self.blocks else { return Ok(read) };
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match blocks.recv() {
                Ok(Ok(block)) if block.is_empty() => self.blocks = None,
                Ok(Ok(block)) => self.block = Cursor::new(block),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::other("the thread that read ahead has stopped")),
            }
        }
    }
}
