//! Being a long-running process: configuration, telemetry, metrics, admin port, drain.
