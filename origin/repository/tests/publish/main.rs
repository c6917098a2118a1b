//! Repositories made, published into and damaged, as a publisher and a device see them.

mod fixture;

mod bundle;
mod create;
mod damage;
mod release;
mod sources;
