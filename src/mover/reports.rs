//! Reads the signed reports of a backup from its folder.

use super::{Error, config::Mover};
use crate::digest;
use crate::{
    backup::manifest::{self, MANIFEST, Manifest, VERIFICATION, Verification},
    store,
};

/// Reads the manifest, checks its signature and that it is of this backup, and returns it with its SHA-256.
pub(super) async fn read_manifest(mover: &Mover) -> Result<(Manifest, String), Error> {
    let bytes = match mover.store.bucket.read(&mover.key(MANIFEST), manifest::LARGEST_REPORT).await {
        Ok(bytes) => bytes,
        Err(store::Error::Missing(_)) => return Err(Error::NoManifest),
        Err(error) => return Err(error.into()),
    };
    let facts: Manifest = manifest::verify(&bytes, &mover.verifying)?;
    let plan = &mover.plan;
    if facts.account_uid != plan.account_uid || facts.backup != plan.backup || facts.store_identity != plan.store_identity {
        return Err(Error::Unequal(format!("its manifest speaks of {} of account {}", facts.backup, facts.account_uid)));
    }
    if facts.key_id != mover.identity.to_public().to_string() {
        return Err(Error::Key("the manifest names another one"));
    }
    Ok((facts, digest::sha256(&bytes)))
}

/// Reads the verification, if there is one, and checks it. Returns it parsed, and its bytes.
pub(super) async fn read_verification(mover: &Mover, manifest_sha256: &str) -> Result<Option<(Verification, Vec<u8>)>, Error> {
    let bytes = match mover.store.bucket.read(&mover.key(VERIFICATION), manifest::LARGEST_REPORT).await {
        Ok(bytes) => bytes,
        Err(store::Error::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let proof: Verification = manifest::verify(&bytes, &mover.verifying)?;
    if proof.manifest_sha256 != manifest_sha256 {
        return Err(Error::Unequal("its verification is of another manifest".into()));
    }
    Ok(Some((proof, bytes)))
}
