//! HTTP/3, 2 and 1.1: listeners, connection pool, TLS, bodies, back-off.
