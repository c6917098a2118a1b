//! The program by which the system brings datagrams to the right one of several sockets: a classic BPF filter of six steps,
//! which takes no privileges. It reads what [`super::steer`] reads; what it cannot place the system spreads by addresses, and
//! what goes wrong then is passed on in user space.

use std::net::UdpSocket;

use nix::libc::{self, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};

use super::steer::LONG_HEADER;

/// No socket has this index: the system chooses by addresses.
const BY_ADDRESSES: u32 = u32::MAX;

/// What to do with a datagram: the answer is the index of a socket, in the order in which they were bound.
fn program(sockets: u8) -> [sock_filter; 6] {
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let byte_at = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let (jump, answer) = (libc::BPF_JMP | libc::BPF_K, libc::BPF_RET);
    [
        step(byte_at, 0, 0, 0),
        // Long headers carry ids that the client may have chosen.
        step(jump | libc::BPF_JSET, LONG_HEADER.into(), 3, 0),
        step(byte_at, 1, 0, 0),
        step(jump | libc::BPF_JGE, sockets.into(), 1, 0),
        step(answer | libc::BPF_A, 0, 0, 0),
        step(answer | libc::BPF_K, BY_ADDRESSES, 0, 0),
    ]
}

/// Has the system steer the datagrams of all sockets that were bound to this one's port with the same leave to share it, of
/// which this process has so many. Where other processes share the port, or the system refuses, user space does it all.
///
/// # Errors
/// What the system said.
pub(super) fn attach(socket: &UdpSocket, sockets: u8) -> std::io::Result<()> {
    let mut steps = program(sockets);
    // The system copies the steps before the call returns.
    let program = sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    setsockopt(socket, sockopt::AttachReusePortCbpf, &program).map_err(Into::into)
}
