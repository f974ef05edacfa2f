//! A Redis client of the simplest kind, to look at the data on a server. It shares no
//! code with the component, which it checks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A connection.
pub struct RespClient {
    stream: BufReader<TcpStream>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A simple string.
    Simple(String),
    /// An error.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A bulk string, or null.
    Bulk(Option<Vec<u8>>),
    /// An array, or null.
    Array(Option<Vec<Value>>),
}

impl RespClient {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error.
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<RespClient> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(RespClient {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a command and reads its reply, which may be [`Value::Error`].
    ///
    /// # Errors
    ///
    /// Returns the connection's error, or [`io::ErrorKind::InvalidData`] for anything
    /// that is not a reply.
    pub fn command<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Value> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line
            .strip_suffix("\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("no reply: {line:?}"));
        let (kind, rest) = line.split_at_checked(1).ok_or_else(invalid)?;
        let number = || rest.parse::<i64>().map_err(|_| invalid());
        Ok(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()?),
            "$" => Value::Bulk(match usize::try_from(number()?) {
                Err(_) => None,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Some(bytes)
                }
            }),
            "*" => Value::Array(match usize::try_from(number()?) {
                Err(_) => None,
                Ok(length) => Some(
                    (0..length)
                        .map(|_| self.read())
                        .collect::<io::Result<_>>()?,
                ),
            }),
            _ => return Err(invalid()),
        })
    }
}
