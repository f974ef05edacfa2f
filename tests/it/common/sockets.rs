//! The sockets of this machine, as Linux lists them.

use std::fs;
use std::time::Duration;

/// A TCP socket over IPv4 that some process holds.
#[derive(Clone, Copy, Debug)]
pub struct SocketEntry {
    inode: u64,
    /// The time until the peer is probed, if the keep-alive timer runs.
    pub keep_alive: Option<Duration>,
}

/// The sockets that are connected to a port. Closed sockets with bytes left to send are
/// not listed, and nor are reset ones. The kernel returns the table in pieces, so one may
/// be missing while others come and go.
pub fn connected_to(port: u16) -> Vec<SocketEntry> {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_port = |line: &str| {
        // Number, local and remote address, state, queues, timer, retransmissions, user,
        // timeout, inode: see proc_pid_net(5).
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, remote) = fields[2].split_once(':').unwrap();
        let inode = fields[9].parse().unwrap();
        let (timer, when) = fields[5].split_once(':').unwrap();
        // The unit is a hundredth of a second, whatever the kernel counts in.
        let when = || Duration::from_millis(10 * u64::from_str_radix(when, 16).unwrap());
        let is_it = u16::from_str_radix(remote, 16).unwrap() == port && inode != 0;
        is_it.then(|| SocketEntry {
            inode,
            keep_alive: (timer == "02").then(when),
        })
    };
    let mut sockets: Vec<SocketEntry> = table.lines().skip(1).filter_map(of_port).collect();
    // One may be listed twice as well.
    sockets.sort_by_key(|socket| socket.inode);
    sockets.dedup_by_key(|socket| socket.inode);
    sockets
}

impl SocketEntry {
    /// Whether this process still holds it, in any state.
    pub fn is_held(&self) -> bool {
        let name = format!("socket:[{}]", self.inode);
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        // Other files come and go.
        let mut names = files.filter_map(|file| fs::read_link(file.path()).ok());
        names.any(|found| found.as_os_str() == name.as_str())
    }
}
