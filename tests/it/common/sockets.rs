//! The sockets of this machine, as Linux shows them.

use std::fs;
use std::time::Duration;

/// A TCP socket over IPv4 that some process holds.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    inode: u64,
    /// In what time the peer is probed, if that is what it waits for.
    pub keep_alive: Option<Duration>,
}

/// The sockets whose other ends are at this port. What was closed, and has bytes left to
/// send, is not among them, and nor is what was reset. The table is read in pieces, so that
/// one may be missing when others come and go.
pub fn connected_to(port: u16) -> Vec<Socket> {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_port = |line: &str| {
        // Number, local and remote address, state, queues, timer, retransmissions, user,
        // timeout, inode: see proc_pid_net(5).
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, remote) = fields[2].split_once(':').unwrap();
        let inode = fields[9].parse().unwrap();
        let (timer, when) = fields[5].split_once(':').unwrap();
        // In hundredths of a second, whatever the kernel counts in.
        let when = || Duration::from_millis(10 * u64::from_str_radix(when, 16).unwrap());
        let is_it = u16::from_str_radix(remote, 16).unwrap() == port && inode != 0;
        is_it.then(|| Socket {
            inode,
            keep_alive: (timer == "02").then(when),
        })
    };
    let mut sockets: Vec<Socket> = table.lines().skip(1).filter_map(of_port).collect();
    // Nor is one there twice.
    sockets.sort_by_key(|socket| socket.inode);
    sockets.dedup_by_key(|socket| socket.inode);
    sockets
}

impl Socket {
    /// Whether this process still holds it, in whatever state it is.
    pub fn is_held(&self) -> bool {
        let name = format!("socket:[{}]", self.inode);
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        // Others come and go.
        let mut names = files.filter_map(|file| fs::read_link(file.path()).ok());
        names.any(|found| found.as_os_str() == name.as_str())
    }
}
