//! Reads and writes single objects.

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{
    S3,
    answer::{Refusal, moment, tag, version},
};
use crate::store::{Error, Head, Stored};

/// How often a download that broke off is resumed at the byte where it stopped.
const RESUMES: u32 = 4;

/// CRC-64/NVME in base64, as the protocol writes it.
pub(super) fn crc64nvme(bytes: &[u8]) -> String {
    spell(crc_fast::crc64_nvme(bytes))
}

/// A checksum in base64, as the protocol writes it.
pub(super) fn spell(crc: u64) -> String {
    BASE64_STANDARD.encode(crc.to_be_bytes())
}

impl S3 {
    /// Reads the metadata of an object; `None` when there is no such object.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Head>, Error> {
        let call = self.rw.head_object().bucket(&self.location.bucket).key(self.full(key)).set_expected_bucket_owner(self.owner());
        match call.checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(found) => Ok(Some(Head {
                size: found.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                etag: tag(found.e_tag()),
                crc64nvme: found.checksum_crc64_nvme().map(str::to_owned),
                version_id: version(found.version_id()),
                modified_at: found.last_modified().and_then(moment),
            })),
            Err(error) => match self.sort("look at an object", error) {
                Refusal::Missing => Ok(None),
                Refusal::Failed(error) => Err(error),
                Refusal::Exists | Refusal::Unsupported | Refusal::NotConfigured => {
                    Err(Error::Refused { action: "look at an object", code: "unexpected".into(), source: key.to_owned().into() })
                }
            },
        }
    }

    /// Opens an object for reading from its beginning to its end.
    pub(crate) async fn get(&self, key: &str) -> Result<Download<'_>, Error> {
        let call = self.rw.get_object().bucket(&self.location.bucket).key(self.full(key)).set_expected_bucket_owner(self.owner());
        let found = call.send().await.map_err(|e| self.fail_at("read an object", key, e))?;
        Ok(Download {
            s3: self,
            key: key.to_owned(),
            size: found.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            etag: tag(found.e_tag()),
            offset: 0,
            resumes: 0,
            body: found.body,
        })
    }

    /// Reads a whole small object. One of more than `limit` bytes is [`Error::Altered`]: the operator writes none.
    pub(crate) async fn read(&self, key: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let mut download = self.get(key).await?;
        if download.size > limit {
            return Err(Error::Altered { key: key.to_owned(), why: format!("it has {} bytes, more than {limit}", download.size) });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(download.size).unwrap_or(0));
        while let Some(chunk) = download.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Writes a small object and never overwrites one. Succeeds if the key already has the same bytes; other bytes are
    /// [`Error::Altered`].
    pub(crate) async fn write_once(&self, key: &str, bytes: Vec<u8>) -> Result<Stored, Error> {
        let crc = crc64nvme(&bytes);
        let bytes = Bytes::from(bytes);
        let put = |once: bool| {
            self.rw
                .put_object()
                .bucket(&self.location.bucket)
                .key(self.full(key))
                .set_expected_bucket_owner(self.owner())
                .set_if_none_match(once.then(|| "*".to_owned()))
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_crc64_nvme(&crc)
                .body(ByteStream::from(bytes.clone()))
                .send()
        };
        let mut answer = put(true).await.map_err(|e| self.sort("write an object", e));
        if matches!(answer, Err(Refusal::Unsupported)) {
            // The store has no conditional writes, so check first. Only a mistake could make two writers of one key;
            // reading the object back finds it.
            answer = match self.head(key).await? {
                Some(_) => Err(Refusal::Exists),
                None => put(false).await.map_err(|e| self.sort("write an object", e)),
            };
        }
        if matches!(answer, Err(Refusal::Exists)) {
            match self.same(key, &bytes).await {
                // Some stores answer 412 for a key with only a delete marker. The read above found no object, so this
                // write overwrites none.
                Err(Error::Missing(_)) => answer = put(false).await.map_err(|e| self.sort("write an object", e)),
                known => return known,
            }
        }
        match answer {
            Ok(done) => Ok(Stored {
                size: bytes.len() as u64,
                etag: tag(done.e_tag()),
                crc64nvme: done.checksum_crc64_nvme().filter(|c| *c == crc).map(str::to_owned),
                version_id: version(done.version_id()),
            }),
            Err(Refusal::Exists) => Err(Error::Altered { key: key.to_owned(), why: "another object lies there".into() }),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Missing) => Err(Error::NoSuchBucket(self.location.bucket.clone())),
            Err(Refusal::Unsupported | Refusal::NotConfigured) => {
                Err(Error::Refused { action: "write an object", code: "NotImplemented".into(), source: key.to_owned().into() })
            }
        }
    }

    async fn same(&self, key: &str, bytes: &[u8]) -> Result<Stored, Error> {
        let existing = self.read(key, bytes.len() as u64).await?;
        if existing != bytes {
            return Err(Error::Altered { key: key.to_owned(), why: "other bytes lie there, and it is written once".into() });
        }
        let head = self.head(key).await?.ok_or_else(|| Error::Missing(key.to_owned()))?;
        Ok(Stored::from(head))
    }

    /// Lists the names one level below `below`, each with a slash at its end, and without `below` itself.
    pub(crate) async fn folders(&self, below: &str) -> Result<Vec<String>, Error> {
        let mut pages = self
            .rw
            .list_objects_v2()
            .bucket(&self.location.bucket)
            .prefix(self.full(below))
            .delimiter("/")
            .set_expected_bucket_owner(self.owner())
            .into_paginator()
            .send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.fail("list objects", e))?;
            names.extend(page.common_prefixes().iter().filter_map(|p| p.prefix()).map(|p| self.below(p)[below.len()..].to_owned()));
        }
        Ok(names)
    }
}

/// An object being read. If the connection breaks, the download resumes at the same byte of the unchanged object
/// (`If-Match`).
pub struct Download<'s> {
    s3: &'s S3,
    key: String,
    /// The size that the store announced, in bytes.
    pub size: u64,
    /// The entity tag (`ETag`) of these bytes.
    pub etag: String,
    offset: u64,
    resumes: u32,
    body: ByteStream,
}

impl Download<'_> {
    /// Returns the next bytes; `None` only after as many bytes as the store announced.
    ///
    /// # Errors
    /// The connection broke too often, or the object changed meanwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.body.next().await {
                Some(Ok(chunk)) => {
                    self.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                None if self.offset == self.size => return Ok(None),
                None => self.resume("the answer ended early".into()).await?,
                Some(Err(error)) => self.resume(Box::new(error)).await?,
            }
        }
    }

    async fn resume(&mut self, source: crate::store::Cause) -> Result<(), Error> {
        self.resumes += 1;
        if self.resumes > RESUMES || self.offset >= self.size {
            return Err(Error::Unreachable { endpoint: self.s3.location.endpoint.clone(), source });
        }
        let s3 = self.s3;
        let call = s3.rw.get_object().bucket(&s3.location.bucket).key(s3.full(&self.key)).set_expected_bucket_owner(s3.owner());
        let again = call.range(format!("bytes={}-", self.offset)).if_match(format!("\"{}\"", self.etag)).send().await;
        self.body = again.map_err(|e| s3.fail_at("read an object", &self.key, e))?.body;
        Ok(())
    }
}
