//! The streams between a PostgreSQL tool and a bucket. Compression and encryption run on a thread of their own. A few
//! buffers lie between that thread and the network, so memory does not grow with the database and neither side waits
//! needlessly.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use age::x25519;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;

use super::{Error, progress::Progress};
use crate::backup::manifest::Plain;

/// How much of a dump a tool gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The whole dump is read even if the tool stops reading, because both checksums are compared.
    End,
    /// As much as the tool reads, which may need only the definitions at the head.
    Satisfied,
}

/// The size of a chunk in bytes.
const CHUNK: usize = 1 << 20;
/// How many chunks may wait in a channel.
const WAITING: usize = 4;
/// The compression level, zstd's default: three times as fast as the disk of a database, and a quarter of the size.
const LEVEL: i32 = 3;

/// Creates a channel of chunks.
pub(super) fn channel() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(WAITING)
}

/// Reads a dump, compresses and encrypts it, and sends the chunks. Blocks; run it on a thread of its own.
///
/// Returns the size and checksum of the input. The end of the input does not prove that the dump is complete; only the
/// tool's exit status does.
pub(super) fn encrypt(
    mut dump: impl Read,
    recipient: &x25519::Recipient,
    chunks: mpsc::Sender<Bytes>,
    progress: &Arc<Progress>,
) -> Result<Plain, Error> {
    let sink = Chunks { chunks, buffer: Vec::with_capacity(CHUNK), progress: Arc::clone(progress) };
    let encryptor = age::Encryptor::with_recipients(std::iter::once(recipient as &dyn age::Recipient))
        .map_err(|_| Error::Key("it is no recipient of age"))?;
    let encrypted = encryptor.wrap_output(sink).map_err(Error::Stream)?;
    let mut compressed = zstd::Encoder::new(encrypted, LEVEL).map_err(Error::Stream)?;
    compressed.include_checksum(true).map_err(Error::Stream)?;
    let mut plain = Summed::default();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = dump.read(&mut buffer).map_err(Error::Stream)?;
        if read == 0 {
            break;
        }
        plain.add(&buffer[..read]);
        progress.plain(read);
        compressed.write_all(&buffer[..read]).map_err(Error::Stream)?;
    }
    let encrypted = compressed.finish().map_err(Error::Stream)?;
    encrypted.finish().and_then(|mut sink| sink.flush()).map_err(Error::Stream)?;
    Ok(plain.finish())
}

/// Decrypts and decompresses the output of [`encrypt`] and writes the dump to `consumer`. Blocks; run it on a thread of
/// its own.
///
/// If the consumer stops reading, this stops too with [`Until::Satisfied`]. With [`Until::End`] it still decrypts every
/// byte, for the checksum.
pub(super) fn decrypt(
    chunks: mpsc::Receiver<Bytes>,
    identity: &x25519::Identity,
    mut consumer: impl Write,
    progress: &Arc<Progress>,
    until: Until,
) -> Result<Plain, Error> {
    let source = Arrived { chunks, current: Bytes::new() };
    let decryptor = age::Decryptor::new_buffered(io::BufReader::with_capacity(64 << 10, source))
        .map_err(|e| Error::Unequal(format!("its beginning cannot be read as encrypted to its key: {e}")))?;
    let decrypted = decryptor
        .decrypt(std::iter::once(identity as &dyn age::Identity))
        .map_err(|e| Error::Unequal(format!("it is not encrypted to its key: {e}")))?;
    let damaged = |e: io::Error| Error::Unequal(format!("its bytes are damaged: {e}"));
    let mut dump = zstd::Decoder::new(decrypted).map_err(damaged)?;
    let mut plain = Summed::default();
    let mut listening = true;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = dump.read(&mut buffer).map_err(damaged)?;
        if read == 0 {
            break;
        }
        plain.add(&buffer[..read]);
        progress.plain(read);
        if listening {
            listening = match consumer.write_all(&buffer[..read]) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
                Err(error) => return Err(Error::Stream(error)),
            };
            if !listening && until == Until::Satisfied {
                break;
            }
        }
    }
    // A consumer that stopped reading needs no flush.
    if listening {
        consumer.flush().or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) }).map_err(Error::Stream)?;
    }
    drop(consumer);
    Ok(plain.finish())
}

