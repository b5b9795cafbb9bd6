//! Uploads a stream of unknown length with memory that does not grow.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client,
    config::timeout::TimeoutConfig,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{
    PART_ATTEMPT, S3,
    answer::{tag, version},
    objects,
};
use crate::store::{Error, Stored};

const MIB: usize = 1 << 20;
/// The size of the first parts.
const FIRST: usize = 16 * MIB;
/// After every so many parts their size doubles. So 10,000 parts, the most that S3 allows, hold more than the largest
/// object that it allows.
const DOUBLES_EVERY: usize = 1200;
/// How many bytes may be in flight at once, besides the part that is being filled.
const IN_FLIGHT: usize = 2 * FIRST;
/// Parts above this size are buffered in a file instead of in memory.
const LARGEST_IN_MEMORY: usize = FIRST;

/// The size of a part, counted from 1.
fn part_size(number: usize) -> usize {
    FIRST << ((number.saturating_sub(1)) / DOUBLES_EVERY).min(8)
}

/// An object that is being uploaded. Readers see it only after [`Upload::complete`]. A crash leaves an open upload,
/// which the next attempt and every erasure abort.
pub struct Upload<'s> {
    s3: &'s S3,
    key: String,
    id: String,
    next: usize,
    part: Part,
    room: Arc<Semaphore>,
    sending: JoinSet<Result<Sent, Error>>,
    sent: Vec<Sent>,
    crc: crc_fast::Digest,
    size: u64,
}

/// A part that is being filled or sent.
enum Part {
    Memory(Vec<u8>),
    File(Box<Spooled>),
}

/// A part that is buffered in a file.
struct Spooled {
    file: tokio::fs::File,
    path: std::path::PathBuf,
    len: usize,
    crc: crc_fast::Digest,
}

/// A part that the store accepted.
struct Sent {
    number: i32,
    etag: String,
    crc: String,
}

impl S3 {
    /// Begins an upload.
    pub(crate) async fn upload(&self, key: &str) -> Result<Upload<'_>, Error> {
        let call = self.rw.create_multipart_upload().bucket(&self.location.bucket).key(self.full(key));
        let begun = call
            .set_expected_bucket_owner(self.owner())
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .content_type("application/octet-stream")
            .send()
            .await
            .map_err(|e| self.fail_at("begin an upload", key, e))?;
        let id = begun.upload_id().map(str::to_owned).ok_or_else(|| Error::Refused {
            action: "begin an upload",
            code: "NoUploadId".into(),
            source: "the answer has no upload id".into(),
        })?;
        Ok(Upload {
            s3: self,
            key: key.to_owned(),
            id,
            next: 1,
            part: Part::Memory(Vec::with_capacity(FIRST)),
            room: Arc::new(Semaphore::new(IN_FLIGHT / MIB)),
            sending: JoinSet::new(),
            sent: Vec::new(),
            crc: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme),
            size: 0,
        })
    }
}

