//! Interoperation tests: repositories of ours read by the client that real Fuchsia devices carry. All of it is in `tests/`.