/// The receiving end of a channel as a reader.
pub(super) fn reader(chunks: mpsc::Receiver<Bytes>) -> impl Read + Send + 'static {
    Arrived { chunks, current: Bytes::new() }
}

/// A writer, and the channel that receives its chunks.
pub(super) fn writer(progress: &Arc<Progress>) -> (impl Write + Send + 'static, mpsc::Receiver<Bytes>) {
    let (chunks, receiver) = channel();
    let write = io::BufWriter::new(Chunks { chunks, buffer: Vec::with_capacity(CHUNK), progress: Arc::clone(progress) });
    (write, receiver)
}

/// A running SHA-256 and size.
pub(super) struct Summed {
    size: u64,
    sha256: Context,
}

impl Default for Summed {
    fn default() -> Self {
        Self { size: 0, sha256: Context::new(&SHA256) }
    }
}

impl Summed {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    pub(super) fn finish(self) -> Plain {
        Plain { size: self.size, sha256: crate::digest::hex(self.sha256.finish().as_ref()) }
    }
}

/// The sending end of a channel as a writer.
struct Chunks {
    chunks: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
    progress: Arc<Progress>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.progress.stored(full.len());
        self.chunks.blocking_send(full.into()).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload stopped"))
    }
}

/// The receiving end of a channel as a reader. A closed channel counts as the end: a sender that stops early reports
/// its own error.
struct Arrived {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Arrived {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let take = buffer.len().min(self.current.len());
        buffer[..take].copy_from_slice(&self.current.split_to(take));
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(plain: &[u8], identity: &x25519::Identity) -> (Vec<u8>, Plain) {
        let (sender, mut receiver) = channel();
        let recipient = identity.to_public();
        std::thread::scope(|scope| {
            let sealing = scope.spawn(|| encrypt(plain, &recipient, sender, &Arc::default()).unwrap());
            let mut bytes = Vec::new();
            while let Some(chunk) = receiver.blocking_recv() {
                bytes.extend_from_slice(&chunk);
            }
            (bytes, sealing.join().unwrap())
        })
    }

    fn unsealed(bytes: &[u8], identity: &x25519::Identity) -> Result<(Vec<u8>, Plain), Error> {
        let (sender, receiver) = channel();
        let mut plain = Vec::new();
        let sum = std::thread::scope(|scope| {
            scope.spawn(move || {
                for chunk in bytes.chunks(1000) {
                    if sender.blocking_send(Bytes::copy_from_slice(chunk)).is_err() {
                        break;
                    }
                }
            });
            decrypt(receiver, identity, &mut plain, &Arc::default(), Until::End)
        })?;
        Ok((plain, sum))
    }

    #[test]
    fn what_was_sealed_comes_back() {
        let identity = x25519::Identity::generate();
        let plain: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (bytes, sum) = sealed(&plain, &identity);
        assert!(bytes.len() < plain.len());
        let (back, sum_back) = unsealed(&bytes, &identity).unwrap();
        assert!(back == plain);
        assert_eq!(sum, sum_back);
    }

    #[test]
    fn a_truncated_dump_is_found() {
        let identity = x25519::Identity::generate();
        let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (bytes, _) = sealed(&plain, &identity);
        for cut in [1, 17, bytes.len() / 2, bytes.len() - 3] {
            assert!(unsealed(&bytes[..bytes.len() - cut], &identity).is_err(), "cut by {cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_flipped_bit_is_found(at in 0_usize..1_000_000, bit in 0_u8..8) {
            let identity = x25519::Identity::generate();
            let plain: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
            let (mut bytes, _) = sealed(&plain, &identity);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(unsealed(&bytes, &identity).is_err());
        }
    }
}
