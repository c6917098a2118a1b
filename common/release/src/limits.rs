//! Every bound of this package.

/// Largest product release document in bytes.
pub const RELEASE_BYTES_MAX: u64 = 64 << 20;
/// Most repositories that a release trusts.
pub const REPOSITORIES_MAX: u64 = 256;
/// Most packages of one release.
pub const PACKAGES_MAX: u64 = 100_000;
/// Most boot packages of one release.
pub const BOOT_PACKAGES_MAX: u64 = 1_024;
/// Most package hashes, subpackages included, of one release.
pub const CONTENTS_MAX: u64 = 200_000;
/// Most blobs listed in one release.
pub const BLOBS_MAX: u64 = 1_000_000;
/// Most lines of the list of anchored packages and subpackages of one release.
pub const AUDIT_LINES_MAX: u64 = 1_000_000;
/// Most discoverable domains of one release.
pub const DOMAINS_MAX: u64 = 1_000;
/// Longest product name in bytes.
pub const PRODUCT_NAME_BYTES_MAX: u64 = 255;
/// Most numbers in a version.
pub const VERSION_PARTS_MAX: u64 = 4;
/// Largest `rollout/*` target in bytes.
pub const ROLLOUT_BYTES_MAX: u64 = 1 << 20;
/// Most releases that one rollout refers to.
pub const ROLLOUT_RELEASES_MAX: u64 = 1_024;
/// Largest `bundle.json` in a bundle, in bytes.
pub const BUNDLE_HEAD_BYTES_MAX: u64 = 4 << 10;
/// Largest `keys` document of a versioning authority in bytes.
pub const CUP_KEYS_BYTES_MAX: u64 = 64 << 10;
/// Largest body of a request to a versioning authority, and of its answer, in bytes.
pub const CUP_BODY_BYTES_MAX: u64 = 1 << 20;
/// Most apps of one answer of a versioning authority.
pub const OMAHA_APPS_MAX: u64 = 64;
/// Most URLs of one offer.
pub const OMAHA_URLS_MAX: u64 = 256;
/// Largest JSON file of an update package in bytes.
pub const UPDATE_FILE_BYTES_MAX: u64 = 16 << 20;
/// Most images of an update.
pub const UPDATE_IMAGES_MAX: u64 = 64;
/// Longest version or board in an update package in bytes.
pub const UPDATE_LINE_BYTES_MAX: u64 = 256;
/// Largest manifest in a signed manifest of an update in bytes, as the stock client has it.
pub const OTA_MANIFEST_BYTES_MAX: u64 = 10 << 20;
/// Most bytes of signatures in a signed manifest of an update, as the stock client has it.
pub const OTA_SIGNATURES_BYTES_MAX: u64 = 1 << 20;
/// Most signatures in a signed manifest of an update.
pub const OTA_SIGNATURES_MAX: u64 = 64;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("RELEASE_BYTES_MAX", RELEASE_BYTES_MAX),
    ("REPOSITORIES_MAX", REPOSITORIES_MAX),
    ("PACKAGES_MAX", PACKAGES_MAX),
    ("BOOT_PACKAGES_MAX", BOOT_PACKAGES_MAX),
    ("CONTENTS_MAX", CONTENTS_MAX),
    ("BLOBS_MAX", BLOBS_MAX),
    ("AUDIT_LINES_MAX", AUDIT_LINES_MAX),
    ("DOMAINS_MAX", DOMAINS_MAX),
    ("PRODUCT_NAME_BYTES_MAX", PRODUCT_NAME_BYTES_MAX),
    ("VERSION_PARTS_MAX", VERSION_PARTS_MAX),
    ("ROLLOUT_BYTES_MAX", ROLLOUT_BYTES_MAX),
    ("ROLLOUT_RELEASES_MAX", ROLLOUT_RELEASES_MAX),
    ("BUNDLE_HEAD_BYTES_MAX", BUNDLE_HEAD_BYTES_MAX),
    ("CUP_KEYS_BYTES_MAX", CUP_KEYS_BYTES_MAX),
    ("CUP_BODY_BYTES_MAX", CUP_BODY_BYTES_MAX),
    ("OMAHA_APPS_MAX", OMAHA_APPS_MAX),
    ("OMAHA_URLS_MAX", OMAHA_URLS_MAX),
    ("UPDATE_FILE_BYTES_MAX", UPDATE_FILE_BYTES_MAX),
    ("UPDATE_IMAGES_MAX", UPDATE_IMAGES_MAX),
    ("UPDATE_LINE_BYTES_MAX", UPDATE_LINE_BYTES_MAX),
    ("OTA_MANIFEST_BYTES_MAX", OTA_MANIFEST_BYTES_MAX),
    ("OTA_SIGNATURES_BYTES_MAX", OTA_SIGNATURES_BYTES_MAX),
    ("OTA_SIGNATURES_MAX", OTA_SIGNATURES_MAX),
];
