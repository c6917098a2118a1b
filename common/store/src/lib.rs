//! Bytes on one disk behind a `Disk` seam: verified unit I/O, the durable `Store`, and `Documents`.