impl Upload<'_> {
    /// Adds bytes. Waits while too many bytes are in flight.
    ///
    /// # Errors
    /// A part could not be sent. Call [`Self::abort`] then.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.crc.update(bytes);
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = part_size(self.next);
            let take = bytes.len().min(size - self.part.len());
            let (now, later) = bytes.split_at(take);
            self.part.push(now).await.map_err(|source| Error::Source { key: self.key.clone(), source })?;
            bytes = later;
            if self.part.len() == size {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Starts to send the current part and begins the next one.
    async fn send(&mut self) -> Result<(), Error> {
        while let Some(done) = self.sending.try_join_next() {
            self.arrived(done)?;
        }
        let number = self.next;
        self.next += 1;
        let following = Part::of_size(part_size(self.next)).await.map_err(|source| Error::Source { key: self.key.clone(), source })?;
        let weight = u32::try_from((self.part.in_memory() / MIB).clamp(1, IN_FLIGHT / MIB)).unwrap_or(1);
        let permit = Arc::clone(&self.room).acquire_many_owned(weight).await;
        let part = std::mem::replace(&mut self.part, following);
        let task = Sending {
            client: self.s3.rw.clone(),
            bucket: self.s3.location.bucket.clone(),
            owner: self.s3.owner(),
            full_key: self.s3.full(&self.key),
            upload: self.id.clone(),
            number: i32::try_from(number).unwrap_or(i32::MAX),
            _room: permit.ok(),
        };
        let (endpoint, key) = (self.s3.location.endpoint.clone(), self.key.clone());
        self.sending.spawn(async move { task.run(part, endpoint, key).await });
        Ok(())
    }

    fn arrived(&mut self, done: Result<Result<Sent, Error>, tokio::task::JoinError>) -> Result<(), Error> {
        let broken = |e: tokio::task::JoinError| Error::Source { key: self.key.clone(), source: std::io::Error::other(e) };
        let sent = done.map_err(broken)??;
        self.sent.push(sent);
        Ok(())
    }

    /// Makes the object visible and never overwrites one. Callers must know that they wrote the whole stream.
    ///
    /// # Errors
    /// [`Error::Altered`] when the key has another object or the store computed another checksum.
    pub async fn complete(mut self) -> Result<Stored, Error> {
        if self.part.len() > 0 || self.next == 1 {
            self.send().await?;
        }
        while let Some(done) = self.sending.join_next().await {
            self.arrived(done)?;
        }
        self.sent.sort_by_key(|part| part.number);
        let parts = self
            .sent
            .iter()
            .map(|p| CompletedPart::builder().part_number(p.number).e_tag(&p.etag).checksum_crc64_nvme(&p.crc).build())
            .collect();
        let crc = objects::spell(self.crc.finalize());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let finish = |once: bool| {
            self.s3
                .rw
                .complete_multipart_upload()
                .bucket(&self.s3.location.bucket)
                .key(self.s3.full(&self.key))
                .upload_id(&self.id)
                .set_expected_bucket_owner(self.s3.owner())
                .multipart_upload(parts.clone())
                .checksum_type(ChecksumType::FullObject)
                .checksum_crc64_nvme(&crc)
                .set_if_none_match(once.then(|| "*".to_owned()))
                .send()
        };
        let mut done = finish(true).await;
        if done.is_err() {
            match self.s3.head(&self.key).await? {
                // The first answer was lost and the client repeated the request: the object is already complete.
                Some(head) if head.size == self.size && head.crc64nvme.as_ref() == Some(&crc) => {
                    return Ok(Stored::from(head));
                }
                Some(_) => {}
                // The store has no conditional writes, or answers 412 for a delete marker. There is no object, so this
                // request overwrites none.
                None => done = finish(false).await,
            }
        }
        let done = done.map_err(|e| self.s3.fail_at("complete an upload", &self.key, e))?;
        match done.checksum_crc64_nvme() {
            Some(theirs) if theirs != crc => {
                Err(Error::Altered { key: self.key.clone(), why: format!("the store computed the checksum {theirs}, not {crc}") })
            }
            theirs => Ok(Stored {
                size: self.size,
                etag: tag(done.e_tag()),
                crc64nvme: theirs.map(str::to_owned),
                version_id: version(done.version_id()),
            }),
        }
    }

    /// Aborts the upload, so that no object becomes visible.
    ///
    /// # Errors
    /// The request failed; the open upload then stays until the next attempt or the erasure.
    pub async fn abort(mut self) -> Result<(), Error> {
        self.sending.shutdown().await;
        self.s3.abort(&self.s3.rw, &self.s3.full(&self.key), &self.id).await
    }
}

/// The inputs of the task that sends one part.
struct Sending {
    client: Client,
    bucket: String,
    owner: Option<String>,
    full_key: String,
    upload: String,
    number: i32,
    _room: Option<OwnedSemaphorePermit>,
}

