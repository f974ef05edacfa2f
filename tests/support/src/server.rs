//! A private Redis server: on a free loopback port, its files in a temporary folder. It
//! ends when it is dropped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::RespClient;

/// Says how to install a server, if there is none.
pub const INSTALL_HINT: &str = "install a Redis server: Debian's and Ubuntu's package is redis-server, \
     Fedora's valkey, Homebrew's redis; redis-server or valkey-server must be on PATH";

/// The server program on PATH.
pub fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    ["redis-server", "valkey-server"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
}

/// A running server.
pub struct Server {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server that keeps nothing on disk. `arguments` are added to its
    /// command line.
    ///
    /// # Errors
    ///
    /// When there is no server program, or it does not reply within 20 seconds.
    pub fn start(arguments: &[&str]) -> io::Result<Server> {
        // Another process may take the port before the server does.
        let mut last = None;
        for _ in 0..5 {
            match Server::start_at((Ipv4Addr::LOCALHOST, free_port()?).into(), arguments) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Some(error),
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Starts a server at the given address, as [`Server::start`] does.
    ///
    /// # Errors
    ///
    /// As [`Server::start`], and [`io::ErrorKind::AddrInUse`].
    pub fn start_at(address: SocketAddr, arguments: &[&str]) -> io::Result<Server> {
        let folder = tempfile::Builder::new()
            .prefix("session-memory-")
            .tempdir()?;
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let process = launch(address, folder.path(), &arguments)?;
        Ok(Server {
            process,
            address,
            folder,
            arguments,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`Server::address`].
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// A new connection to it.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn client(&self) -> io::Result<RespClient> {
        RespClient::connect(self.address())
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again after [`Server::kill`], with the same address and files.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.process = launch(self.address, self.folder.path(), &self.arguments)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

/// A port that nothing listens on.
///
/// # Errors
///
/// The error of the operating system.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn launch(address: SocketAddr, folder: &Path, arguments: &[String]) -> io::Result<Child> {
    let program = program().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, INSTALL_HINT))?;
    let log = folder.join("log");
    let mut process = Command::new(program)
        .args([
            "--bind",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
            "--save",
            "",
            "--dir",
        ])
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        // Any reply will do: a server that asks for a password is up too.
        let reply = RespClient::connect(address).and_then(|mut client| client.command(&["PING"]));
        if reply.is_ok() && process.try_wait()?.is_none() {
            return Ok(process);
        }
        if process.try_wait()?.is_some() || Instant::now() > until {
            let _ = process.kill();
            process.wait()?;
            let log = fs::read_to_string(&log).unwrap_or_default();
            let kind = if log.contains("Address already in use") {
                io::ErrorKind::AddrInUse
            } else {
                io::ErrorKind::Other
            };
            return Err(io::Error::new(
                kind,
                format!("the server did not start:\n{log}"),
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
}
