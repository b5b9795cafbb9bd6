//! Writes and reads `contents.zst.age`: the contents of the source, beside the dump.

use super::{Error, config::Mover, fingerprint::Contents};
use crate::digest;
use crate::{
    backup::{
        keys,
        manifest::{CONTENTS, Manifest, Object},
    },
    store::{self, Stored},
};

/// The compression level of zstd: high, because the contents are small.
const LEVEL: i32 = 9;
/// The largest object that is read, in bytes: more than a database of 100,000 tables needs.
const LARGEST: u64 = 256 << 20;

/// Writes the contents, encrypted, under a name that is free.
pub(super) async fn write(mover: &Mover, contents: &Contents) -> Result<Object, Error> {
    let damaged = |why: String| Error::Unequal(format!("its contents cannot be written: {why}"));
    let plain = serde_json::to_vec(contents).map_err(|e| damaged(e.to_string()))?;
    let packed = zstd::encode_all(plain.as_slice(), LEVEL).map_err(|e| damaged(e.to_string()))?;
    let sealed = keys::encrypt(&mover.identity.to_public(), &packed).map_err(|_| Error::Key("it encrypts nothing"))?;
    let name = mover.free_name(CONTENTS).await?;
    let sha256 = digest::sha256(&sealed);
    let stored: Stored = mover.store.bucket.write_once(&mover.key(&name), sealed).await?;
    Ok(Object { name, size: stored.size, sha256, etag: stored.etag, crc64nvme: stored.crc64nvme, version_id: stored.version_id })
}

/// Reads the contents back. An older backup may have none.
pub(super) async fn read(mover: &Mover, manifest: &Manifest) -> Result<Option<Contents>, Error> {
    let Some(object) = &manifest.contents else { return Ok(None) };
    let sealed = match mover.store.bucket.read(&mover.key(&object.name), LARGEST).await {
        Ok(bytes) => bytes,
        Err(store::Error::Missing(_)) => return Err(Error::Unequal(format!("{} is missing", object.name))),
        Err(error) => return Err(error.into()),
    };
    if digest::sha256(&sealed) != object.sha256 {
        return Err(Error::Unequal(format!("{} is not what was stored", object.name)));
    }
    let packed =
        age::decrypt(&mover.identity, &sealed).map_err(|_| Error::Unequal(format!("{} is not encrypted to its key", object.name)))?;
    let damaged = |why: String| Error::Unequal(format!("{} cannot be read: {why}", object.name));
    let plain = zstd::decode_all(packed.as_slice()).map_err(|e| damaged(e.to_string()))?;
    let contents: Contents = serde_json::from_slice(&plain).map_err(|e| damaged(e.to_string()))?;
    Ok(Some(contents))
}