impl Sending {
    async fn run(self, part: Part, endpoint: String, key: String) -> Result<Sent, Error> {
        let size = part.len();
        let failed = |source| Error::Source { key: key.clone(), source };
        let (body, crc, file) = part.into_body().await.map_err(failed)?;
        let patience = PART_ATTEMPT * u32::try_from(size.div_ceil(FIRST)).unwrap_or(1);
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(patience).operation_timeout(patience * 3).build();
        let call = self.client.upload_part().bucket(&self.bucket).key(&self.full_key).upload_id(&self.upload).part_number(self.number);
        let sent = call
            .set_expected_bucket_owner(self.owner.clone())
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_crc64_nvme(&crc)
            .body(body)
            .customize()
            .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeouts))
            .send()
            .await;
        if let Some(file) = file {
            let _ = tokio::fs::remove_file(file).await;
        }
        match sent {
            Ok(sent) => Ok(Sent { number: self.number, etag: tag(sent.e_tag()), crc }),
            Err(error) => Err(Error::Unreachable { endpoint, source: Box::new(error) }),
        }
    }
}

/// How long the file system may take to create a file.
const FILE: Duration = Duration::from_secs(30);

impl Part {
    async fn of_size(size: usize) -> std::io::Result<Self> {
        if size <= LARGEST_IN_MEMORY {
            return Ok(Self::Memory(Vec::with_capacity(size)));
        }
        let path = std::env::temp_dir().join(format!("part-{}", crate::digest::hex(&random()?)));
        let file = tokio::time::timeout(FILE, tokio::fs::File::create_new(&path)).await.map_err(std::io::Error::other)??;
        let crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        Ok(Self::File(Box::new(Spooled { file, path, len: 0, crc })))
    }

    fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(spooled) => spooled.len,
        }
    }

    fn in_memory(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            // As many as may be in flight: the client buffers some of the file, and two files are never sent at once.
            Self::File(..) => IN_FLIGHT,
        }
    }

    async fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Memory(part) => part.extend_from_slice(bytes),
            Self::File(spooled) => {
                tokio::io::AsyncWriteExt::write_all(&mut spooled.file, bytes).await?;
                spooled.crc.update(bytes);
                spooled.len += bytes.len();
            }
        }
        Ok(())
    }

    async fn into_body(self) -> std::io::Result<(ByteStream, String, Option<std::path::PathBuf>)> {
        match self {
            Self::Memory(bytes) => {
                let crc = objects::crc64nvme(&bytes);
                Ok((ByteStream::from(Bytes::from(bytes)), crc, None))
            }
            Self::File(spooled) => {
                let Spooled { mut file, path, mut crc, .. } = *spooled;
                tokio::io::AsyncWriteExt::flush(&mut file).await?;
                let body = ByteStream::from_path(&path).await.map_err(std::io::Error::other)?;
                Ok((body, objects::spell(crc.finalize_reset()), Some(path)))
            }
        }
    }
}

fn random() -> std::io::Result<[u8; 8]> {
    let mut bytes = [0_u8; 8];
    let system = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&system, &mut bytes).map_err(|_| std::io::Error::other("failed to get random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_waits_in_a_file_is_sent_as_it_came() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut part = Part::of_size(LARGEST_IN_MEMORY + 1).await.unwrap();
        for chunk in bytes.chunks(7_001) {
            part.push(chunk).await.unwrap();
        }
        assert_eq!(part.len(), bytes.len());
        let (body, crc, file) = part.into_body().await.unwrap();
        assert_eq!(crc, objects::crc64nvme(&bytes));
        assert!(body.collect().await.unwrap().into_bytes() == bytes);
        std::fs::remove_file(file.unwrap()).unwrap();
    }

    #[test]
    fn ten_thousand_parts_hold_the_largest_object() {
        let total: usize = (1..=10_000).map(part_size).sum();
        assert!(total > 5 << 40, "{total}");
        assert!((1..=10_000).map(part_size).max().unwrap() <= 5 << 30);
    }
}
