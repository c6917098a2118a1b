//! Client and server against each other, and each against peers that break the rules, on loopback.

mod bodies;
mod drain;
mod early;
mod hostile;
mod lifecycle;
#[cfg(feature = "links")]
mod link;
mod load;
mod mutual_tls;
mod priority;
mod protocols;
mod rebind;
mod refusals;
mod relay;
mod reload;
mod support;
mod trust;
mod udp_blocked;
mod unix;
