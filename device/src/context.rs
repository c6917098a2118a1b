//! [`Context`]: says of which package somebody may resolve subpackages (reference "Fuchsia device side" §7.6). It is opaque and
//! authenticated with a secret of this process (HMAC-SHA256, RFC 2104), so nobody can make one for a package that was never
//! opened for them.

use colibri_common::{BlobId, Digest, sha256};
use colibri_package::url::RelativePackageUrl;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::cache::Lease;
use crate::device::Device;
use crate::error::DeviceError;

/// Bytes of a block of SHA-256.
const BLOCK_BYTES: usize = 64;

const DIGEST_BYTES: usize = size_of::<Digest>();

/// What resolving a package gives, for its subpackages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    package: Digest,
    tag: Digest,
}

impl Context {
    /// As it travels: 64 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.package, self.tag].concat()
    }

    /// What may be one.
    ///
    /// # Errors
    /// It has another length. Whether it was made here is found out when it is used.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DeviceError> {
        let refused = || DeviceError::InvalidContext(format!("it has {} bytes", bytes.len()));
        let (package, tag) = bytes.split_first_chunk().ok_or_else(refused)?;
        Ok(Self { package: *package, tag: tag.try_into().map_err(|_| refused())? })
    }
}

/// The secret.
pub(crate) struct ContextKey([u8; DIGEST_BYTES]);

impl ContextKey {
    /// One that nobody knows.
    pub fn fresh() -> Result<Self, DeviceError> {
        let mut key = [0; DIGEST_BYTES];
        let mut filled = 0;
        while filled < key.len() {
            let more = getrandom(&mut key[filled..], GetRandomFlags::empty());
            filled += more.map_err(|error| DeviceError::Internal(format!("no random numbers: {error}")))?;
        }
        Ok(Self(key))
    }

    fn context(&self, package: BlobId) -> Context {
        let package = *package.as_bytes();
        Context { package, tag: hmac(&self.0, &package) }
    }

    /// The package, if the context was made with this secret.
    fn package(&self, context: &Context) -> Option<BlobId> {
        let expected = hmac(&self.0, &context.package);
        // In a time that does not depend on where they differ.
        let differ = expected.iter().zip(&context.tag).fold(0, |differ, (left, right)| differ | (left ^ right));
        (differ == 0).then(|| BlobId::from_digest(context.package))
    }
}

/// HMAC-SHA256 with a key of at most one block.
fn hmac(key: &[u8], message: &[u8]) -> Digest {
    let pad = |with: u8| -> Vec<u8> {
        let mut block = [0; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
        block.iter().map(|byte| byte ^ with).collect()
    };
    let inner = sha256(&[pad(0x36), message.to_vec()].concat());
    sha256(&[pad(0x5c), inner.to_vec()].concat())
}

impl Device {
    /// The context of an open package.
    pub fn context(&self, lease: &Lease) -> Context {
        self.context_key().context(lease.package())
    }

    /// Opens the subpackage of this name of the package that `context` is of, which must still be open. All of it is here:
    /// resolving a package fetches its subpackages too. `holder` says who does, for those who list leases.
    ///
    /// # Errors
    /// The context was not made by this process, the package is not open any more or has no such subpackage.
    pub async fn open_subpackage(
        &self,
        name: &RelativePackageUrl,
        context: &Context,
        holder: &str,
    ) -> Result<Lease, DeviceError> {
        let forged = || DeviceError::InvalidContext("this process did not make it".to_owned());
        let package = self.context_key().package(context).ok_or_else(forged)?;
        if !self.leases().iter().any(|lease| lease.package == package) {
            return Err(DeviceError::SuperpackageClosed(package));
        }
        let meta_far = self.meta_far(package).await?;
        let subpackage = meta_far.subpackages().get(name).copied();
        let unknown = || DeviceError::SubpackageNotFound { package, name: name.to_string() };
        self.lease(subpackage.ok_or_else(unknown)?, holder).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let hex = |digest: Digest| colibri_common::hex(&digest);
        let first = hmac(&[0x0b; 20], b"Hi There");
        assert_eq!(hex(first), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        let second = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(second), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_context_is_of_its_package_and_its_secret_alone() {
        let (key, other) = (ContextKey::fresh().unwrap(), ContextKey::fresh().unwrap());
        let package = colibri_common::merkle::build(b"package").id;
        let bytes = key.context(package).to_bytes();
        assert_eq!(key.package(&Context::from_bytes(&bytes).unwrap()), Some(package));
        assert_eq!(other.package(&Context::from_bytes(&bytes).unwrap()), None);
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(key.package(&Context::from_bytes(&forged).unwrap()), None, "byte {at}");
        }
        for length in [0, 31, 32, 63, 65] {
            let cut: Vec<u8> = bytes.iter().copied().chain([0]).take(length).collect();
            assert!(Context::from_bytes(&cut).is_err(), "{length}");
        }
    }
}
