//! The server: its sessions, and its CPU time.

use std::net::SocketAddr;
use std::time::Duration;

use session_memory_core::message::{NewMessage, Role};
use session_memory_test_support::{RespClient, Value};

use crate::burst::{Burst, NUMBER, Result, content, number};

/// The benchmark's own connection to the server. It is used only between bursts.
pub struct Redis {
    connection: RespClient,
}

impl Redis {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Fails when the server cannot be reached.
    pub fn connect(address: SocketAddr) -> Result<Redis> {
        Ok(Redis {
            connection: RespClient::connect(address)?,
        })
    }

    /// Writes a session as the component would. Messages of the user alternate with those of
    /// the assistant, which have metadata. No two messages are the same.
    ///
    /// # Errors
    ///
    /// Fails when the connection fails or the server replies with an error.
    pub fn fill(&mut self, session: &str, bytes: usize, messages: u32) -> Result<()> {
        let key = format!("session:{session}");
        self.command(&["DEL", &key])?;
        let mut content = content(bytes);
        for first in (0..messages).step_by(BATCH) {
            let batch = first..messages.min(first + BATCH as u32);
            let mut words = vec!["RPUSH".to_owned(), key.clone()];
            for message in batch {
                content.replace_range(..NUMBER, &number(message as usize));
                words.push(element(&content, message)?);
            }
            self.command(&words)?;
        }
        Ok(())
    }

    /// Returns the bytes of the reply to a read of a session that [`Redis::fill`] wrote.
    ///
    /// # Errors
    ///
    /// Fails when a message cannot be encoded, which is not expected.
    pub fn reply_bytes(bytes: usize, messages: u32) -> Result<usize> {
        let content = content(bytes);
        let mut total = format!("*{messages}\r\n").len();
        for number in 0..messages {
            let length = element(&content, number)?.len();
            total += format!("${length}\r\n\r\n").len() + length;
        }
        Ok(total)
    }

    /// Deletes the sessions that the callers of a burst write.
    ///
    /// # Errors
    ///
    /// Fails when the connection fails or the server replies with an error.
    pub fn clear(&mut self, burst: &Burst) -> Result<()> {
        for caller in 0..burst.callers {
            self.forget(&format!("{}-{caller}", burst.session))?;
        }
        Ok(())
    }

    /// Deletes a session, and LangChain's session of the same id.
    ///
    /// # Errors
    ///
    /// Fails when the connection fails or the server replies with an error.
    pub fn forget(&mut self, session: &str) -> Result<()> {
        let keys = ["session:", "message_store:"].map(|prefix| format!("{prefix}{session}"));
        self.command(&["DEL", &keys[0], &keys[1]])?;
        Ok(())
    }

    /// Returns the CPU time that the server has used.
    ///
    /// # Errors
    ///
    /// Fails when the connection fails or the server replies with an error.
    pub fn cpu_time(&mut self) -> Result<Duration> {
        let info = self.info("cpu")?;
        let seconds = |name| -> Result<f64> {
            let value = field(&info, name).ok_or("INFO has no CPU times")?;
            Ok(value.parse()?)
        };
        let seconds = seconds("used_cpu_sys")? + seconds("used_cpu_user")?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// Returns the id of the server's process.
    ///
    /// # Errors
    ///
    /// Fails when the connection fails or the server replies with an error.
    pub fn process_id(&mut self) -> Result<u32> {
        let info = self.info("server")?;
        let value = field(&info, "process_id").ok_or("INFO has no process id")?;
        Ok(value.parse()?)
    }

    /// Returns the name and version of the server.
    ///
    /// # Errors
    ///
    /// Fails when the connection fails or the server replies with an error.
    pub fn version(&mut self) -> Result<String> {
        let info = self.info("server")?;
        let valkey = field(&info, "valkey_version").map(|version| format!("Valkey {version}"));
        let redis = || Some(format!("Redis {}", field(&info, "redis_version")?));
        Ok(valkey.or_else(redis).ok_or("INFO has no version")?)
    }

    fn info(&mut self, section: &str) -> Result<String> {
        match self.command(&["INFO", section])? {
            Value::Bulk(Some(text)) => Ok(String::from_utf8(text)?),
            _ => Err("the reply to INFO is not a string".into()),
        }
    }

    fn command<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Value> {
        match self.connection.command(words)? {
            Value::Error(error) => Err(format!("the server replied with an error: {error}").into()),
            value => Ok(value),
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Encodes a message as the component does.
fn element(content: &str, number: u32) -> Result<String> {
    let (role, metadata) = match number % 2 {
        0 => (Role::User, None),
        _ => (
            Role::Assistant,
            Some(r#"{"model": "gpt-4", "tokens": 120}"#),
        ),
    };
    let mut message = NewMessage::new(role, content);
    message.metadata = metadata.map(str::to_owned);
    let id = format!("1f6c2e0b7a5d4c3f9e8d7c6b5a493827-{number}");
    let element = message.encode("2024-01-15T10:30:00.250000", Some(&id), u32::MAX)?;
    Ok(String::from_utf8(element)?)
}

/// The number of messages in a push.
const BATCH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let info = "# CPU\r\nused_cpu_sys_children:1\r\nused_cpu_sys:2.5\r\n";
        assert_eq!(field(info, "used_cpu_sys"), Some("2.5"));
        assert_eq!(field(info, "used_cpu"), None);
    }

    #[test]
    fn a_reply_is_as_long_as_its_elements() {
        let one = element(&content(100), 0)
            .expect("the message is valid")
            .len();
        let reply = Redis::reply_bytes(100, 1).expect("the messages are valid");
        assert_eq!(reply, "*1\r\n$200\r\n\r\n".len() + one);
    }
}
