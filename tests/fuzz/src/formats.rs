//! Properties of the formats: what is read is written back the same, what is accepted is what its name says.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::str::FromStr;

use bytes::Bytes;
use colibri_common::merkle;
use colibri_metadata::{TargetName, canonical};
use colibri_package::delivery::{self, DeliveryType, Layout};
use colibri_package::manifest::{BuildManifest, PackageManifestList, SubpackagesBuildManifest};
use colibri_package::url::{
    AbsoluteComponentUrl, AbsolutePackageUrl, BootUrl, PinnedPackageUrl, RelativeComponentUrl, RelativePackageUrl,
    RepositoryUrl, UnpinnedPackageUrl,
};
use colibri_package::{MetaContents, MetaFar, MetaPackage, MetaSubpackages, PackageManifest, far};

/// What the strict reader accepts has one canonical form, which it reads back as the same value.
pub fn canonical(data: &[u8]) {
    let Ok(value) = canonical::parse(data) else { return };
    let text = canonical::encode(&value).expect("what was read strictly can be written");
    let again = canonical::parse(&text).expect("the canonical form is strict");
    assert_eq!(again, value);
    assert_eq!(canonical::encode(&again).expect("twice"), text, "the canonical form is stable");
    // A reader that asks for less than ours sees the same value.
    let lenient: serde_json::Value = serde_json::from_slice(data).expect("strict JSON is JSON");
    assert_eq!(lenient, value);
}

/// A target name stays below the folder it is joined to, and is its own text.
pub fn target_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(name) = TargetName::from_str(text) else { return };
    assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
    assert!(!text.is_empty() && !text.contains('\0'));
    let mut depth = 0;
    for component in Path::new(text).components() {
        assert!(matches!(component, Component::Normal(_)), "{text:?}");
        depth += 1;
    }
    assert_eq!(depth, text.split('/').count(), "no segment is lost on the way to a path: {text:?}");
}

/// Manifests in lines and in JSON: what was read is read again from what is written.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = BuildManifest::parse(data, |_, _| false) {
        assert!(manifest.meta.keys().all(|path| path.starts_with("meta/")));
        let entries = || manifest.meta.iter().chain(&manifest.contents);
        let lines: String = entries().map(|(path, source)| format!("{path}={source}\n")).collect();
        // Text of lines cannot say paths with line ends or surrounding spaces; JSON can.
        let plain = |text: &str| text.trim() == text && !text.contains(['\n', '\r']);
        let sayable = entries().all(|(path, source)| plain(path) && plain(source) && !path.contains('='));
        if sayable && !lines.starts_with('{') {
            let meta_only = manifest.contents.keys().all(|path| !path.starts_with("meta/"));
            let again = BuildManifest::parse(lines.as_bytes(), |_, _| false).expect("lines");
            assert!(again == manifest || !meta_only, "{lines:?}");
        }
    }
    if let Ok(manifest) = PackageManifest::parse(data) {
        let text = manifest.to_bytes().expect("what was read can be written");
        assert_eq!(PackageManifest::parse(&text).expect("what was written can be read"), manifest);
    }
    if let Ok(list) = PackageManifestList::parse(data) {
        let text = list.to_bytes().expect("what was read can be written");
        assert_eq!(PackageManifestList::parse(&text).expect("what was written can be read"), list);
    }
    if let Ok(contents) = MetaContents::parse(data) {
        let text = contents.to_bytes();
        assert_eq!(MetaContents::parse(&text).expect("what was written can be read"), contents);
    }
    if let Ok(package) = MetaPackage::parse(data) {
        assert_eq!(MetaPackage::parse(&package.to_bytes()).expect("what was written can be read"), package);
    }
    if let Ok(subpackages) = MetaSubpackages::parse(data) {
        let text = subpackages.to_bytes().expect("what was read can be written");
        assert_eq!(MetaSubpackages::parse(&text).expect("what was written can be read"), subpackages);
    }
    drop(SubpackagesBuildManifest::parse(data));
}

/// An archive holds what its directory says, from memory and from a file, and can be written anew.
pub fn far(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let parsed = far::FarBytes::parse(bytes.clone());
    let reader = far::FarReader::open(std::io::Cursor::new(data));
    assert_eq!(parsed.is_ok(), reader.is_ok(), "both readers agree");
    let (Ok(parsed), Ok(mut reader)) = (parsed, reader) else { return };
    assert_eq!(parsed.entries(), reader.entries());
    let mut files = BTreeMap::new();
    for entry in parsed.entries() {
        let content = parsed.get(entry.name()).expect("a listed file is there");
        assert_eq!(content.len() as u64, entry.length());
        assert_eq!(reader.read(entry.name(), u64::MAX).expect("a listed file can be read"), content);
        files.insert(entry.name().to_vec(), content);
    }
    let written = far::to_bytes(&files).expect("what was read can be written");
    let again = far::FarBytes::parse(written.into()).expect("what was written can be read");
    assert_eq!(again.entries().len(), files.len());
    for (name, content) in &files {
        assert_eq!(again.get(name).as_ref(), Some(content));
    }
    if let Ok(meta) = MetaFar::parse(bytes) {
        let contents = MetaContents::new(meta.contents().clone()).expect("contents that were read are contents");
        assert_eq!(contents.as_map(), meta.contents());
    }
}

