//! Just enough HTTP to talk to the programs that this one starts, on the loopback interface.
//!
//! Requests are HTTP/1.0: the answer then ends with the connection, and is never sent in chunks (RFC 9112, section 6.1).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

const ANSWER_BYTES_MAX: u64 = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body as JSON, when the status says that all is well.
    pub fn json(&self) -> Result<serde_json::Value> {
        if !(200..300).contains(&self.status) {
            bail!("HTTP {}: {}", self.status, self.body.chars().take(500).collect::<String>());
        }
        serde_json::from_str(&self.body).context("the answer is not JSON")
    }
}

pub fn get(port: u16, path: &str) -> Result<Answer> {
    request(port, "GET", path, None)
}

pub fn post(port: u16, path: &str, body: &serde_json::Value) -> Result<Answer> {
    request(port, "POST", path, Some(body.to_string()))
}

fn request(port: u16, method: &str, path: &str, body: Option<String>) -> Result<Answer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream =
        TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("nothing answers on {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.unwrap_or_default();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut bytes = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{method} {path} got no whole answer"))?;
    parse(&bytes).with_context(|| format!("{method} {path} on {address}"))
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let split = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| anyhow!("the answer has no end of headers"))?;
    let head = String::from_utf8_lossy(&bytes[..split]);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| anyhow!("the answer has no status"))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&bytes[split + 4..]).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = parse(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!((answer.status, answer.json().unwrap()["a"].as_i64()), (200, Some(1)));
        assert!(parse(b"HTTP/1.0 503 Unavailable\r\n\r\nno").unwrap().json().is_err());
        assert!(parse(b"HTTP/1.0 200 OK\r\n").is_err());
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
