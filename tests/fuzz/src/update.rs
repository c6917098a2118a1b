//! Properties of what tells a device to update itself: update packages, signed manifests, Omaha answers and their proof.

use bytes::Bytes;
use colibri_release::cup::{CupKeys, CupRequest};
use colibri_release::omaha::OmahaAnswer;
use colibri_release::ota_manifest::OtaManifest;
use colibri_release::update_package::{
    ImageSlot, ImageTarget, PartitionKind, UpdateMode, UpdatePackage, UpdatePackageError, UpdateTarget,
};
use serde_json::Value;

use crate::signer::KEYS;

/// The files of an update package, in this order, with zero bytes between; an empty one is absent.
const FILES: [&str; 6] = ["packages.json", "images.json", "version", "board", "epoch.json", "update-mode"];

/// What is read contradicts itself nowhere, and goes to no other board and to no higher epoch.
pub fn update_package(data: &[u8]) {
    let mut parts = data.splitn(FILES.len(), |byte| *byte == 0);
    let files = FILES.map(|name| (name, parts.next().unwrap_or_default()));
    let read = |wanted: &'static str| {
        let found = files.iter().find(|(name, _)| *name == wanted);
        Ok::<_, UpdatePackageError>(
            found.filter(|(_, text)| !text.is_empty()).map(|(_, text)| Bytes::copy_from_slice(text)),
        )
    };
    let Ok(update) = UpdatePackage::read(read) else { return };
    let count = |slot, kind| {
        let wanted = ImageTarget::Partition { slot, kind };
        update.images.iter().filter(|image| image.target == wanted).count()
    };
    for slot in [ImageSlot::Fuchsia, ImageSlot::Recovery] {
        let (zbi, vbmeta) = (count(slot, PartitionKind::Zbi), count(slot, PartitionKind::Vbmeta));
        assert!(zbi <= 1 && vbmeta <= zbi);
    }
    let brings_system = count(ImageSlot::Fuchsia, PartitionKind::Zbi) == 1;
    assert_eq!(brings_system, update.mode == UpdateMode::Normal);
    let board = update.board.clone().unwrap_or_else(|| "any".to_owned());
    let target = UpdateTarget { board, epoch: update.epoch, writes_recovery: true };
    assert_eq!(update.check_for(&target), Ok(()));
    if let Some(epoch) = update.epoch.checked_add(1) {
        assert!(update.check_for(&UpdateTarget { epoch, ..target.clone() }).is_err());
    }
    let other = UpdateTarget { board: format!("{}x", target.board), ..target };
    assert_eq!(update.check_for(&other).is_err(), update.board.is_some());
}

/// What one key signed counts for those who trust it and for nobody else; what nobody signed never counts.
pub fn ota_manifest(data: &[u8]) {
    let trusted = [KEYS[0].public()];
    assert!(OtaManifest::open(&Bytes::copy_from_slice(data), &trusted).is_err());
    let part = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let signed = [&[0xfc, 0x1a, 0x07, 0xaf, 1, 0, 0, 0][..], &part(data)].concat();
    let signature = KEYS[0].sign(&signed);
    let field = [&[0x0a, signature.len() as u8][..], &signature].concat();
    let file = Bytes::from([signed, part(&field)].concat());
    assert!(OtaManifest::open(&file, &[KEYS[1].public()]).is_err());
    if let Ok(manifest) = OtaManifest::open(&file, &trusted) {
        assert_eq!(OtaManifest::open(&file, &[KEYS[1].public(), KEYS[0].public()]).as_ref(), Ok(&manifest));
        for (index, image) in manifest.images.iter().enumerate() {
            assert!(manifest.images[..index].iter().all(|other| other.target != image.target));
        }
        let zbi = ImageTarget::Partition { slot: ImageSlot::Fuchsia, kind: PartitionKind::Zbi };
        let brings_system = manifest.images.iter().any(|image| image.target == zbi);
        assert_eq!(brings_system, manifest.mode == UpdateMode::Normal);
        let target = UpdateTarget { board: manifest.board.clone(), epoch: manifest.epoch, writes_recovery: true };
        assert_eq!(manifest.check_for(&target, manifest.version.parse().ok()), Ok(()));
        assert!(manifest.check_for(&UpdateTarget { board: format!("{}x", target.board), ..target }, None).is_err());
    }
}

/// Every URL of an offer is one of its bases with one of its names.
pub fn omaha(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(answer) = OmahaAnswer::parse(text) else { return };
    let document = text.strip_prefix(")]}'\n").unwrap_or(text);
    let lenient: Value = serde_json::from_str(document).expect("an answer is JSON");
    let apps = lenient["response"]["app"].as_array().expect("a list");
    assert_eq!(apps.len(), answer.apps.len());
    for (app, read) in apps.iter().zip(&answer.apps) {
        assert!(app["appid"] == *read.id && app["status"] == "ok");
        let check = &app["updatecheck"];
        let Some(offer) = &read.offer else {
            assert_eq!(check["status"], "noupdate");
            continue;
        };
        let texts = |list: &Value, field: &str| -> Vec<String> {
            let list = list.as_array().expect("a list");
            list.iter().map(|item| item[field].as_str().expect("a text").to_owned()).collect()
        };
        let bases = texts(&check["urls"]["url"], "codebase");
        let names = texts(&check["manifest"]["packages"]["package"], "name");
        assert_eq!(offer.urls.len(), bases.len() * names.len());
        assert!(offer.urls.iter().all(|url| bases.iter().any(|base| {
            url.strip_prefix(base.as_str()).is_some_and(|name| names.iter().any(|known| known == name))
        })));
    }
}

/// Of all headers only the true proof is believed, in whatever dress.
pub fn cup(data: &[u8]) {
    let Ok(etag) = std::str::from_utf8(data) else { return };
    let vector: Value = serde_json::from_slice(include_bytes!("../../vectors/cup.json")).expect("the vector is JSON");
    let text = |name: &str| vector[name].as_str().expect("a text").to_owned();
    let keys = serde_json::json!({"latest": {"id": vector["public_key_id"], "key": text("public_key_pem")}});
    let keys = CupKeys::parse(keys.to_string().as_bytes()).expect("keys");
    let request = CupRequest::new(&keys, [0; 32], text("request_body")).expect("a short body");
    if let Ok(exchange) = request.answered(&keys, text("response_body"), Some(etag)) {
        let bare = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"').to_ascii_lowercase();
        assert_eq!(bare, text("etag"));
        assert_eq!(exchange.verify(&keys), Ok(text("response_body").as_str()));
    }
}