/// Two ways to the content of a delivery blob: at once, and piece by piece against the leaves of its id. The input as it is,
/// and with its checksums put right, which no fuzzer guesses.
pub fn delivery(data: &[u8]) {
    delivery_blob(data);
    let mut repaired = data.to_vec();
    if repair(&mut repaired).is_some() {
        delivery_blob(&repaired);
    }
}

/// Puts the checksums of header and archive right; nothing if the input is too short to have any.
fn repair(blob: &mut [u8]) -> Option<()> {
    const HEADER_BYTES: usize = 28;
    const HEADER_CRC_AT: usize = 20;
    const ARCHIVE_CRC_AT: usize = HEADER_BYTES + 16;
    let mut header = *blob.first_chunk::<HEADER_BYTES>()?;
    header[HEADER_CRC_AT..HEADER_CRC_AT + 4].fill(0);
    blob[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&crc32fast::hash(&header).to_le_bytes());
    let count = blob.get(HEADER_BYTES + 12..HEADER_BYTES + 16)?;
    let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
    let end = (HEADER_BYTES + 32 + 32 * count).min(blob.len());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&blob[HEADER_BYTES..ARCHIVE_CRC_AT]);
    crc.update(blob.get(ARCHIVE_CRC_AT + 4..end)?);
    blob[ARCHIVE_CRC_AT..ARCHIVE_CRC_AT + 4].copy_from_slice(&crc.finalize().to_le_bytes());
    Some(())
}

fn delivery_blob(data: &[u8]) {
    let whole = delivery::decode(data);
    let tree = delivery::content_tree(data);
    assert_eq!(whole.is_ok(), tree.is_ok(), "decoding and hashing agree");
    let (Ok(content), Ok(tree)) = (whole, tree) else { return };
    let built = merkle::build(&content);
    assert_eq!((tree.id, tree.length.bytes()), (built.id, content.len() as u64));
    assert_eq!(delivery::decode_verified(built.id, data).expect("it is the blob of its id"), content);
    let ty = if data[4] == 1 { DeliveryType::Type1 } else { DeliveryType::Type2 };
    let layout = Layout::from_unit_h(ty, built.leaves, data).expect("what decodes has a layout");
    assert_eq!(layout.encoded_length().0, data.len() as u64);
    let mut pieces = Vec::new();
    for piece in 0..layout.piece_count() {
        let place = layout.piece_range(piece);
        let encoded = Bytes::copy_from_slice(&data[place.within(0)]);
        let verified = layout.verify(piece, encoded).expect("what decodes verifies");
        verified.content().iter().for_each(|run| pieces.extend_from_slice(run.bytes()));
    }
    assert_eq!(pieces, content);
    // One wrong bit in the content's id is another blob.
    let mut other = *built.id.as_bytes();
    other[0] ^= 1;
    assert!(delivery::decode_verified(colibri_common::BlobId::from_digest(other), data).is_err());
}

/// What is a URL prints as one that means the same, and prints the same again.
pub fn url(data: &[u8]) {
    fn stable<T: FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str)
    where
        T::Err: std::fmt::Debug,
    {
        if let Ok(url) = text.parse::<T>() {
            let printed = url.to_string();
            let again: T = printed.parse().unwrap_or_else(|error| panic!("{printed:?}: {error:?}"));
            assert_eq!(again, url);
            assert_eq!(again.to_string(), printed);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    stable::<RepositoryUrl>(text);
    stable::<UnpinnedPackageUrl>(text);
    stable::<PinnedPackageUrl>(text);
    stable::<AbsolutePackageUrl>(text);
    stable::<AbsoluteComponentUrl>(text);
    stable::<RelativePackageUrl>(text);
    stable::<RelativeComponentUrl>(text);
    stable::<BootUrl>(text);
    // No text is both pinned and unpinned.
    assert!(text.parse::<UnpinnedPackageUrl>().is_err() || text.parse::<PinnedPackageUrl>().is_err());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoilt_checksum_is_put_right() {
        let seed = crate::seeds::delivery().into_iter().find(|blob| blob.len() > 1000).expect("a compressed vector");
        let mut spoilt = seed.clone();
        spoilt[20] ^= 1;
        spoilt[44] ^= 1;
        assert!(delivery::decode(&spoilt).is_err());
        repair(&mut spoilt).expect("long enough");
        assert_eq!(spoilt, seed);
    }
}
