//! A conversation with the command, for people to look at.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use session_memory_test_support::{RespClient, Server, Value};

use crate::{Result, interrupted, setup, step};

/// Plays the conversation on the Redis that `REDIS_HOST` names, or on a private one.
pub fn run(cli: &Path) -> Result {
    let server = match env::var("REDIS_HOST") {
        Ok(_) => None,
        Err(_) => {
            setup::redis()?;
            step("starting a private Redis");
            let server = Server::start(&[]).map_err(|error| error.to_string())?;
            step(&format!(
                "it listens on {}, its files are in a temporary folder",
                server.address()
            ));
            Some(server)
        }
    };
    // A session of its own, so that existing data is not touched.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let session = format!("demo-{}-{}", process::id(), now.as_millis());
    let demo = Demo {
        cli,
        server: server.as_ref(),
        session,
        color: io::stdout().is_terminal(),
    };
    let result = demo.play();
    if server.is_none() {
        // A Redis that is not private is left as it was.
        let mut clear = demo.command(&["clear", &demo.session]);
        let _ = clear.stderr(Stdio::null()).status();
    }
    result
}

struct Demo<'a> {
    cli: &'a Path,
    server: Option<&'a Server>,
    session: String,
    color: bool,
}

impl Demo<'_> {
    fn play(&self) -> Result {
        let session = self.session.as_str();

        self.title("A conversation of two turns")?;
        self.show(&[
            "add",
            session,
            "user",
            "What is RAG?",
            "--metadata",
            r#"{"client": "web"}"#,
        ])?;
        let reply = "Retrieval-augmented generation: look it up, then answer.";
        let metadata = r#"{"model": "demo", "tokens": 12}"#;
        self.show(&["add", session, "assistant", reply, "--metadata", metadata])?;
        self.show(&["add", session, "user", "Danke schön! 谢谢 🙏"])?;
        self.show(&["add", session, "assistant", ""])?;

        self.title("The history")?;
        self.show(&["history", session])?;

        self.title("The last two messages, as JSON")?;
        self.show(&["get", session, "--limit", "2", "--json"])?;

        self.title("What Redis has")?;
        self.show_stored(session)?;

        self.title("Clear, and it is gone")?;
        self.show(&["clear", session])?;
        self.show(&["exists", session])?;
        self.show(&["get", session])?;

        self.title("A session that lives for one second")?;
        self.show(&["add", session, "user", "Forget this.", "--session-ttl", "1"])?;
        self.show(&["exists", session])?;
        self.line("  ... 1.2 seconds later")?;
        let until = Instant::now() + Duration::from_millis(1200);
        while Instant::now() < until && !interrupted() {
            thread::sleep(Duration::from_millis(20));
        }
        match self.show(&["exists", session])?.as_str() {
            "false\n" => Ok(()),
            _ => Err("the session did not expire".to_owned()),
        }
    }

    /// Runs the command, shows what it prints, and returns it.
    fn show(&self, arguments: &[&str]) -> Result<String> {
        if interrupted() {
            return Err("interrupted".to_owned());
        }
        let quoted: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        self.line(&format!(
            "{} {}",
            self.dim("$ session-memory"),
            quoted.join(" ")
        ))?;
        let output = self
            .command(arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{}: {error}", self.cli.display()))?;
        io::stdout()
            .write_all(&output.stdout)
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("session-memory {} failed", arguments[0]));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn show_stored(&self, session: &str) -> Result {
        let prefix = env::var("KEY_PREFIX").unwrap_or_else(|_| "session:".to_owned());
        let key = format!("{prefix}{session}");
        let mut redis = self.redis().map_err(|error| format!("Redis: {error}"))?;
        let mut ask = |words: &[&str]| -> Result<Value> {
            self.line(&format!("{} {}", self.dim("redis>"), words.join(" ")))?;
            match redis.command(words) {
                Ok(Value::Error(error)) => Err(format!("Redis: {error}")),
                Ok(value) => Ok(value),
                Err(error) => Err(format!("Redis: {error}")),
            }
        };
        if let Value::Array(Some(elements)) = ask(&["LRANGE", &key, "0", "-1"])? {
            for element in elements {
                if let Value::Bulk(Some(element)) = element {
                    self.line(&String::from_utf8_lossy(&element))?;
                }
            }
        }
        if let Value::Integer(seconds) = ask(&["TTL", &key])? {
            self.line(&format!("{seconds}"))?;
        }
        Ok(())
    }

    /// A connection to the server that the command uses.
    fn redis(&self) -> io::Result<RespClient> {
        if let Some(server) = self.server {
            return server.client();
        }
        let variable = |name| {
            env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let host = variable("REDIS_HOST").unwrap_or_default();
        let port = variable("REDIS_PORT").unwrap_or_else(|| "6379".to_owned());
        let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut client = RespClient::connect((host.trim_matches(['[', ']']), port))?;
        if let Some(password) = variable("REDIS_PASSWORD") {
            let username = variable("REDIS_USERNAME");
            let words: Vec<&str> = ["AUTH"]
                .into_iter()
                .chain(username.as_deref())
                .chain([password.as_str()])
                .collect();
            client.command(&words)?;
        }
        if let Some(db) = variable("REDIS_DB") {
            client.command(&["SELECT", &db])?;
        }
        Ok(client)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.cli);
        command.args(arguments).stdin(Stdio::null());
        // These variables would change what the demo shows.
        let changing = ["MEMORY_PROVIDER", "SESSION_TTL_POLICY", "MAX_MESSAGES"];
        let changing = changing.iter().chain(match self.server {
            // The private server has no users and no password.
            Some(_) => &["REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB"][..],
            None => &[],
        });
        for variable in changing {
            command.env_remove(variable);
        }
        if let Some(server) = self.server {
            command
                .env("REDIS_HOST", "127.0.0.1")
                .env("REDIS_PORT", server.port().to_string());
        }
        command
    }

    fn title(&self, text: &str) -> Result {
        let text = if self.color {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        };
        self.line(&format!("\n{text}"))
    }

    fn dim(&self, text: &str) -> String {
        if self.color {
            format!("\x1b[2m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(&self, text: &str) -> Result {
        writeln!(io::stdout(), "{text}").map_err(|error| format!("output: {error}"))
    }
}

/// Quotes a word for a shell, if necessary.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_:.".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
