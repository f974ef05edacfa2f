//! The server: what lies in it, and the time that it uses.

use std::net::SocketAddr;
use std::time::Duration;

use session_memory_core::message::{NewMessage, Role};
use session_memory_test_support::{RespClient, Value};

use crate::slot::{NUMBER, Result, Slot, content, number};

/// A connection of the benchmark's own, which is used between slots only.
pub struct Redis {
    connection: RespClient,
}

impl Redis {
    /// Connects.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn connect(address: SocketAddr) -> Result<Redis> {
        Ok(Redis {
            connection: RespClient::connect(address)?,
        })
    }

    /// Makes a session of so many messages, as the component would: by turns of the
    /// user and of the assistant, who has metadata. No two of them are the same.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
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

    /// Bytes of the reply with which such a session is read.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn reply_bytes(bytes: usize, messages: u32) -> Result<usize> {
        let content = content(bytes);
        let mut total = format!("*{messages}\r\n").len();
        for number in 0..messages {
            let length = element(&content, number)?.len();
            total += format!("${length}\r\n\r\n").len() + length;
        }
        Ok(total)
    }

    /// Deletes what a slot's callers write.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
    pub fn clear(&mut self, slot: &Slot) -> Result<()> {
        for caller in 0..slot.callers {
            self.forget(&format!("{}-{caller}", slot.session))?;
        }
        Ok(())
    }

    /// Deletes a session, and LangChain's of that name.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
    pub fn forget(&mut self, session: &str) -> Result<()> {
        let keys = ["session:", "message_store:"].map(|prefix| format!("{prefix}{session}"));
        self.command(&["DEL", &keys[0], &keys[1]])?;
        Ok(())
    }

    /// CPU time that the server has used.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
    pub fn cpu_time(&mut self) -> Result<Duration> {
        let info = self.info("cpu")?;
        let seconds = |name| -> Result<f64> {
            let value = field(&info, name).ok_or("INFO has no CPU times")?;
            Ok(value.parse()?)
        };
        let seconds = seconds("used_cpu_sys")? + seconds("used_cpu_user")?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// The server's process.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
    pub fn process_id(&mut self) -> Result<u32> {
        let info = self.info("server")?;
        let value = field(&info, "process_id").ok_or("INFO has no process")?;
        Ok(value.parse()?)
    }

    /// What it is: its name and version.
    ///
    /// # Errors
    ///
    /// The connection's or the server's.
    pub fn version(&mut self) -> Result<String> {
        let info = self.info("server")?;
        let valkey = field(&info, "valkey_version").map(|version| format!("Valkey {version}"));
        let redis = || Some(format!("Redis {}", field(&info, "redis_version")?));
        Ok(valkey.or_else(redis).ok_or("INFO has no version")?)
    }

    fn info(&mut self, section: &str) -> Result<String> {
        match self.command(&["INFO", section])? {
            Value::Bulk(Some(text)) => Ok(String::from_utf8(text)?),
            _ => Err("the reply to INFO is no text".into()),
        }
    }

    fn command<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Value> {
        match self.connection.command(words)? {
            Value::Error(error) => Err(format!("the server says: {error}").into()),
            value => Ok(value),
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The element of a message as the component writes it.
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

/// Messages of a push.
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
        let one = element(&content(100), 0).expect("it is a message").len();
        let reply = Redis::reply_bytes(100, 1).expect("they are messages");
        assert_eq!(reply, "*1\r\n$200\r\n\r\n".len() + one);
    }
}
