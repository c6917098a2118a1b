//! Every bound of this package. The four file caps are those of the stock client (reference "Fuchsia formats" §5).

/// Largest root file in bytes.
pub const ROOT_BYTES_MAX: u64 = 500 * 1024;
/// Largest timestamp file in bytes.
pub const TIMESTAMP_BYTES_MAX: u64 = 16 * 1024;
/// Largest snapshot file in bytes.
pub const SNAPSHOT_BYTES_MAX: u64 = 2_000_000;
/// Largest targets file in bytes.
pub const TARGETS_BYTES_MAX: u64 = 5_000_000;
/// Most new root versions taken in one update.
pub const ROOTS_PER_UPDATE_MAX: u64 = 1024;
/// Deepest nesting of JSON arrays and objects.
pub const JSON_DEPTH_MAX: u64 = 32;
/// Most signatures on one file: each costs a verification.
pub const SIGNATURES_MAX: u64 = 256;
/// Most keys in one root.
pub const KEYS_MAX: u64 = 1024;
/// Longest target name in bytes.
pub const TARGET_NAME_BYTES_MAX: u64 = 1024;
/// Longest key id in hex digits.
pub const KEY_ID_DIGITS_MAX: u64 = 128;
/// Largest repository configuration in bytes.
pub const REPO_CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// Largest list of repository configurations in bytes: room for the 256 of a device at 64 KiB each.
pub const REPO_CONFIG_LIST_BYTES_MAX: u64 = 16 << 20;
/// Longest URL in a repository configuration, in bytes.
pub const URL_BYTES_MAX: u64 = 2048;

const _: () = assert!(TIMESTAMP_BYTES_MAX < SNAPSHOT_BYTES_MAX && SNAPSHOT_BYTES_MAX < TARGETS_BYTES_MAX);
const _: () = assert!(JSON_DEPTH_MAX < 128, "below the JSON parser's own recursion limit");

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("ROOT_BYTES_MAX", ROOT_BYTES_MAX),
    ("TIMESTAMP_BYTES_MAX", TIMESTAMP_BYTES_MAX),
    ("SNAPSHOT_BYTES_MAX", SNAPSHOT_BYTES_MAX),
    ("TARGETS_BYTES_MAX", TARGETS_BYTES_MAX),
    ("ROOTS_PER_UPDATE_MAX", ROOTS_PER_UPDATE_MAX),
    ("JSON_DEPTH_MAX", JSON_DEPTH_MAX),
    ("SIGNATURES_MAX", SIGNATURES_MAX),
    ("KEYS_MAX", KEYS_MAX),
    ("TARGET_NAME_BYTES_MAX", TARGET_NAME_BYTES_MAX),
    ("KEY_ID_DIGITS_MAX", KEY_ID_DIGITS_MAX),
    ("REPO_CONFIG_BYTES_MAX", REPO_CONFIG_BYTES_MAX),
    ("REPO_CONFIG_LIST_BYTES_MAX", REPO_CONFIG_LIST_BYTES_MAX),
    ("URL_BYTES_MAX", URL_BYTES_MAX),
];
