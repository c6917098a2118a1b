//! Publishing in three steps: ask, upload, submit.

use std::sync::Arc;

use colibri_common::{BlobId, merkle};
use colibri_package::delivery::{self, DeliveryType, Encoding};
use colibri_package::{AbiRevision, PackageBuild, PackagePath};
use colibri_store::testing::CrashDisk;

use crate::gate::Fault;
use crate::test_desk::{Desk, NOW};
use crate::{Repository, RepositoryError, Submit, limits};

const TYPE1: Encoding = Encoding::Delivery(DeliveryType::Type1);

/// A package of one file, and its meta.far.
fn package(content: &[u8]) -> (PackagePath, Vec<u8>) {
    let mut build = PackageBuild::new("up".parse().unwrap(), AbiRevision(1));
    build.add_content("data/file", merkle::build(content).id).unwrap();
    ("up/0".parse().unwrap(), build.finish().unwrap().to_vec())
}

fn id(content: &[u8]) -> BlobId {
    merkle::build(content).id
}

fn send(repository: &Repository, content: &[u8], form: Encoding, bytes: &[u8]) -> Result<u64, RepositoryError> {
    let mut upload = repository.upload(id(content), form, NOW)?.expect("it is not here yet");
    upload.write(upload.received(), &bytes[usize::try_from(upload.received()).unwrap()..])?;
    Ok(upload.finish(Some(1), NOW)?.bytes)
}

#[test]
fn ask_upload_submit() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let repository = desk.create(&disk).unwrap();
    let content = vec![5; 300_000];
    let (path, meta_far) = package(&content);
    let (package, file) = (id(&meta_far), id(&content));
    assert_eq!(repository.missing_blobs(&[file, package]).unwrap(), [file, package]);
    let submit = Submit { packages: vec![(path.clone(), package)], ..Submit::new(NOW) };
    let unready = |repository: &Repository| match repository.submit(&submit).unwrap_err() {
        RepositoryError::Unready { blobs, count } => {
            assert_eq!(blobs.len() as u64, count);
            blobs.into_iter().map(|blob| (blob.package, blob.path, blob.id, blob.fault)).collect::<Vec<_>>()
        }
        error => panic!("{error}"),
    };
    assert_eq!(unready(&repository), [("up/0".into(), "meta/".into(), package, Fault::Absent)]);
    let encoded = delivery::encode(&meta_far, DeliveryType::Type1, Some(1)).unwrap();
    assert_eq!(send(&repository, &meta_far, TYPE1, &encoded).unwrap(), meta_far.len() as u64);
    assert_eq!(unready(&repository), [("up/0".into(), "data/file".into(), file, Fault::Absent)]);
    assert_eq!(send(&repository, &content, Encoding::Raw, &content).unwrap(), content.len() as u64);
    assert!(repository.missing_blobs(&[file, package]).unwrap().is_empty());
    assert!(repository.upload(file, TYPE1, NOW).unwrap().is_none(), "it is here");
    repository.submit(&submit).unwrap();
    assert_eq!(repository.package("up").unwrap().hash, package);
    assert_eq!(repository.blob_content(file).unwrap(), content);
    // What was uploaded in pieces is gone, and all of it survives power loss.
    assert!(repository.storage.list("uploads/").unwrap().is_empty());
    let survivor = desk.open(&disk.crash(disk.operations(), 3)).unwrap();
    assert_eq!(survivor.blob_content(survivor.package("up").unwrap().hash).unwrap(), meta_far);
    let remove = Submit { remove: vec![path.clone()], ..Submit::new(NOW) };
    repository.submit(&remove).unwrap();
    assert!(repository.packages().unwrap().is_empty());
    assert!(matches!(repository.submit(&remove), Err(RepositoryError::UnknownPackage(name)) if name == "up/0"));
}

#[test]
fn an_upload_goes_on_after_power_loss_where_it_was_durable() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let repository = desk.create(&disk).unwrap();
    let piece = usize::try_from(limits::UPLOAD_PIECE_BYTES).unwrap();
    let content: Vec<u8> = (0..2 * piece + 1000).map(|n| (n / 7) as u8).collect();
    let mut upload = repository.upload(id(&content), Encoding::Raw, NOW).unwrap().unwrap();
    upload.write(0, &content[..piece + 10]).unwrap();
    assert_eq!((upload.offset(), upload.received()), (piece as u64, piece as u64 + 10));
    let error = upload.write(5, b"x").unwrap_err();
    assert!(matches!(error, RepositoryError::UploadOffset { expected, found: 5, .. } if expected == piece as u64 + 10));
    let survivor = disk.crash(disk.operations(), 1);
    let repository = desk.open(&survivor).unwrap();
    let mut upload = repository.upload(id(&content), Encoding::Raw, NOW).unwrap().unwrap();
    assert_eq!((upload.offset(), upload.received()), (piece as u64, piece as u64));
    // A second uploader of the same blob is told where the first has got to.
    let mut slower = repository.upload(id(&content), Encoding::Raw, NOW).unwrap().unwrap();
    upload.write(piece as u64, &content[piece..2 * piece]).unwrap();
    let error = slower.write(piece as u64, &content[piece..2 * piece]).unwrap_err();
    assert!(matches!(error, RepositoryError::UploadOffset { expected, .. } if expected == 2 * piece as u64), "{error}");
    slower.write(slower.received(), &content[2 * piece..]).unwrap();
    assert_eq!(slower.finish(Some(1), NOW).unwrap().bytes, content.len() as u64);
    assert_eq!(repository.blob_content(id(&content)).unwrap(), content);
}

#[test]
fn what_is_not_the_blob_is_refused_and_dropped() {
    let desk = Desk::new();
    let repository = desk.create(&CrashDisk::new()).unwrap();
    let (right, wrong) = (vec![1; 20_000], vec![2; 20_000]);
    let encoded = |ty, content: &[u8]| delivery::encode(content, ty, Some(1)).unwrap();
    let mut damaged = encoded(DeliveryType::Type1, &right);
    *damaged.last_mut().unwrap() ^= 1;
    for (form, bytes, said) in [
        (Encoding::Raw, wrong.clone(), id(&wrong).to_string()),
        (TYPE1, encoded(DeliveryType::Type1, &wrong), id(&wrong).to_string()),
        (TYPE1, encoded(DeliveryType::Type2, &right), "type 2".to_owned()),
        (TYPE1, right.clone(), "delivery".to_owned()),
        (TYPE1, damaged, String::new()),
        (Encoding::Raw, Vec::new(), String::new()),
    ] {
        let error = send(&repository, &right, form, &bytes).unwrap_err();
        assert!(matches!(error, RepositoryError::Upload { .. }) && error.to_string().contains(&said), "{error}");
        assert_eq!(repository.missing_blobs(&[id(&right)]).unwrap(), [id(&right)]);
    }
    let arc = Arc::new(repository);
    assert_eq!(send(&arc, &right, Encoding::Raw, &right).unwrap(), 20_000);
    assert_eq!(send(&arc, b"", Encoding::Raw, b"").unwrap(), 0, "the empty blob");
}
