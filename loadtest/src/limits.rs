//! Every bound of this package.

/// Devices in one fleet without a scenario.
pub const DEVICES_MAX: u32 = 1_000_000;

/// Devices in a scenario.
pub const SCENARIO_DEVICES_MAX: u32 = 10_000_000;

/// Devices of a fluid picture.
pub const FLUID_DEVICES_MAX: u64 = 1_000_000_000_000;

/// Devices at work at once when the caller names no other number; a start beyond is dropped or waits, and is counted.
pub const DEVICES_AT_ONCE_MAX: usize = 512;

/// Sessions at once that a scenario may ask for.
pub const SESSIONS_AT_ONCE_MAX: usize = 20_000;

/// UDP sockets, for each address family, that all devices of a run share.
pub const CLIENT_SOCKETS: usize = 64;

/// meta.fars kept for parsing by the whole fleet, bytes.
pub const META_FARS_BYTES_MAX: u64 = 256 << 20;

/// Longest blob of an audited device that is hashed once more, bytes.
pub const AUDITED_BLOB_BYTES_MAX: u64 = 4 << 20;

/// Different failures kept with their text.
pub const FAILURE_TEXTS_MAX: usize = 16;

/// Sessions that took longest, kept one by one.
pub const SLOWEST_MAX: usize = 10;

/// A scenario's text, bytes.
pub const SCENARIO_BYTES_MAX: usize = 16 << 20;

/// Longest scenario, seconds: 30 days.
pub const DURATION_S_MAX: f64 = 2_592_000.0;

/// Link classes of a scenario.
pub const LINKS_MAX: usize = 32;

/// Faults of a scenario.
pub const FAULTS_MAX: usize = 256;

/// Rules of a scenario.
pub const RULES_MAX: usize = 256;

/// Packages of a catalogue, the release besides.
pub const PACKAGES_MAX: usize = 10_000;

/// Stages of a ramp.
pub const RAMP_STAGES_MAX: usize = 1_000;

/// Wakes of a trace in a scenario.
pub const TRACE_WAKES_MAX: usize = 1_000_000;

/// One line of a plan file, bytes.
pub const PLAN_LINE_BYTES_MAX: u64 = 4_096;

/// One line of an access log, bytes.
pub const ACCESS_LOG_LINE_BYTES_MAX: u64 = 65_536;

/// Requests of an access log that are replayed.
pub const ACCESS_LOG_EVENTS_MAX: usize = 20_000_000;

/// Packages that one device holds besides the release; the oldest goes first.
pub const HELD_PACKAGES_MAX: usize = 12;

/// Seconds of a timeline; later ones are counted in the last.
pub const TIMELINE_S_MAX: usize = 86_400;

/// A stored report, bytes.
pub const REPORT_BYTES_MAX: u64 = 256 << 20;

/// Edges that a run starts on one machine.
pub const SPAWNED_EDGES_MAX: usize = 64;

/// Workers that share one run.
pub const WORKERS_MAX: usize = 1_000;

/// Objects and edges that a simulation keeps in its caches, multiplied.
pub const SIMULATED_ENTRIES_MAX: u64 = 200_000_000;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("DEVICES_MAX", DEVICES_MAX as u64),
    ("SCENARIO_DEVICES_MAX", SCENARIO_DEVICES_MAX as u64),
    ("FLUID_DEVICES_MAX", FLUID_DEVICES_MAX),
    ("DEVICES_AT_ONCE_MAX", DEVICES_AT_ONCE_MAX as u64),
    ("SESSIONS_AT_ONCE_MAX", SESSIONS_AT_ONCE_MAX as u64),
    ("CLIENT_SOCKETS", CLIENT_SOCKETS as u64),
    ("META_FARS_BYTES_MAX", META_FARS_BYTES_MAX),
    ("AUDITED_BLOB_BYTES_MAX", AUDITED_BLOB_BYTES_MAX),
    ("FAILURE_TEXTS_MAX", FAILURE_TEXTS_MAX as u64),
    ("SLOWEST_MAX", SLOWEST_MAX as u64),
    ("SCENARIO_BYTES_MAX", SCENARIO_BYTES_MAX as u64),
    ("DURATION_S_MAX", DURATION_S_MAX as u64),
    ("LINKS_MAX", LINKS_MAX as u64),
    ("FAULTS_MAX", FAULTS_MAX as u64),
    ("RULES_MAX", RULES_MAX as u64),
    ("PACKAGES_MAX", PACKAGES_MAX as u64),
    ("RAMP_STAGES_MAX", RAMP_STAGES_MAX as u64),
    ("TRACE_WAKES_MAX", TRACE_WAKES_MAX as u64),
    ("PLAN_LINE_BYTES_MAX", PLAN_LINE_BYTES_MAX),
    ("ACCESS_LOG_LINE_BYTES_MAX", ACCESS_LOG_LINE_BYTES_MAX),
    ("ACCESS_LOG_EVENTS_MAX", ACCESS_LOG_EVENTS_MAX as u64),
    ("HELD_PACKAGES_MAX", HELD_PACKAGES_MAX as u64),
    ("TIMELINE_S_MAX", TIMELINE_S_MAX as u64),
    ("REPORT_BYTES_MAX", REPORT_BYTES_MAX),
    ("SPAWNED_EDGES_MAX", SPAWNED_EDGES_MAX as u64),
    ("WORKERS_MAX", WORKERS_MAX as u64),
    ("SIMULATED_ENTRIES_MAX", SIMULATED_ENTRIES_MAX),
];
