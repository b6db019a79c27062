//! Signed deliveries over kept-open connections, as fast as they are answered.
//!
//! One thread, plain HTTP/1.1 on bare sockets: what the generator spends is taken from the cores that it measures, so it
//! does nothing but format, sign, write and read. What it spends all the same is reported.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use frontdesk_messenger::signature;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::machine::thread_seconds;
use crate::table::Times;

/// Customers that write; each delivery is of one of them.
const CUSTOMERS: u64 = 5_000;
/// Meta's message ids have about this length.
const MID_PADDING: &str = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_";
const HEAD_BYTES_MAX: usize = 16_384;
/// Longer than any server here takes; a delivery without an answer fails the run instead of hanging it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    pub duration: Duration,
    /// Messages in one delivery.
    pub events: usize,
    /// Marks this run's message ids; letters and digits.
    pub run: String,
    /// The Page that is written to, and the secret of the app that it is connected to.
    pub page: String,
    pub secret: SecretString,
    /// Deliveries a second. A delivery's time then counts from the moment it was due, so that a server that falls behind
    /// cannot hide it. `None`: as fast as they are answered.
    pub rate: Option<f64>,
    /// Meta's time of the first delivery, in milliseconds since 1970.
    pub first_ms: u64,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Numbers of the deliveries that were answered with 200.
    pub acked: Vec<u64>,
    /// Answers by status, other than 200.
    pub refused: BTreeMap<u16, u64>,
    pub times: Times,
    pub elapsed_s: f64,
    /// Cores that the generator kept busy.
    pub generator_cores: f64,
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    pub fn acks_per_second(&self) -> f64 {
        self.acked.len() as f64 / self.elapsed_s.max(0.001)
    }
}

#[derive(Default)]
struct Tally {
    acked: Vec<u64>,
    refused: BTreeMap<u16, u64>,
    micros: Vec<f64>,
}

/// Sends until the time is up and waits for the last answers. Blocks; runs beside a runtime, never on one.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let next = Rc::new(Cell::new(0));
    let (began, cpu_before) = (Instant::now(), thread_seconds());
    let deadline = began + plan.duration;
    let tallies = local.block_on(&runtime, async {
        let connections = (0..plan.connections)
            .map(|_| tokio::task::spawn_local(connection(plan.clone(), Rc::clone(&next), began, deadline)));
        futures::future::try_join_all(connections.collect::<Vec<_>>()).await
    })?;
    let (elapsed_s, cpu) = (began.elapsed().as_secs_f64(), thread_seconds() - cpu_before);
    let mut sum = Tally::default();
    for tally in tallies {
        let tally = tally?;
        sum.acked.extend(tally.acked);
        sum.micros.extend(tally.micros);
        for (status, count) in tally.refused {
            *sum.refused.entry(status).or_default() += count;
        }
    }
    Ok(Outcome {
        acked: sum.acked,
        refused: sum.refused,
        times: Times::new(sum.micros),
        elapsed_s,
        generator_cores: cpu / elapsed_s.max(0.001),
    })
}

async fn connection(plan: Plan, next: Rc<Cell<u64>>, began: Instant, deadline: Instant) -> Result<Tally> {
    let mut stream = TcpStream::connect(plan.address).await.context("connecting to the server under load")?;
    stream.set_nodelay(true)?;
    let mut tally = Tally::default();
    let mut answer = Vec::with_capacity(1_024);
    while Instant::now() < deadline {
        let number = next.replace(next.get() + 1);
        let request = request(&plan, number);
        let sent = match plan.rate {
            None => Instant::now(),
            Some(rate) => {
                #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
                let due = began + Duration::from_secs_f64(number as f64 / rate);
                if due >= deadline {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        stream.write_all(&request).await?;
        let status = tokio::time::timeout(ANSWER_TIMEOUT, read_answer(&mut stream, &mut answer))
            .await
            .context("a delivery got no answer within 30 s")??;
        if status == 200 {
            tally.acked.push(number);
            tally.micros.push(sent.elapsed().as_secs_f64() * 1e6);
        } else {
            *tally.refused.entry(status).or_default() += 1;
        }
    }
    Ok(tally)
}

fn request(plan: &Plan, number: u64) -> Vec<u8> {
    let body = body(plan, number);
    let signature = signature::sign(&plan.secret, body.as_bytes());
    let mut request = format!(
        "POST /meta/webhook HTTP/1.1\r\nhost: frontdesk\r\nuser-agent: facebookexternalua\r\naccept: */*\r\n\
         content-type: application/json\r\nx-hub-signature-256: {signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

/// The id of a delivery's message.
pub fn mid(run: &str, number: u64, index: usize) -> String {
    format!("m_{run}.{number:09}.{index:03}.{MID_PADDING}")
}

/// A delivery in Meta's written form: escaped letters beyond ASCII, long ids.
fn body(plan: &Plan, number: u64) -> String {
    let time_ms = plan.first_ms + number;
    let customer = 7_000_000_000_000_000 + number % CUSTOMERS;
    let page = &plan.page;
    let messages = (0..plan.events).map(|index| {
        let mid = mid(&plan.run, number, index);
        format!(
            "{{\"sender\":{{\"id\":\"{customer}\"}},\"recipient\":{{\"id\":\"{page}\"}},\"timestamp\":{time_ms},\
             \"message\":{{\"mid\":\"{mid}\",\"text\":\"Hello! Do you ship to \
             \\u00d6sterreich, and how long does a parcel of {index} kilograms take? I need it on Friday.\"}}}}"
        )
    });
    let messages = messages.collect::<Vec<_>>().join(",");
    format!("{{\"object\":\"page\",\"entry\":[{{\"id\":\"{page}\",\"time\":{time_ms},\"messaging\":[{messages}]}}]}}")
}

/// Reads one whole answer and gives its status.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<u16> {
    answer.clear();
    let head = loop {
        if let Some(at) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if answer.len() > HEAD_BYTES_MAX {
            bail!("the head of an answer is longer than {HEAD_BYTES_MAX} bytes");
        }
        if stream.read_buf(answer).await? == 0 {
            bail!("the server closed a connection that should stay open");
        }
    };
    let text =
        std::str::from_utf8(answer.get(..head).unwrap_or_default()).context("the head of an answer is no text")?;
    let status = text.get(9..12).and_then(|digits| digits.parse().ok()).context("an answer has no status")?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head + length.context("an answer has no content-length")?;
    while answer.len() < end {
        if stream.read_buf(answer).await? == 0 {
            bail!("the server cut off an answer");
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_what_the_host_reads() {
        let plan = Plan {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            connections: 1,
            duration: Duration::ZERO,
            events: 3,
            run: "r1".to_owned(),
            page: "106000000000001".to_owned(),
            secret: SecretString::from("secret"),
            rate: None,
            first_ms: 1_767_000_000_000,
        };
        let batch = frontdesk_messenger::parse(body(&plan, 7).as_bytes()).unwrap();
        let keys: std::collections::BTreeSet<_> =
            batch.events.iter().map(frontdesk_messenger::Event::dedupe_key).collect();
        assert_eq!(keys.len(), 3);
        assert!(batch.events.iter().all(|event| event.kind_name() == "message"));
        let other = frontdesk_messenger::parse(body(&plan, 8).as_bytes()).unwrap();
        assert!(!keys.contains(&other.events[0].dedupe_key()));
    }
}
