//! Every bound of this package, and [`Caps`], the four of them that a caller may raise.

/// Largest root file in bytes: the stock client's (reference "Fuchsia formats" §5), as the next three.
pub const ROOT_BYTES_MAX: u64 = 500 * 1024;
/// Largest timestamp file in bytes.
pub const TIMESTAMP_BYTES_MAX: u64 = 16 * 1024;
/// Largest snapshot file in bytes.
pub const SNAPSHOT_BYTES_MAX: u64 = 2_000_000;
/// Largest targets file in bytes, delegated ones too.
pub const TARGETS_BYTES_MAX: u64 = 5_000_000;
/// Most new root versions taken in one update.
pub const ROOTS_PER_UPDATE_MAX: u64 = 1024;
/// Deepest nesting of JSON arrays and objects.
pub const JSON_DEPTH_MAX: u64 = 32;
/// Most signatures on one file: each costs a verification.
pub const SIGNATURES_MAX: u64 = 256;
/// Most keys in one root, or in the delegations of one targets role.
pub const KEYS_MAX: u64 = 1024;
/// Longest PEM text of a key, in bytes: room for the largest RSA key.
pub const KEY_PEM_BYTES_MAX: u64 = 4096;
/// Shortest RSA modulus in bits.
pub const RSA_BITS_MIN: u64 = 2048;
/// Longest RSA modulus in bits: the time of a verification grows with its square.
pub const RSA_BITS_MAX: u64 = 8192;
/// Longest RSA exponent in bits.
pub const RSA_EXPONENT_BITS_MAX: u64 = 32;
/// Longest target name in bytes.
pub const TARGET_NAME_BYTES_MAX: u64 = 1024;
/// Longest key id in bytes.
pub const KEY_ID_BYTES_MAX: u64 = 256;
/// Longest name of a delegated role in bytes, after its encoding for file names.
pub const ROLE_NAME_BYTES_MAX: u64 = 200;
/// Most delegations in one targets role.
pub const DELEGATIONS_MAX: u64 = 16_384;
/// Most path patterns in the delegations of one targets role: each may have to be matched in a search.
pub const PATH_PATTERNS_MAX: u64 = 4096;
/// Longest path pattern in bytes.
pub const PATH_PATTERN_BYTES_MAX: u64 = 512;
/// Most hash prefixes in the delegations of one targets role.
pub const HASH_PREFIXES_MAX: u64 = 65_536;
/// Most delegated roles that one search visits.
pub const SEARCH_ROLES_MAX: u64 = 64;
/// Longest chain of delegations that one search follows.
pub const SEARCH_DEPTH_MAX: u64 = 16;
/// Most delegated roles kept in one trusted set.
pub const DELEGATED_ROLES_HELD_MAX: u64 = 16_384;
/// Largest repository configuration in bytes.
pub const REPO_CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// Largest list of repository configurations in bytes: room for the 256 of a device at 64 KiB each.
pub const REPO_CONFIG_LIST_BYTES_MAX: u64 = 16 << 20;
/// Longest URL in a repository configuration, in bytes.
pub const URL_BYTES_MAX: u64 = 2048;

const _: () = assert!(TIMESTAMP_BYTES_MAX < SNAPSHOT_BYTES_MAX && SNAPSHOT_BYTES_MAX < TARGETS_BYTES_MAX);
const _: () = assert!(JSON_DEPTH_MAX <= 64, "the reader recurses");

/// Largest file of each role in bytes. The defaults are what a device takes and what the stock client takes; who reads
/// larger repositories on purpose, as a publisher's desk does, raises them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Of a root file.
    pub root_bytes: u64,
    /// Of the timestamp file.
    pub timestamp_bytes: u64,
    /// Of a snapshot file.
    pub snapshot_bytes: u64,
    /// Of a targets file, delegated ones too.
    pub targets_bytes: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            root_bytes: ROOT_BYTES_MAX,
            timestamp_bytes: TIMESTAMP_BYTES_MAX,
            snapshot_bytes: SNAPSHOT_BYTES_MAX,
            targets_bytes: TARGETS_BYTES_MAX,
        }
    }
}

impl Caps {
    /// Largest file of `role` in bytes.
    pub const fn of(&self, role: crate::Role) -> u64 {
        match role {
            crate::Role::Root => self.root_bytes,
            crate::Role::Timestamp => self.timestamp_bytes,
            crate::Role::Snapshot => self.snapshot_bytes,
            crate::Role::Targets => self.targets_bytes,
        }
    }
}

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
    ("KEY_PEM_BYTES_MAX", KEY_PEM_BYTES_MAX),
    ("RSA_BITS_MIN", RSA_BITS_MIN),
    ("RSA_BITS_MAX", RSA_BITS_MAX),
    ("RSA_EXPONENT_BITS_MAX", RSA_EXPONENT_BITS_MAX),
    ("TARGET_NAME_BYTES_MAX", TARGET_NAME_BYTES_MAX),
    ("KEY_ID_BYTES_MAX", KEY_ID_BYTES_MAX),
    ("ROLE_NAME_BYTES_MAX", ROLE_NAME_BYTES_MAX),
    ("DELEGATIONS_MAX", DELEGATIONS_MAX),
    ("PATH_PATTERNS_MAX", PATH_PATTERNS_MAX),
    ("PATH_PATTERN_BYTES_MAX", PATH_PATTERN_BYTES_MAX),
    ("HASH_PREFIXES_MAX", HASH_PREFIXES_MAX),
    ("SEARCH_ROLES_MAX", SEARCH_ROLES_MAX),
    ("SEARCH_DEPTH_MAX", SEARCH_DEPTH_MAX),
    ("DELEGATED_ROLES_HELD_MAX", DELEGATED_ROLES_HELD_MAX),
    ("REPO_CONFIG_BYTES_MAX", REPO_CONFIG_BYTES_MAX),
    ("REPO_CONFIG_LIST_BYTES_MAX", REPO_CONFIG_LIST_BYTES_MAX),
    ("URL_BYTES_MAX", URL_BYTES_MAX),
];
