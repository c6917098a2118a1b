//! The write API as a process answers it: who may, what is taken, what is refused, and what a broken connection costs.

mod abuse;
mod access;
mod publish;
mod remote;
mod site;
mod upload;
