//! Package formats: FAR, `meta/*`, subpackages, manifests, archives, `fuchsia-pkg` URLs, delivery blobs and their verification.
