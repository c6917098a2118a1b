//! Repositories made, published into and damaged, as a publisher and a device see them.

mod fixture;

mod audit;
mod bundle;
mod ceremonies;
mod collection;
mod create;
mod damage;
mod keys;
mod profiles;
mod release;
mod rotation;
mod sources;
