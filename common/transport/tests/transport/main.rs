//! Client and server against each other, and each against peers that break the rules, on loopback.

mod bodies;
mod hostile;
mod lifecycle;
mod protocols;
mod support;
mod trust;
mod udp_blocked;
